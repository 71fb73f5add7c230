"""Build the objects of a run from a recipe and shards, in the order of the data flow."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from ernie2.batches.feeds import build_feeds, disjoint_pairs
from ernie2.batches.packing import Caps
from ernie2.batches.stages import METHODS, Stage, StagePlan
from ernie2.batches.streams import DataStreams, Feed
from ernie2.config.settings import BatchSettings, Recipe
from ernie2.console import log_warning
from ernie2.errors import ConfigError, ShardError, TaskError
from ernie2.formatting import quantity
from ernie2.model.attention.fused import activate_newest_flash
from ernie2.model.heads import HeadSpec
from ernie2.model.multitask import MultiTaskModel
from ernie2.shards.shard_folders import load_shards_tokenizer
from ernie2.shards.store import ShardedCorpus, Shards, verify_on_error
from ernie2.tasks.base import SentenceTask, Task, Vocabulary
from ernie2.tasks.building import build_tasks, task_ids, task_options, vocabulary_of
from ernie2.tasks.usable_data import UsableTable
from ernie2.training.distributed import ProcessGroup
from ernie2.training.environment import environment, git_state, rules, versions
from ernie2.training.evaluate import HeldOut
from ernie2.training.hooks.base import Hook
from ernie2.training.hooks.mirror import Mirror
from ernie2.training.hooks.non_finite import NonFiniteSteps
from ernie2.training.hooks.shard_check import ShardCheck
from ernie2.training.hooks.signals import Signals
from ernie2.training.hooks.trackers import check_trackers, trackers
from ernie2.training.hooks.watchdog import Watchdog
from ernie2.training.memory import check_memory
from ernie2.training.optimizers import state_numbers
from ernie2.training.records import Records
from ernie2.training.run_record import (
    FORMAT,
    CorpusRecord,
    DataRecord,
    RunRecord,
    StageRecord,
    TaskRecord,
    UsableRecord,
    fingerprint,
)
from ernie2.training.step import choose_precision
from ernie2.training.trainer import Trainer, TrainingData


@dataclass(frozen=True)
class Pretraining:
    """A run that is ready to start: its trainer, its record, and the usable documents per task and corpus."""

    trainer: Trainer
    record: RunRecord
    usable: UsableTable


def build(
    recipe: Recipe,
    shards: Shards,
    model: MultiTaskModel | None = None,
    stages: Sequence[Stage] | None = None,
    inherited_stages: int = 0,
    group: ProcessGroup | None = None,
    hooks: Sequence[Hook] = (),
) -> Pretraining:
    """Build everything a run needs. `model`: for a warm start; default: initialised from the recipe's seed.

    `stages`: those of an existing run; default: from the recipe's method. `inherited_stages`: number of stages trained
    by the run that this one extends; the warm-up is computed from the others. Each rank of `group` builds all objects;
    parameters are those of the first.

    Raises `TaskError`, `ConfigError` or `ShardError` if recipe, tasks and shards do not match.
    """
    check_trackers(recipe.train.trackers)
    group = group or ProcessGroup()
    device = group.device
    with group.shared_errors(), verify_on_error(shards.corpora.values()):
        precision = choose_precision(recipe.train.precision, device)
        if recipe.encoder.kind == "transformer" and precision != "fp32":
            activate_newest_flash(device, recipe.encoder.hidden // recipe.encoder.heads, log_warning)
        vocabulary = vocabulary_of(load_shards_tokenizer(shards))
        tasks = build_tasks(recipe.tasks, vocabulary, shards.corpora)
        check_sequence_limits(shards, tasks, recipe.batch.sequence_tokens, recipe.encoder.segment_types)
        ids = task_ids(list(recipe.tasks), recipe.encoder.task_ids)
        weights = {name: corpus.weight for name, corpus in recipe.corpora.items()}
        streams, feed, usable = open_stream(shards, tasks, ids, recipe.batch, recipe.seed, weights)
        plans = build_plans(recipe, tasks, check_attached_tasks(tasks, disjoint_pairs(feed)), stages)
        check_memory(recipe.encoder, vocabulary.size, device, state_numbers(recipe.train))
        model = model or MultiTaskModel(recipe.encoder, vocabulary.size, head_specs(tasks), recipe.seed)
        heldout = HeldOut(streams, feed, tasks, recipe.train.heldout_instances, recipe.seed)
        initial = parameters_digest(model.encoder)
    steps = max(sum(plan.stage.iterations_of(task.name) for plan in plans[inherited_stages:]) for task in tasks)
    data = TrainingData(streams, plans, heldout, steps)
    records = Records(Path(recipe.run), writes=group.is_first)
    builtin_hooks = default_hooks(
        recipe, shards, model, {task.name: task.options.loss_weight for task in tasks}, precision, group
    )
    trainer = Trainer(recipe, model, data, records, [*builtin_hooks, *hooks], group)
    recipe_values = {**recipe.model_dump(mode="json"), "tasks": task_options(tasks)}
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else f"cpu ({quantity(torch.get_num_threads(), 'thread')})"
    record = RunRecord(
        format=FORMAT,
        name=recipe.name,
        about=recipe.about,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        finished=None,
        status="running",
        seed=recipe.seed,
        recipe=recipe_values,
        recipe_fingerprint=fingerprint(recipe_values),
        rules=rules(),
        versions=versions(),
        environment=environment(),
        job=group.job,
        git=git_state(),
        device=name,
        precision=precision,
        run_id=trainer.run_id,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        initial_parameters=initial,
        data=_data_record(shards, vocabulary, usable),
        tasks=tuple(_task_record(task, ids[task.name]) for task in tasks),
        stages=tuple(_stage_record(number, plan) for number, plan in enumerate(plans, 1)),
        batch_tokens=recipe.batch.batch_tokens,
        initialised_from=None,
        extended_from=None,
    )
    return Pretraining(trainer, record, usable)


def default_hooks(
    recipe: Recipe,
    shards: Shards,
    model: MultiTaskModel,
    weights: Mapping[str, float],
    precision: str,
    group: ProcessGroup,
) -> list[Hook]:
    """Return the hooks that every run has on this rank, in the order in which they are opened."""
    settings = recipe.train
    first_rank_hooks = trackers(settings.trackers) if group.is_first else []
    if settings.mirror and group.is_first:
        first_rank_hooks.append(Mirror(Path(recipe.run), settings.mirror))
    return [
        ShardCheck(shards, group.local_rank, group.local_size),
        *first_rank_hooks,
        NonFiniteSteps(model, recipe, weights, precision, group),
        Watchdog(settings.watchdog_seconds, group.rank, group.size),
        Signals(),
    ]


def parameters_digest(module: torch.nn.Module) -> str:
    """Return the BLAKE2 hash of all parameters and their names; it is equal only for bitwise equal encoders."""
    digest = hashlib.blake2b(digest_size=16)
    for name, parameter in sorted(module.named_parameters()):
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def open_stream(
    shards: Shards,
    tasks: Sequence[Task],
    ids: Mapping[str, int],
    batch: BatchSettings,
    seed: int,
    weights: Mapping[str, float | None] | None = None,
) -> tuple[DataStreams, dict[str, Feed], UsableTable]:
    """Return the training streams, the corpora each task reads, and the table of usable documents.

    `weights`: corpus → share of a task's tokens read from it; default: its number of tokens. Raises `TaskError` like
    `feeds`.
    """
    feed, usable = build_feeds(shards, tasks, weights=weights, sequence_tokens=batch.sequence_tokens)
    caps = Caps.of(batch.pack_tokens, batch.sequence_tokens, tasks)
    return DataStreams(feed, tasks, tasks[0].vocabulary, caps, ids, seed=seed, count=batch.packs), feed, usable


def build_plans(
    recipe: Recipe,
    tasks: Sequence[Task],
    disjoint: frozenset[tuple[str, str]] = frozenset(),
    stages: Sequence[Stage] | None = None,
) -> list[StagePlan]:
    """Plan the steps of `stages`, by default those of the recipe's method.

    `disjoint`: pairs (main task, token-level task) that share no corpus.
    """
    order = recipe.stages.order or tuple(recipe.tasks)
    levels = {task.name: task.level for task in tasks}
    closed = frozenset(task.name for task in tasks if isinstance(task, SentenceTask) and not task.allows_attached_tasks)
    if stages is None:
        stages = METHODS[recipe.stages.method](order, recipe.stages.steps)
    return [
        StagePlan(stage, levels, recipe.stages.combine, recipe.stages.token_only_share, closed, disjoint)
        for stage in stages
    ]


def check_attached_tasks(tasks: Sequence[Task], disjoint: frozenset[tuple[str, str]]) -> frozenset[tuple[str, str]]:
    """Return `disjoint`. Raises `TaskError` if a task on labelled pairs allows attached tasks but none reads them."""
    token_tasks = [task.name for task in tasks if task.level == "token"]
    for task in tasks:
        if (
            not isinstance(task, SentenceTask)
            or task.corpus_kind != "pairs"
            or not task.allows_attached_tasks
            or not token_tasks
        ):
            continue
        if all((task.name, other) in disjoint for other in token_tasks):
            raise TaskError(
                f"task {task.name!r} allows attached tasks, but none of {', '.join(token_tasks)} reads its labelled "
                "pairs. Add its corpus (and the others) to their `corpora`, or remove "
                f"tasks.{task.name}.allows_attached_tasks."
            )
    return disjoint


def head_specs(tasks: Sequence[Task]) -> list[HeadSpec]:
    """Return the head of each task, as its level and labels require."""
    return [HeadSpec(task.name, task.level, None if (labels := task.labels) is None else len(labels)) for task in tasks]


def check_sequence_limits(shards: Shards, tasks: Sequence[Task], sequence_tokens: int, segment_types: int) -> None:
    """Check that the shards' longest sentence fits into a sequence and that there are enough segment types.

    Raises `ShardError` if a sentence does not fit, `ConfigError` if a task uses more segments than there are types.
    """
    most = max([1, *(task.max_segments for task in tasks if isinstance(task, SentenceTask))])
    limit = sequence_tokens - 1 - most
    longest = max((_longest_sentence(corpus) for corpus in shards.corpora.values()), default=0)
    if longest > limit:
        raise ShardError(
            f"{shards.folder} has sentences of up to {longest} tokens, but batch.sequence_tokens={sequence_tokens} "
            f"allows {limit}. Prepare with shards.sentence_tokens={limit} or below, or raise batch.sequence_tokens to "
            f"{longest + sequence_tokens - limit}."
        )
    if most > segment_types:
        raise ConfigError(
            f"a task uses up to {most} segments, but encoder.segment_types={segment_types}; raise it or lower the "
            "task's max_segments."
        )


def _longest_sentence(corpus: ShardedCorpus) -> int:
    """Return the tokens of a corpus's longest sentence; 0 for labelled pairs, whose tasks truncate texts."""
    if corpus.labels:
        return 0
    return max((int(np.diff(shard.sentences).max(initial=0)) for shard in corpus.shards), default=0)


def _data_record(shards: Shards, vocabulary: Vocabulary, usable: UsableTable) -> DataRecord:
    return DataRecord(
        shards=tuple(str(folder.resolve()) for folder in shards.folders),
        fingerprint=shards.fingerprint,
        tokenizer=shards.tokenizer_fingerprint,
        vocab_size=vocabulary.size,
        corpora={
            name: CorpusRecord.model_validate(
                {key: corpus.facts[key] for key in CorpusRecord.model_fields if key in corpus.facts}
            )
            for name, corpus in shards.corpora.items()
        },
        usable={
            task: {corpus: UsableRecord.model_validate(counts) for corpus, counts in counted.items()}
            for task, counted in usable.items()
        },
    )


def _task_record(task: Task, row: int) -> TaskRecord:
    labels = None if task.labels is None else tuple(task.labels)
    return TaskRecord(name=task.name, id=row, level=task.level, labels=labels, title=task.title, about=task.about)


def _stage_record(number: int, plan: StagePlan) -> StageRecord:
    stage = plan.stage
    iterations, introduced = dict(stage.iterations), tuple(stage.introduced)
    return StageRecord(name=str(number), iterations=iterations, steps=len(plan), introduced=introduced)
