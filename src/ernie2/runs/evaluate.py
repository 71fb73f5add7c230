"""Evaluate a trained model on held-out documents."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ernie2.batches.feeds import corpus_weight
from ernie2.batches.streams import Feed
from ernie2.config.settings import BatchSettings, TrainSettings
from ernie2.console import log_info, log_warning
from ernie2.errors import ConfigError
from ernie2.formatting import quantity
from ernie2.runs.build import check_sequence_limits, open_stream
from ernie2.runs.load import load_checkpoint
from ernie2.runs.prepare import warn_no_heldout
from ernie2.runs.sources import shards_of_run, unfinished_note
from ernie2.shards.shard_folders import locked_shards
from ernie2.shards.store import Shards
from ernie2.training.environment import same_sampling
from ernie2.training.evaluate import HeldOut
from ernie2.training.hooks.shard_check import check_shards
from ernie2.training.run_record import is_run, read_run
from ernie2.training.step import choose_precision


def evaluate(checkpoint: str | Path, data: str | Path | None = None) -> dict[str, dict[str, Any]]:
    """Evaluate every task of a checkpoint (run or Hugging Face folder) on held-out documents.

    `data`: a folder of shards; default: those of the run. Returns task → metrics and baselines. Raises `ShardError` if
    a sentence of the shards is too long for the checkpoint's sequences.
    """
    checkpoint = Path(checkpoint)
    if data is None and not checkpoint.exists():
        raise ConfigError(f"{checkpoint} does not exist; name a run or a Hugging Face folder written by ernie2.")
    if data is None and not is_run(checkpoint):
        raise ConfigError(f"{checkpoint} is not a run. Name a run, or a Hugging Face folder with --data SHARDS.")
    shards = Shards(data) if data is not None else shards_of_run(checkpoint, read_run(checkpoint))
    with locked_shards(shards):
        return _evaluate(checkpoint, shards)


def _evaluate(checkpoint: Path, shards: Shards) -> dict[str, dict[str, Any]]:
    if is_run(checkpoint) and not same_sampling(read_run(checkpoint).rules):
        log_warning(
            f"Note: {checkpoint} was trained with other sampling rules. Held-out instances are sampled with those of "
            "this version, so scores can differ from its records."
        )
    check_shards(shards)
    loaded = load_checkpoint(checkpoint, shards)
    if (note := unfinished_note(checkpoint, loaded.checkpoint)) is not None:
        log_warning(note)
    recipe, settings = loaded.recipe, loaded.model.settings
    limit = recipe.batch.sequence_tokens if recipe else min(settings.position_rows, 512)
    sizes = {"batch_tokens": 8 * limit, "pack_tokens": 8 * limit, "sequence_tokens": limit}
    batch = recipe.batch if recipe else BatchSettings.model_validate(sizes)
    train, seed = (recipe.train, recipe.seed) if recipe else (TrainSettings(), 0)
    instances = train.heldout_instances
    check_sequence_limits(shards, loaded.tasks, limit, settings.segment_types)
    weights = {name: corpus.weight for name, corpus in recipe.corpora.items()} if recipe else {}
    streams, feed, _ = open_stream(shards, loaded.tasks, loaded.ids, batch, seed, weights)
    heldout = HeldOut(streams, feed, loaded.tasks, instances, seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = choose_precision(train.precision, device)
    log_info(f"Device: {device}, {precision}")
    source = "the run's recipe" if recipe else f"defaults, because {checkpoint} has no recipe"
    log_info(
        f"Held out: up to {quantity(instances, 'instance')} per task from {_corpora(feed, weights)}; seed {seed}, "
        f"sequences of up to {limit} tokens. Settings: {source}."
    )
    figures = heldout.evaluate(loaded.model.to(device), device, precision, trained=loaded.trained)
    warn_no_heldout(heldout.missing)
    return figures


def _corpora(feeds: Mapping[str, Feed], weights: Mapping[str, float | None]) -> str:
    """List the corpora that tasks read, with weights: "wiki (weight 2), web (weight 9,100: its token count)"."""
    read = {corpus.name: corpus_weight(corpus, weights) for feed in feeds.values() for corpus in feed.corpora}
    return ", ".join(
        f"{name} (weight {weight:,.10g}{': its token count' if tokens else ''})"
        for name, (weight, tokens) in read.items()
    )
