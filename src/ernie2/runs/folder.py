"""The run folder: locking, checks for an existing run, and the files written when training ends."""

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
from ernie2.training.checkpoints import is_started
from ernie2.training.distributed import ProcessGroup
from ernie2.training.full_state import unsharded
from ernie2.training.run_record import RunRecord, read_run
from ernie2.training.trainer import Trainer


@contextmanager
def locked_run_dir(run: Path, group: ProcessGroup) -> Iterator[None]:
    """Create the run folder and lock it, on the first rank only.

    Raises `FolderInUse` if another process has locked it, `StorageError` if it cannot be created.
    """
    with ExitStack() as held:
        with group.shared_errors():
            if group.is_first:
                held.enter_context(FolderLock(run, alternative="run=FOLDER starts another run"))
                remove_leftovers(run / "checkpoints")
        yield


def should_resume(run: Path, group: ProcessGroup) -> bool:
    """Call `check_run_folder` before locking the folder. Raises `FolderInUse` if another process has locked it."""
    # after a restart the old processes may still be ending
    if not group.restarts and (owner := lock_owner(run)) is not None:
        raise FolderInUse(f"{run} {lock_advice(owner)}")
    return check_run_folder(run, group)


def lock_advice(owner: str) -> str:
    """Return the rest of a message that starts with a folder locked by `owner`, with advice."""
    return f"is in use by {owner}. Wait for it or stop it; run=FOLDER starts another run."


def check_run_folder(run: Path, group: ProcessGroup) -> bool:
    """Return whether torchrun has restarted the job that created `run`. Raises `CheckpointError` for any other run."""
    if not is_started(run):
        return False
    if group.restarts or (group.job is not None and read_run(run).job == group.job):
        return True
    raise CheckpointError(f"{run} contains {existing_run_advice(run)}")


def existing_run_advice(run: Path) -> str:
    """Return the rest of a message that starts with the folder of an existing run, with advice."""
    if read_run(run).status == "done":
        return (
            f"a finished run. Add a task to it with `ernie2 extend {run} --task TASK --data SHARDS`, or start another "
            "run with run=FOLDER."
        )
    return f"an unfinished run. Continue it with `ernie2 resume {run}`, or start another run with run=FOLDER."


@contextmanager
def run_lifecycle(run: Path, shards: Shards, trainer: Trainer, record: RunRecord) -> Iterator[None]:
    """Lock the shards while the run is trained in this context; then write model, report and record on the first rank.

    On any exception, run.json gets the status "stopped". Raises `ShardError` if the shards were replaced after they
    were opened.
    """
    group = trainer.group
    with ExitStack() as held:
        with group.shared_errors():
            if group.local_rank == 0:  # once per machine
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
            trainer.records.describe(done)  # last, so that a run marked "done" has its results
        except BaseException:
            with suppress(StorageError):  # on a full disk, report the first error
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
    """Warn about settings with little or no effect on this machine, and about those Hugging Face does not support."""
    if settings.precision == "fp16" and group.device.type == "cpu":
        auto = "auto uses bf16 if the CPU supports it"
        log_warning(f"Note: train.precision=fp16 is slower on a CPU; {auto}.")
    if settings.parallel != "auto" and group.size == 1:
        log_warning(f"Note: train.parallel={settings.parallel} has no effect on one rank; torchrun starts more.")
    if lacking := unsupported_by_hf(encoder):
        log_warning(
            f"Note: Hugging Face's ErnieModel does not support {', '.join(lacking)}: only ernie2 can load this model."
        )
