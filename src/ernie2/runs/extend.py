"""A finished run learns one more task: parameters, optimizer state, position and records go over into a new run.

The finished run stays as it is. The new one starts from its last parameters bit for bit, keeps the optimizer's state,
gives what is new an empty state, begins the learning rate's schedule anew, and goes on counting stages and steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ernie2.batches.epochs import check_epochs, expected_epochs
from ernie2.batches.feeds import build_feeds
from ernie2.batches.stages import Stage
from ernie2.batches.stages import extend as extend_stages
from ernie2.config.overrides import check_list
from ernie2.config.settings import Recipe
from ernie2.console import log_info
from ernie2.errors import CheckpointError, ConfigError, FolderInUse, did_you_mean
from ernie2.formatting import quantity
from ernie2.model.tensor_names import TASK_TABLE
from ernie2.runs.build import build
from ernie2.runs.folder import is_restart, locked_run_dir, run_lifecycle, should_resume
from ernie2.runs.prepare import vocabulary_for, warn_about_corpora
from ernie2.runs.recipes import load_recipe
from ernie2.runs.sources import recipe_of, shards_of_run, stages_of
from ernie2.runs.start import resume_run
from ernie2.shards.store import ShardedCorpus, Shards
from ernie2.storage.locks import lock_owner
from ernie2.tasks.base import find_task
from ernie2.tasks.building import build_tasks, task_options
from ernie2.training.checkpoints import Checkpoint, newest
from ernie2.training.distributed import open_process_group
from ernie2.training.environment import check_rules
from ernie2.training.full_state import FullState, gather, scatter
from ernie2.training.hooks.named import HookSource, create_hooks
from ernie2.training.optimizers import parameter_state
from ernie2.training.records import Records
from ernie2.training.run_record import ExtensionRecord, RunRecord, read_run
from ernie2.training.state import Position
from ernie2.training.trainer import Trainer

_SETTABLE = ("run", "name", "about", "stages.steps", "stages.patience", "stages.min_gain", "stages.max_epochs")
"""Keys an extension may set, besides train.*, encoder.task_ids and the new task's options."""
_NOT_SETTABLE = {
    "batch": "where the earlier tasks stand in their corpora is counted in packs of these sizes",
    "encoder": "the parameters are those of the finished run; only encoder.task_ids may grow",
    "seed": "it decides in which order the earlier tasks go on through their corpora",
    "corpora": "the new task reads the shards of --data; name some of their corpora under tasks.NAME.corpora",
    "tokenizer": "the shards are made already; `ernie2 prepare` is where this belongs",
    "knowledge": "the shards are made already; `ernie2 prepare` is where this belongs",
    "shards": "the shards are made already; --data names those of the new task",
    "tasks": "earlier tasks keep their options; those of the new task are tasks.NAME.*",
    "stages": "the stages so far are done; stages.steps is the new task's iterations, --replay those of the others",
}


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
    with open_process_group() as group:
        with group.shared_errors():
            own = create_hooks(hooks, first=group.is_first)
        finished = group.run_on_first(lambda: open_finished_run(run))
        done = len(finished.stages)
        extend_stages(finished.stages, task, 1, replay)  # refuses a known task before anything is counted
        ours, theirs = finished.shards, Shards(data)
        shards = Shards(*ours.folders, data)
        stages = new_stages(finished.stages, task, overrides, replay)
        recipe = extended_recipe(finished.recipe, ours, theirs, task, stages, extended_run_dir(run, task), overrides)
        target = Path(recipe.run)
        with group.shared_errors():
            if target.resolve() == run.resolve():
                raise ConfigError(
                    f"run={target} is the finished run itself, which stays as it is; name another folder."
                )
        if group.run_on_first(lambda: should_resume(target, group)):
            return resume_run(target, group, own)
        made = build(recipe, shards, stages=stages, carried=done, group=group, hooks=own)
        trainer, records = made.trainer, made.trainer.records
        check_epochs(expected_epochs(trainer.streams, trainer.plans[done:]), recipe.stages.max_epochs)
        new = transfer_state(finished, trainer, task)
        with locked_run_dir(target, group):
            with group.shared_errors():
                if group.is_first:
                    is_restart(target, group)  # another process may have, meanwhile
                    records.cut()  # what a run wrote that was stopped before its first checkpoint
                    for line in Records(run).read():
                        if line["kind"] != "score":  # measured on the finished run's encoder
                            records.write(**line)
            extension = ExtensionRecord(
                run=str(run.resolve()),
                step=finished.position.step,
                stages=done,
                task=task,
                data=str(data.resolve()),
                replay=replay,
            )
            record = made.record.updated(
                stages=finished.record.stages + made.record.stages[done:],
                initialised_from=finished.record.initialised_from,
                extended_from=extension,
            )
            records.describe(record)
            log_info(
                f"Extending {run}, {quantity(finished.position.step, 'step')}, into {target}; "
                f"newly initialised: {', '.join(new)}"
            )
            for name, count in stages[-1].iterations:
                said = "the new task" if name == task else "replay"
                corpora = ", ".join(recipe.tasks[name]["corpora"])
                log_info(f"  {name:<26} {quantity(count, 'iteration')}, {said}, from {corpora}")
            warn_about_corpora(made.usable, {task: trainer.streams.feeds[task]})
            with run_lifecycle(target, shards, trainer, record):
                trainer.train()
            return target


