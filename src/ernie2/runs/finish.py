"""From a trainer to a finished run: the shards held while it trains, then the Hugging Face folder and the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from ernie2.config.settings import TrainSettings
from ernie2.console import say
from ernie2.errors import StorageError
from ernie2.model.hf import unknown_to_hf
from ernie2.model.multitask import MultiTaskModel
from ernie2.reporting.report import write_report
from ernie2.runs.export import export_hf
from ernie2.runs.folder import locked_shards
from ernie2.runs.prepare import say_missing
from ernie2.shards.shard_folders import tokenizer_of
from ernie2.shards.store import Shards
from ernie2.training.distributed import World
from ernie2.training.full_state import unsharded
from ernie2.training.run_record import RunRecord
from ernie2.training.trainer import Trainer


@contextmanager
def run_in_training(run: Path, shards: Shards, trainer: Trainer, record: RunRecord) -> Iterator[None]:
    """Hold the shards of a run while it is trained inside; then the first rank writes its model, report and record.

    Where anything is raised, run.json says "stopped". Raises `ShardError` where the shards were replaced since they
    were opened.
    """
    world = trainer.world
    with locked_shards(shards, world):
        _say_settings(trainer, record)
        try:
            yield
            model = unsharded(trainer.model, world)
            folder = world.on_first(lambda: _export(run, shards, trainer, record, model, trainer.position.seen))
            done = record.updated(status="done", finished=datetime.now(UTC).isoformat(timespec="seconds"))
            page = world.on_first(lambda: write_report(run, record=done))
            trainer.records.describe(done)  # last, so that a finished run has its results
        except BaseException:
            with suppress(StorageError):  # on a full disk the first error is the one to tell
                trainer.records.describe(record.updated(status="stopped"))
            raise
    loads = "" if unknown_to_hf(model.settings) else " (transformers loads it as ErnieModel or ErnieForMaskedLM)"
    say(f"Model:  {folder}{loads}")
    say(f"Report: {page}")


def _say_settings(trainer: Trainer, record: RunRecord) -> None:
    flash = record.environment["flash_attention"]
    say(f"Device: {record.device}, {record.precision}" + (f", {flash}" if flash else ""))
    for note in settings_without_effect(trainer.settings, trainer.world):
        say(f"Note: {note}")
    if lacking := unknown_to_hf(trainer.model.settings):
        say(f"Note: Hugging Face's ErnieModel has no {', '.join(lacking)}: only ernie2 will read this run's model.")
    say_missing(trainer.heldout.missing)


def settings_without_effect(settings: TrainSettings, world: World) -> list[str]:
    """One sentence on each setting of a recipe that does nothing, or less than it says, on this machine."""
    notes = []
    if settings.precision == "fp16" and world.device.type == "cpu":
        notes.append(
            "train.precision=fp16 makes a CPU slower, not faster; auto takes bf16 where the CPU computes in it."
        )
    if settings.parallel != "auto" and world.size == 1:
        notes.append(f"train.parallel={settings.parallel} has no effect on one rank; torchrun starts more.")
    return notes


def _export(
    run: Path, shards: Shards, trainer: Trainer, record: RunRecord, model: MultiTaskModel, seen: Mapping[str, int]
) -> Path:
    last = [line for line in trainer.records.read() if line["kind"] == "heldout"][-1]["tasks"]
    wordpieces = tokenizer_of(shards)
    return export_hf(run / "hf", model, wordpieces, record, last, seen)
