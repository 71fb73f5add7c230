"""Start a run, or resume it, and train it to its end: from shards to the Hugging Face folder and the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ernie2.batches.epochs import check_epochs, expected_epochs
from ernie2.config.settings import Recipe
from ernie2.console import log_info, log_warning
from ernie2.errors import ShardError
from ernie2.formatting import quantity
from ernie2.model.multitask import MultiTaskModel
from ernie2.reporting.report import write_report
from ernie2.runs.build import build, head_specs
from ernie2.runs.folder import is_restart, locked_run_dir, run_lifecycle, should_resume
from ernie2.runs.load import check_warm_start, warm_start
from ernie2.runs.prepare import RecipeSource, prepare_shards, vocabulary_for, warn_about_corpora
from ernie2.runs.recipes import load_recipe
from ernie2.runs.sources import recipe_of, shards_of_run, stages_of, unfinished_note
from ernie2.shards.store import Shards
from ernie2.storage.locks import FolderLock
from ernie2.tasks.building import build_tasks
from ernie2.training.checkpoints import newest
from ernie2.training.distributed import ProcessGroup, open_process_group
from ernie2.training.environment import check_rules
from ernie2.training.hooks.base import Hook
from ernie2.training.hooks.mirror import fetch
from ernie2.training.hooks.named import HookSource, create_hooks
from ernie2.training.run_record import RunRecord, read_run


def pretrain(
    recipe: RecipeSource,
    overrides: Sequence[str] = (),
    init_from: str | Path | None = None,
    workers: int | None = None,
    grow: Sequence[str] = (),
    hooks: Sequence[HookSource] = (),
) -> Path:
    """Prepares shards where there are none yet, trains through all stages, and leaves the run folder it returns.

    `init_from` takes parameters from a checkpoint: a run, a Hugging Face folder, a Paddle model (a warm start: new
    schedule, new optimiser). `grow` names tables that may get rows the checkpoint does not have, untrained at first:
    segment_types, position_rows, vocabulary. `hooks`: classes of `ernie2.training.hooks.base.Hook`, or names of hooks,
    that take part in this training beside those of every run.
    Raises `ConfigError` where some task would walk a corpus more often than `stages.max_epochs`.

    Started by torchrun on many ranks, they train one run together; started anew by it after a rank died, they go on.
    """
    with open_process_group() as group:
        with group.shared_errors():
            checked, own = load_recipe(recipe, overrides), create_hooks(hooks, first=group.is_first)
        run = Path(checked.run)
        if group.run_on_first(lambda: should_resume(run, group)):
            return resume_run(run, group, own)
        with group.shared_errors():
            if group.is_first:
                check_warm_start(init_from, checked, grow)  # preparing the corpora may take hours
        shards = _prepare_on_all_ranks(checked, workers, group)
        with group.shared_errors():
            model = build_initial_model(init_from if group.is_first else None, checked, shards, grow)
        made = build(checked, shards, model, group=group, hooks=own)
        check_epochs(expected_epochs(made.trainer.streams, made.trainer.plans), checked.stages.max_epochs)
        record = made.record.updated(initialised_from=None if init_from is None else str(init_from))
        with locked_run_dir(run, group):
            with group.shared_errors():
                if group.is_first:
                    is_restart(run, group)  # another process may have, while this one prepared
                made.trainer.records.cut()  # what a run wrote that was stopped before its first checkpoint
                made.trainer.records.describe(record)
            warn_about_corpora(made.usable, made.trainer.streams.feeds)
            with run_lifecycle(run, shards, made.trainer, record):
                made.trainer.train()
            return run


def resume(run: str | Path, mirror: str | None = None, hooks: Sequence[HookSource] = ()) -> Path:
    """Goes on with a run from its newest whole checkpoint as if it had never stopped; returns the run folder.

    On any number of ranks, whatever number the run had before. `mirror`: the URL its checkpoints were copied to
    (`train.mirror`), from which the folder is made where there is none. `hooks` as in `pretrain`: a run does not keep
    them, so give them again.
    """
    with open_process_group() as group:
        with group.shared_errors():
            own = create_hooks(hooks, first=group.is_first)
        with group.shared_errors():
            if mirror is not None and group.is_first:
                with FolderLock(Path(run), alternative="name another folder to resume in"):
                    fetch(mirror, Path(run))
        return resume_run(Path(run), group, own)


def _prepare_on_all_ranks(recipe: Recipe, workers: int | None, group: ProcessGroup) -> Shards:
    """The shards of a recipe, made by rank 0, on a machine that does not see them by its first rank, or found."""
    found: list[Shards] = []
    for turn in (group.is_first, group.local_rank == 0 and not group.is_first, group.local_rank > 0):
        with group.shared_errors():
            if turn:
                found.append(prepare_shards(recipe, workers))
    (shards,) = found
    with group.shared_errors():
        if len(set(group.all_gather(shards.fingerprint))) > 1:
            raise ShardError(
                f"{shards.folder} holds other shards on some machines than on others. Copy those of one to all, or let "
                "shards.folder be one that all machines see."
            )
    return shards


def build_initial_model(
    init_from: str | Path | None, recipe: Recipe, shards: Shards, grow: Sequence[str]
) -> MultiTaskModel | None:
    """The model of a recipe with the parameters of a checkpoint, with a word on each tensor; None without one."""
    if init_from is None:
        return None
    source = Path(init_from)
    tasks = build_tasks(recipe.tasks, vocabulary_for(shards), shards.corpora)
    labels = {task.name: task.labels or () for task in tasks if task.labels_from_data}
    started = warm_start(source, recipe.encoder, head_specs(tasks), recipe.seed, shards, labels, grow)
    log_info(f"Parameters from {source} ({started.stored.layout})")
    if (note := unfinished_note(source, started.stored.where)) is not None:
        log_warning(note)
    started.report.log()
    return started.model


def resume_run(run: Path, group: ProcessGroup, hooks: Sequence[Hook] = ()) -> Path:
    """`resume` on the ranks there are, with the caller's `hooks` of this rank."""
    group.run_on_first(lambda: check_rules(read_run(run).rules, run))  # before anything is written into the folder
    with locked_run_dir(run, group):
        before = group.run_on_first(lambda: read_run(run))
        hf, page = run / "hf", run / "report.html"
        if before.status == "done" and hf.is_dir():
            if not page.exists():
                group.run_on_first(lambda: write_report(run))
                log_warning(f"{run} is finished, but has no {page}: it was written from the records.")
            else:
                log_info(f"{run} is finished; nothing to resume. Results: {hf} and {page}")
            return run
        if before.status == "done":
            log_warning(f"{run} is finished, but has no {hf}: it is written from the last checkpoint.")
        checkpoint = group.run_on_first(lambda: newest(run))
        carried = before.extended_from.stages if before.extended_from else 0
        with group.shared_errors():
            shards = shards_of_run(run, before)
        stages = stages_of(before)
        made = build(recipe_of(before, run), shards, stages=stages, carried=carried, group=group, hooks=hooks)
        made.trainer.restore(checkpoint)
        _warn_changed_arithmetic(before, made.record)
        record = made.record.updated(
            **{key: getattr(before, key) for key in _PRESERVED_KEYS if key in before.model_fields_set}
        )
        made.trainer.records.describe(record)
        log_info(
            f"Resuming {run} from {checkpoint.folder.name}" + (f" on {group.size} ranks" if group.size > 1 else "")
        )
        with run_lifecycle(run, shards, made.trainer, record):
            made.trainer.train()
        return run


_PRESERVED_KEYS = ("run_id", "created", "initialised_from", "initial_parameters", "extended_from", "git", "stages")
"""Keys of run.json that a run keeps when it is resumed."""


def _warn_changed_arithmetic(before: RunRecord, now: RunRecord) -> None:
    """Say where sums are taken in another order, or by another FlashAttention, than before the run was stopped."""
    agree = "results agree within rounding, not in every bit."
    old, new = before.environment.get("threads"), now.environment["threads"]
    if old not in (None, new) and "cpu" in now.device:
        log_warning(
            f"Note: this run used {quantity(old, 'thread')}, now {new}; {agree} OMP_NUM_THREADS={old} makes them equal."
        )
    old, new = (record.environment.get("flash_attention") for record in (before, now))
    if old != new:
        log_warning(f"Note: this run used {old or 'FA2'}, now {new or 'FA2'} (FlashAttention); {agree}")