def extended_run_dir(run: Path, task: str) -> Path:
    """Where the extended run goes unless told otherwise: RUN+TASK, beside RUN."""
    return run.with_name(f"{run.resolve().name}+{task}")


@dataclass(frozen=True)
class FinishedRun:
    """A run that is done: what it is, what it read, and its last checkpoint."""

    run: Path
    record: RunRecord
    recipe: Recipe
    shards: Shards
    stages: list[Stage]
    checkpoint: Checkpoint
    position: Position


def open_finished_run(run: Path) -> FinishedRun:
    """Opens a finished run to be extended.

    Raises `FolderInUse` where it is being trained, `CheckpointError` where it is not a run, not finished, began under
    other rules, or its last checkpoint is damaged; `ShardError` where its shards are gone or were made anew.
    """
    record = read_run(run)
    check_rules(record.rules, run)
    if record.status != "done":
        if (owner := lock_owner(run)) is not None:
            raise FolderInUse(f"{run} is in use by {owner}. Wait until its training is finished, then extend it.")
        raise CheckpointError(f"{run} is not finished (it is {record.status}): `ernie2 resume {run}` finishes it.")
    stages, checkpoint = stages_of(record), newest(run)
    position = Position.of(checkpoint.state["position"])
    if position.stage != len(stages):
        raise CheckpointError(
            f"{run}: its last whole checkpoint, {checkpoint.folder.name}, is not that of its end, so it cannot be "
            f"extended. `ernie2 pretrain RECIPE --init-from {run / 'hf'}` starts a new run from its parameters."
        )
    return FinishedRun(run, record, recipe_of(record, run), shards_of_run(run, record), stages, checkpoint, position)


def transfer_state(finished: FinishedRun, trainer: Trainer, task: str) -> tuple[str, ...]:
    """Puts everything the finished run knows into the trainer of the run that extends it; returns the new parameters.

    The new task's row of the task table copies row 0, as does every row by which the table grows; a table added to a
    model without one is zero. What is new keeps the start that (seed, name) gives it, with empty state. Of many ranks
    the first reads the finished run; the others get all of it from there, and return nothing.
    """
    ours = gather(trainer.model, trainer.optimizer, trainer.group)
    new: tuple[str, ...] = ()
    with trainer.group.shared_errors():
        if ours is not None:
            new = _copy_state(finished, ours, trainer.streams.ids[task])
    scatter(trainer.model, trainer.optimizer, ours, trainer.group)
    position = finished.position
    trainer.begin_at(replace(position, schedule_start=position.step, task_steps={}))
    return new


def _copy_state(finished: FinishedRun, ours: FullState, row: int) -> tuple[str, ...]:
    """Changes `ours` to what the finished run knows; returns what it does not."""
    theirs, state = finished.checkpoint.parameters(), finished.checkpoint.optimizer_state()
    if lost := sorted(theirs.keys() - ours.parameters.keys()):
        raise CheckpointError(f"{finished.checkpoint.folder} holds {', '.join(lost[:5])}, which has no place here.")
    for name, parameter in ours.parameters.items():
        values = theirs.get(name)
        if values is None:
            if name == TASK_TABLE:
                parameter.zero_()
        elif name == TASK_TABLE:
            parameter[: len(values)].copy_(values)
            parameter[len(values) :].copy_(values[0].expand_as(parameter[len(values) :]))
            parameter[row].copy_(values[0])
        elif parameter.shape != values.shape:
            raise CheckpointError(
                f"{name} has shape {tuple(values.shape)} in the finished run and {tuple(parameter.shape)} here: the "
                "data would give an earlier task other classes. Leave its options as they were."
            )
        else:
            parameter.copy_(values)
    for key, values in state.items():
        held = ours.optimizer[key]
        if held.ndim == 0:  # a count of steps
            held.copy_(values)
            continue
        held[: len(values)].copy_(values)
        if key.partition("/")[2] == TASK_TABLE and row:
            held[row].zero_()
    return tuple(sorted(ours.parameters.keys() - theirs.keys()))


