"""Let a finished run learn a task that arrives later."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ernie2.batches.epochs import check_epochs, expected_epochs
from ernie2.batches.stages import extend as extend_stages
from ernie2.console import say
from ernie2.errors import ConfigError
from ernie2.runs.build import build
from ernie2.runs.extension import (
    carry_records,
    check_overrides,
    extended_recipe,
    extension_record,
    new_stages,
    open_finished,
    take_over,
)
from ernie2.runs.finish import run_in_training
from ernie2.runs.folder import begun_by, free_or_begun_by, locked_run_dir
from ernie2.runs.prepare import say_notes
from ernie2.runs.start import go_on
from ernie2.shards.store import Shards
from ernie2.training.distributed import World, open_world
from ernie2.training.hooks.base import Hook
from ernie2.training.hooks.named import HookSource, create_hooks


def extend(
    run: str | Path,
    task: str,
    data: str | Path,
    overrides: Sequence[str] = (),
    replay: int | None = None,
    hooks: Sequence[HookSource] = (),
) -> Path:
    """Trains a finished run further on one more task, beside a replay of the earlier ones; returns the new run folder.

    `run` stays as it is; the new folder is RUN+TASK, or what `run=FOLDER` among the overrides says. `data` are shards
    of the run's own tokeniser, in which the new task finds its corpora; the earlier tasks go on reading theirs.
    `replay`: iterations of each earlier task (default: those `batches.stages.extend` gives it), 0 for none. The new
    task's iterations are `stages.steps=N` among the overrides. `hooks` as in `pretrain`.

    Raises `CheckpointError` where `run` is not finished or the new folder holds a run, `FolderInUse` where one of them
    is being trained, `ConfigError` for overrides that a finished run cannot take, `ShardError` and `TaskError` where
    the data does not fit.
    """
    run, data = Path(run), Path(data)
    check_overrides(task, overrides)
    with open_world() as world:
        with world.together():
            own = create_hooks(hooks, first=world.first)
        return _extend(run, task, data, overrides, replay, world, own)


def _extend(
    run: Path,
    task: str,
    data: Path,
    overrides: Sequence[str],
    replay: int | None,
    world: World,
    hooks: Sequence[Hook],
) -> Path:
    finished = world.on_first(lambda: open_finished(run))
    extend_stages(finished.stages, task, 1, replay)  # refuses a known task before anything is counted
    ours, theirs = finished.shards, Shards(data)
    shards = Shards(*ours.folders, data)
    stages = new_stages(finished.stages, task, overrides, replay)
    recipe = extended_recipe(finished.recipe, ours, theirs, task, stages, folder_for(run, task), overrides)
    target = Path(recipe.run)
    if world.on_first(lambda: _taken(target, run, world)):
        return go_on(target, world, hooks)
    made = build(recipe, shards, stages=stages, carried=len(finished.stages), world=world, hooks=hooks)
    plans = made.trainer.plans[len(finished.stages) :]
    check_epochs(expected_epochs(made.trainer.stream, plans), recipe.stages.max_epochs)
    new = take_over(finished, made.trainer, task)
    with locked_run_dir(target, world):
        with world.together():
            if world.first:
                _taken(target, run, world, locked=True)  # by another process, meanwhile
                carry_records(finished, made.trainer.records)
        record = extension_record(finished, made.record, task, data, replay)
        made.trainer.records.describe(record)
        say(f"Extending {run}, {finished.position.step:,} steps, into {target}; newly initialised: {', '.join(new)}")
        for name, count in stages[-1].iterations:
            said = "the new task" if name == task else "replay"
            say(f"  {name:<26} {count:,} iterations, {said}, from {', '.join(recipe.tasks[name]['corpora'])}")
        say_notes(made.usable, {task: made.trainer.stream.feeds[task]})
        with run_in_training(target, shards, made.trainer, record):
            made.trainer.train()
        return target


def folder_for(run: Path, task: str) -> Path:
    """Where the extended run goes unless told otherwise: RUN+TASK, beside RUN."""
    return run.with_name(f"{run.resolve().name}+{task}")


def _taken(target: Path, run: Path, world: World, *, locked: bool = False) -> bool:
    """Whether this very job began `target` and now goes on with it; raises where it is otherwise taken.

    `locked`: this process holds its lock.
    """
    if target.resolve() == run.resolve():
        raise ConfigError(f"run={target} is the finished run itself, which stays as it is; name another folder.")
    return begun_by(target, world) if locked else free_or_begun_by(target, world)
