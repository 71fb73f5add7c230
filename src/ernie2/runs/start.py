"""Start or resume a run and train it to its end."""

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
from ernie2.runs.folder import check_run_folder, locked_run_dir, run_lifecycle, should_resume
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
from ernie2.training.hooks.loading import HookSource, create_hooks
from ernie2.training.hooks.mirror import fetch
from ernie2.training.run_record import RunRecord, read_run


def pretrain(
    recipe: RecipeSource,
    overrides: Sequence[str] = (),
    init_from: str | Path | None = None,
    workers: int | None = None,
    grow: Sequence[str] = (),
    hooks: Sequence[HookSource] = (),
) -> Path:
    """Prepare shards if there are none, train all stages, and return the run folder.

    `init_from`: initialise from a checkpoint (a run, a Hugging Face folder, a Paddle model) with a new schedule and
    optimizer. `grow`: tables of that checkpoint that may get new, untrained rows: segment_types, position_rows,
    vocabulary. `hooks`: subclasses of `ernie2.training.hooks.base.Hook` or names of installed hooks, in addition to the
    default hooks. Raises `ConfigError` if a task would read a corpus more than `stages.max_epochs` times.

    Under torchrun, all ranks train one run; when torchrun restarts them after a failure, they resume it.
    """
    with open_process_group() as group:
        with group.shared_errors():
            checked, user_hooks = load_recipe(recipe, overrides), create_hooks(hooks, first=group.is_first)
        run = Path(checked.run)
        if group.run_on_first(lambda: should_resume(run, group)):
            return resume_run(run, group, user_hooks)
        with group.shared_errors():
            if group.is_first:
                check_warm_start(init_from, checked, grow)  # before preparing the corpora, which may take hours
        shards = _prepare_on_all_ranks(checked, workers, group)
        with group.shared_errors():
            model = build_initial_model(init_from if group.is_first else None, checked, shards, grow)
        setup = build(checked, shards, model, group=group, hooks=user_hooks)
        check_epochs(expected_epochs(setup.trainer.streams, setup.trainer.plans), checked.stages.max_epochs)
        record = setup.record.updated(initialised_from=None if init_from is None else str(init_from))
        with locked_run_dir(run, group):
            with group.shared_errors():
                if group.is_first:
                    check_run_folder(run, group)  # again: another process may have started a run here
                setup.trainer.records.cut()  # remove records of a run that stopped before its first checkpoint
                setup.trainer.records.describe(record)
            warn_about_corpora(setup.usable, setup.trainer.streams.feeds)
            with run_lifecycle(run, shards, setup.trainer, record):
                setup.trainer.train()
            return run


def resume(run: str | Path, mirror: str | None = None, hooks: Sequence[HookSource] = ()) -> Path:
    """Resume a run from its newest intact checkpoint, with the same result as without the stop; return the run folder.

    The number of ranks can differ from before. `mirror`: the URL of the copied checkpoints (`train.mirror`), from which
    a missing run folder is restored. `hooks`: as in `pretrain`; pass them again, since a run does not store them.
    """
    with open_process_group() as group:
        with group.shared_errors():
            user_hooks = create_hooks(hooks, first=group.is_first)
        with group.shared_errors():
            if mirror is not None and group.is_first:
                with FolderLock(Path(run), alternative="name another folder to resume in"):
                    fetch(mirror, Path(run))
        return resume_run(Path(run), group, user_hooks)


def _prepare_on_all_ranks(recipe: Recipe, workers: int | None, group: ProcessGroup) -> Shards:
    """Prepare the shards on rank 0, then once on each machine that does not see them; other ranks open them."""
    prepared: list[Shards] = []
    for turn in (group.is_first, group.local_rank == 0 and not group.is_first, group.local_rank > 0):
        with group.shared_errors():
            if turn:
                prepared.append(prepare_shards(recipe, workers))
    (shards,) = prepared
    with group.shared_errors():
        if len(set(group.all_gather(shards.fingerprint))) > 1:
            raise ShardError(
                f"{shards.folder} differs between machines. Copy the shards of one machine to all, or set "
                "shards.folder to a shared folder."
            )
    return shards


def build_initial_model(
    init_from: str | Path | None, recipe: Recipe, shards: Shards, grow: Sequence[str]
) -> MultiTaskModel | None:
    """Return the recipe's model with the parameters of a checkpoint, and log them; None without `init_from`."""
    if init_from is None:
        return None
    source = Path(init_from)
    tasks = build_tasks(recipe.tasks, vocabulary_for(shards), shards.corpora)
    labels = {task.name: task.labels or () for task in tasks if task.labels_from_data}
    loaded = warm_start(source, recipe.encoder, head_specs(tasks), recipe.seed, shards, labels, grow)
    log_info(f"Parameters from {source} ({loaded.stored.layout})")
    if (note := unfinished_note(source, loaded.stored.where)) is not None:
        log_warning(note)
    loaded.report.log()
    return loaded.model


def resume_run(run: Path, group: ProcessGroup, hooks: Sequence[Hook] = ()) -> Path:
    """Resume a run in an existing process group; `hooks`: the user's hooks on this rank."""
    group.run_on_first(lambda: check_rules(read_run(run).rules, run))  # before writing to the folder
    with locked_run_dir(run, group):
        before = group.run_on_first(lambda: read_run(run))
        hf, page = run / "hf", run / "report.html"
        if before.status == "done" and hf.is_dir():
            if not page.exists():
                group.run_on_first(lambda: write_report(run))
                log_warning(f"{run} is finished, but {page} was missing; it was written from the records.")
            else:
                log_info(f"{run} is finished; nothing to resume. Results: {hf} and {page}")
            return run
        if before.status == "done":
            log_warning(f"{run} is finished, but {hf} is missing; writing it from the last checkpoint.")
        checkpoint = group.run_on_first(lambda: newest(run))
        inherited = before.extended_from.stages if before.extended_from else 0
        with group.shared_errors():
            shards = shards_of_run(run, before)
        stages, recipe = stages_of(before), recipe_of(before, run)
        setup = build(recipe, shards, stages=stages, inherited_stages=inherited, group=group, hooks=hooks)
        setup.trainer.restore(checkpoint)
        _warn_changed_arithmetic(before, setup.record)
        preserved = {key: getattr(before, key) for key in _PRESERVED_KEYS if key in before.model_fields_set}
        record = setup.record.updated(**preserved)
        setup.trainer.records.describe(record)
        on_ranks = f" on {group.size} ranks" if group.size > 1 else ""
        log_info(f"Resuming {run} from {checkpoint.folder.name}{on_ranks}")
        with run_lifecycle(run, shards, setup.trainer, record):
            setup.trainer.train()
        return run


_PRESERVED_KEYS = ("run_id", "created", "initialised_from", "initial_parameters", "extended_from", "git", "stages")
"""Keys of run.json that resuming does not change."""


def _warn_changed_arithmetic(before: RunRecord, now: RunRecord) -> None:
    """Warn if the number of threads or the FlashAttention version differs from before the stop."""
    agree = "results agree up to rounding, not bit for bit."
    old, new = before.environment.get("threads"), now.environment["threads"]
    if old not in (None, new) and "cpu" in now.device:
        log_warning(
            f"Note: this run used {quantity(old, 'thread')}, now {new}; {agree} "
            f"Set OMP_NUM_THREADS={old} to keep them equal."
        )
    old, new = (record.environment.get("flash_attention") for record in (before, now))
    if old != new:
        log_warning(f"Note: this run used {old or 'FA2'}, now {new or 'FA2'} (FlashAttention); {agree}")