def check_overrides(task: str, overrides: Sequence[str]) -> None:
    """Raises `ConfigError` naming every override that a finished run cannot take any more, each with its reason."""
    check_list(overrides, "overrides")
    problems = []
    for override in overrides:
        key = override.partition("=")[0]
        if key in (*_SETTABLE, "encoder.task_ids") or key.startswith(("train.", f"tasks.{task}.")):
            continue
        first = key.partition(".")[0]
        reason = _NOT_SETTABLE.get(
            first, f"there is no such key.{did_you_mean(first, (*_NOT_SETTABLE, 'train', 'run', 'name', 'about'))}"
        )
        problems.append(f"  - {key}: {reason.replace('NAME', task)}")
    if problems:
        raise ConfigError("an extension cannot set this:\n" + "\n".join(problems))


def new_stages(stages: Sequence[Stage], task: str, overrides: Sequence[str], replay: int | None) -> list[Stage]:
    """The stages of the finished run and the new one; stages.steps among the overrides is the new task's iterations.

    By default it gets as many as the task that entered last got in all.
    """
    given = [override.partition("=")[2] for override in overrides if override.startswith("stages.steps=")]
    if not given:
        last = stages[-1].introduced[0] if stages[-1].introduced else stages[-1].tasks[-1]
        return extend_stages(stages, task, sum(stage.of(last) for stage in stages), replay)
    try:
        steps = int(given[-1])
    except ValueError:
        raise ConfigError(f"stages.steps={given[-1]}: an extension takes one number, the new task's steps.") from None
    return extend_stages(stages, task, steps, replay)


def extended_recipe(
    recipe: Recipe,
    ours: Shards,
    theirs: Shards,
    task: str,
    stages: Sequence[Stage],
    run: Path,
    overrides: Sequence[str] = (),
) -> Recipe:
    """`recipe` with `task` added, which reads corpora of `theirs`; its earlier tasks go on reading those of `ours`.

    `run` is the folder unless an override names one; `stages` already hold the new one. Raises `ConfigError` for wrong
    options, `TaskError` where the new task has nothing to read in `theirs`.
    """
    find_task(task)  # raises for a task there is none of
    values = recipe.model_dump(mode="json")
    values |= {"run": str(run), "name": f"{recipe.name}-{task}"}
    earlier = _resolve_options(recipe.tasks, ours, recipe.batch.sequence_tokens)
    values["tasks"] = {**earlier, task: {}}
    values["stages"]["steps"] = {name: sum(stage.of(name) for stage in stages) for name in values["tasks"]}
    if recipe.stages.order is not None:
        values["stages"]["order"] = [*values["stages"]["order"], task]
    weighed = all(corpus.weight is not None for corpus in recipe.corpora.values())
    for name, corpus in theirs.corpora.items():
        if name not in values["corpora"]:
            values["corpora"][name] = _corpus_values(theirs, name, corpus, weighed)
    kept = [override for override in overrides if not override.startswith("stages.steps=")]
    checked = load_recipe(values, kept)
    _check_extendable(recipe, checked)
    added = _resolve_options({task: checked.tasks[task]}, theirs, checked.batch.sequence_tokens)
    return load_recipe({**checked.model_dump(mode="json"), "tasks": {**earlier, **added}})


def _resolve_options(
    options: Mapping[str, Mapping[str, Any] | None], shards: Shards, sequence_tokens: int
) -> dict[str, dict[str, Any]]:
    """By task, its options with every default filled in and the corpora it reads in `shards` named, in order."""
    tasks = build_tasks(options, vocabulary_for(shards), shards.corpora)
    written, (feed, _) = task_options(tasks), build_feeds(shards, tasks, sequence_tokens=sequence_tokens)
    for name, fed in feed.items():
        written[name]["corpora"] = [corpus.name for corpus in fed.corpora]
    return written


def _corpus_values(shards: Shards, name: str, corpus: ShardedCorpus, weighed: bool) -> dict[str, Any]:
    weight = corpus.facts.get("weight") or (corpus.num_tokens("train") if weighed else None)
    return {
        "path": corpus.facts.get("sources") or [str(folder / name) for folder in shards.folders],
        "language": corpus.language,
        "licence": corpus.licence,
        "weight": weight if weighed else None,
        **({"pairs": {}} if corpus.labels else {}),
    }


def _check_extendable(before: Recipe, after: Recipe) -> None:
    """Refuses an optimizer that cannot take over the state there is, and a task table smaller than the one there is."""
    if parameter_state(after.train).keys() != parameter_state(before.train).keys():
        raise ConfigError(
            f"train.optimizer={after.train.optimizer} cannot go on with the state the finished run's "
            f"{before.train.optimizer} has: leave train.optimizer and train.momentum as they were. `ernie2 pretrain "
            f"RECIPE --init-from RUN/hf` starts a new run with another optimizer."
        )
    if after.encoder.task_ids < before.encoder.task_ids:
        raise ConfigError(
            f"encoder.task_ids={after.encoder.task_ids} is below the {before.encoder.task_ids} rows there are; the "
            "table may only grow."
        )
