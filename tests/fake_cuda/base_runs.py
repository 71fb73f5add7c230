"""The shipped recipes at base size on made-up shards: task sets, packs of 65,536 tokens, models without values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily

import tiny
import tiny_run
from ernie2.batches.batch import PackedBatch
from ernie2.batches.feeds import disjoint_pairs
from ernie2.batches.streams import DataStreams, StreamState
from ernie2.config.settings import Recipe
from ernie2.model import encoder, heads
from ernie2.model.heads import HeadSpec
from ernie2.model.multitask import MultiTaskModel
from ernie2.runs.build import build_plans, check_attached_tasks, head_specs, open_stream
from ernie2.runs.recipes import load_recipe
from ernie2.shards.shard_folders import load_shards_tokenizer
from ernie2.shards.store import Shards
from ernie2.tasks.building import build_tasks, task_ids, vocabulary_of
from ernie2.training.measuring import TaskSet, task_sets
from ernie2.training.optimizers import build_optimizer

_VOCABULARY = {"all-seven": 30_522, "english-base": 30_522, "chinese-base": 18_000}
_BASE = ["encoder.layers=12", "encoder.hidden=768", "encoder.heads=12", "encoder.position_rows=512"]
_PACKS = ["batch.pack_tokens=65536", "batch.batch_tokens=131072", "batch.sequence_tokens=512"]


@dataclass(frozen=True)
class BaseRun:
    """What a recipe trains on: `weights` of its losses, heads, and every task set of its stages."""

    recipe: Recipe
    shards: Shards
    vocab_size: int
    streams: DataStreams
    specs: Sequence[HeadSpec]
    weights: Mapping[str, float]
    sets: Sequence[TaskSet]

    def pack(self, chosen: TaskSet, number: int = 0) -> PackedBatch:
        """The first pack of data stream `number` for a task set."""
        return self.streams.pack(number, StreamState(), chosen.main_task, chosen.active)[0]


@cache
def base_run(name: str, folder: Path) -> BaseRun:
    """The recipe `name` with shards in `folder`, made up of random ids."""
    recipe = base_recipe(name)
    shards = _write_shards(folder / name, recipe)
    tasks = build_tasks(recipe.tasks, vocabulary_of(load_shards_tokenizer(shards)), shards.corpora)
    ids = task_ids(list(recipe.tasks), recipe.encoder.task_ids)
    streams, feed, _ = open_stream(shards, tasks, ids, recipe.batch, recipe.seed)
    plans = build_plans(recipe, tasks, check_attached_tasks(tasks, disjoint_pairs(feed)))
    weights = {task.name: task.options.loss_weight for task in tasks}
    return BaseRun(recipe, shards, _VOCABULARY[name], streams, head_specs(tasks), weights, list(task_sets(plans)))


def base_recipe(name: str, *overrides: str) -> Recipe:
    """A shipped recipe with the encoder of base and its packs, two of them a step."""
    return load_recipe(name, [*_BASE, *_PACKS, "stages.max_epochs=1e9", *overrides])


def build_model(run: BaseRun, **encoder_changes: Any) -> tuple[MultiTaskModel, torch.optim.AdamW]:
    """Model and optimiser on the card that is open; nothing is drawn, for there is nothing to hold it."""
    settings = run.recipe.encoder.model_copy(update=encoder_changes)
    nothing = (mock.patch.object(module, "initialise") for module in (encoder, heads))
    with next(nothing), next(nothing), unset_fake_temporarily():
        model = MultiTaskModel(settings, run.vocab_size, run.specs, seed=0)
    on_card(model)
    return model.train(), build_optimizer(model, run.recipe.train)


def on_card(model: torch.nn.Module) -> None:
    """Gives `model` parameters on the card in place of its own."""
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                empty = torch.empty(parameter.shape, dtype=parameter.dtype, device="cuda")
                module._parameters[name] = torch.nn.Parameter(empty)


def _write_shards(folder: Path, recipe: Recipe) -> Shards:
    rng = np.random.default_rng(0)
    documents = [tiny.random_document(rng, sentences=60, words=20, name=f"doc{i}", group=i) for i in range(30)]
    corpora = {
        name: _pairs(rng, 9 if name == "discourse" else 3) if corpus.pairs else documents
        for name, corpus in recipe.corpora.items()
    }
    return tiny_run.write_shards(folder, documents, pairs=corpora)


def _pairs(rng: np.random.Generator, labels: int) -> list[Any]:
    def text() -> list[list[int]]:
        return [rng.integers(5, 200, size=int(rng.integers(5, 40))).tolist()]

    return [tiny.document([text(), text()], name=f"pair{i}", group=i, label=str(i % labels)) for i in range(60)]
