"""The folder of a run: who holds it, what is in it, what is held while it is trained and written at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from ernie2.config.settings import EncoderSettings, TrainSettings
from ernie2.console import log_info, log_warning
from ernie2.errors import CheckpointError, FolderInUse, StorageError
from ernie2.model.hf import unsupported_by_hf
from ernie2.reporting.report import write_report
from ernie2.runs.export import export_hf
from ernie2.runs.prepare import warn_no_heldout
from ernie2.shards.shard_folders import load_shards_tokenizer, locked_shards
from ernie2.shards.store import Shards
from ernie2.storage.atomic import remove_leftovers
from ernie2.storage.locks import FolderLock, lock_owner
from ernie2.training.checkpoints import begun
from ernie2.training.distributed import ProcessGroup
from ernie2.training.full_state import unsharded
from ernie2.training.run_record import RunRecord, read_run
from ernie2.training.trainer import Trainer


@contextmanager
def locked_run_dir(run: Path, group: ProcessGroup) -> Iterator[None]:
    """Make the run folder and lock it; the first rank does so for all.

    Raises `FolderInUse` where another process holds it, `StorageError` where there can be none.
    """
    with ExitStack() as held:
        with group.shared_errors():
            if group.is_first:
                held.enter_context(FolderLock(run, alternative="run=FOLDER starts another run"))
                remove_leftovers(run / "checkpoints")
        yield


def should_resume(run: Path, group: ProcessGroup) -> bool:
    """`is_restart` before the lock of `run` is held; raises `FolderInUse` where another process holds it."""
    if not group.restarts and (owner := lock_owner(run)) is not None:  # else an ended attempt may not be gone yet
        raise FolderInUse(f"{run} {lock_advice(owner)}")
    return is_restart(run, group)


def lock_advice(owner: str) -> str:
    """Return what a folder is that `owner` has locked, and what can be done, as the end of a sentence."""
    return f"is in use by {owner}. Wait for it or stop it; run=FOLDER starts another run."


def is_restart(run: Path, group: ProcessGroup) -> bool:
    """Whether this job of torchrun began `run` and now starts anew; raises `CheckpointError` where another did."""
    if not begun(run):
        return False
    if group.restarts or (group.job is not None and read_run(run).job == group.job):
        return True
    raise CheckpointError(f"{run} holds a {existing_run_advice(run)}")


def existing_run_advice(run: Path) -> str:
    """What kind of run a folder holds and what can be done with it, as the end of a sentence."""
    if read_run(run).status == "done":
        return f"finished run: `ernie2 extend {run} --task TASK --data SHARDS` adds a task; run=FOLDER starts another."
    return f"run that is not finished: `ernie2 resume {run}` goes on with it; run=FOLDER starts another."


@contextmanager
def run_lifecycle(run: Path, shards: Shards, trainer: Trainer, record: RunRecord) -> Iterator[None]:
    """Hold the shards of a run while it is trained inside; then the first rank writes its model, report and record.

    Where anything is raised, run.json says "stopped". Raises `ShardError` where the shards were replaced since they
    were opened.
    """
    group = trainer.group
    with ExitStack() as held:
        with group.shared_errors():
            if group.local_rank == 0:  # for all ranks of its machine
                held.enter_context(locked_shards(shards))
        _log_settings(trainer, record)
        try:
            yield
            model = unsharded(trainer.model, group)

            def export() -> Path:
                last = [line for line in trainer.records.read() if line["kind"] == "heldout"][-1]["tasks"]
                return export_hf(run / "hf", model, load_shards_tokenizer(shards), record, last, trainer.position.seen)

            folder = group.run_on_first(export)
            done = record.updated(status="done", finished=datetime.now(UTC).isoformat(timespec="seconds"))
            page = group.run_on_first(lambda: write_report(run, record=done))
            trainer.records.describe(done)  # last, so that a finished run has its results
        except BaseException:
            with suppress(StorageError):  # on a full disk the first error is the one to tell
                trainer.records.describe(record.updated(status="stopped"))
            raise
    loads = "" if unsupported_by_hf(model.settings) else " (transformers loads it as ErnieModel or ErnieForMaskedLM)"
    log_info(f"Model:  {folder}{loads}")
    log_info(f"Report: {page}")


def _log_settings(trainer: Trainer, record: RunRecord) -> None:
    flash = record.environment["flash_attention"]
    log_info(f"Device: {record.device}, {record.precision}" + (f", {flash}" if flash else ""))
    warn_about_settings(trainer.settings, trainer.model.settings, trainer.group)
    warn_no_heldout(trainer.heldout.missing)


def warn_about_settings(settings: TrainSettings, encoder: EncoderSettings, group: ProcessGroup) -> None:
    """Say which settings do nothing, or less than they say, on this machine, and which Hugging Face cannot load."""
    if settings.precision == "fp16" and group.device.type == "cpu":
        auto = "auto takes bf16 where the CPU computes in it"
        log_warning(f"Note: train.precision=fp16 makes a CPU slower, not faster; {auto}.")
    if settings.parallel != "auto" and group.size == 1:
        log_warning(f"Note: train.parallel={settings.parallel} has no effect on one rank; torchrun starts more.")
    if lacking := unsupported_by_hf(encoder):
        log_warning(
            f"Note: Hugging Face's ErnieModel has no {', '.join(lacking)}: only ernie2 will read this run's model."
        )
