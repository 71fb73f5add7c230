"""Extend a finished run with one more task: copy parameters, optimizer state, position and records to a new run.

The finished run is not changed. The new run starts from its last parameters bit for bit and keeps the optimizer's
state. New parameters start with empty state, the learning-rate schedule restarts, and step and stage numbers continue.
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
from ernie2.config.settings import Recipe, StageSettings
from ernie2.console import log_info
from ernie2.errors import CheckpointError, ConfigError, FolderInUse, did_you_mean
from ernie2.formatting import quantity
from ernie2.model.tensor_names import TASK_TABLE
from ernie2.runs.build import build
from ernie2.runs.folder import check_run_folder, locked_run_dir, run_lifecycle, should_resume
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
from ernie2.training.hooks.loading import HookSource, create_hooks
from ernie2.training.optimizers import parameter_state
from ernie2.training.records import Records
from ernie2.training.run_record import ExtensionRecord, RunRecord, read_run
from ernie2.training.state import Position
from ernie2.training.trainer import Trainer

_SETTABLE = ("run", "name", "about", "stages.steps", "stages.patience", "stages.min_gain", "stages.max_epochs")
"""Keys an extension may set, besides train.*, encoder.task_ids and the new task's options."""
_NOT_SETTABLE = {
    "batch": "the positions of the earlier tasks in their corpora are counted in packs of these sizes",
    "encoder": "the parameters are those of the finished run; only encoder.task_ids can grow",
    "seed": "it determines the order in which the earlier tasks read their corpora",
    "corpora": "the new task reads the shards of --data; select some of their corpora with tasks.NAME.corpora",
    "tokenizer": "the shards are already prepared; set it for `ernie2 prepare`",
    "knowledge": "the shards are already prepared; set it for `ernie2 prepare`",
    "shards": "the shards are already prepared; --data names those of the new task",
    "tasks": "options of earlier tasks are fixed; set those of the new task with tasks.NAME.*",
    "stages": "earlier stages are finished; stages.steps sets the new task's iterations, --replay those of the others",
}


def extend(
    run: str | Path,
    task: str,
    data: str | Path,
    overrides: Sequence[str] = (),
    replay: int | None = None,
    hooks: Sequence[HookSource] = (),
) -> Path:
    """Train a finished run on one more task, with replay of the earlier tasks; return the new run folder.

    `run` is not changed; the new folder is RUN+TASK, or FOLDER with the override `run=FOLDER`. `data`: shards for the
    new task, prepared with the run's tokeniser; the earlier tasks read those of the run. `replay`: iterations of each
    earlier task (default: its unit, see `batches.stages.extend`), 0 for none. Set the new task's iterations with the
    override `stages.steps=N`. `hooks`: as in `pretrain`.

    Raises `CheckpointError` if `run` is not finished or the new folder contains a run, `FolderInUse` if one of them is
    being trained, `ConfigError` for keys an extension cannot set, `ShardError` and `TaskError` if the data do not
    match.
    """
    run, data = Path(run), Path(data)
    check_overrides(task, overrides)
    with open_process_group() as group:
        with group.shared_errors():
            user_hooks = create_hooks(hooks, first=group.is_first)
        finished = group.run_on_first(lambda: open_finished_run(run))
        old_stages = len(finished.stages)
        extend_stages(finished.stages, task, 1, replay)  # raise early if the run has this task
        run_shards, new_shards = finished.shards, Shards(data)
        shards = Shards(*run_shards.folders, data)
        stages = new_stages(finished.stages, task, overrides, replay)
        new_run = extended_run_dir(run, task)
        recipe = extended_recipe(finished.recipe, run_shards, new_shards, task, stages, new_run, overrides)
        target = Path(recipe.run)
        with group.shared_errors():
            if target.resolve() == run.resolve():
                raise ConfigError(f"run={target} is the finished run, which must not change; name another folder.")
        if group.run_on_first(lambda: should_resume(target, group)):
            return resume_run(target, group, user_hooks)
        setup = build(recipe, shards, stages=stages, inherited_stages=old_stages, group=group, hooks=user_hooks)
        trainer, records = setup.trainer, setup.trainer.records
        check_epochs(expected_epochs(trainer.streams, trainer.plans[old_stages:]), recipe.stages.max_epochs)
        new = transfer_state(finished, trainer, task)
        with locked_run_dir(target, group):
            with group.shared_errors():
                if group.is_first:
                    check_run_folder(target, group)  # again: another process may have started a run here
                    records.cut()  # remove records of a run that stopped before its first checkpoint
                    for line in Records(run).read():
                        if line["kind"] != "score":  # measured on the finished run's encoder
                            records.write(**line)
            extension = ExtensionRecord(
                run=str(run.resolve()),
                step=finished.position.step,
                stages=old_stages,
                task=task,
                data=str(data.resolve()),
                replay=replay,
            )
            record = setup.record.updated(
                stages=finished.record.stages + setup.record.stages[old_stages:],
                initialised_from=finished.record.initialised_from,
                extended_from=extension,
            )
            records.describe(record)
            log_info(
                f"Extending {run} ({quantity(finished.position.step, 'step')}) to {target}; "
                f"newly initialised: {', '.join(new)}"
            )
            for name, count in stages[-1].iterations:
                role = "new task" if name == task else "replay"
                corpora = ", ".join(recipe.tasks[name]["corpora"])
                log_info(f"  {name:<26} {quantity(count, 'iteration')}, {role}, from {corpora}")
            warn_about_corpora(setup.usable, {task: trainer.streams.feeds[task]})
            with run_lifecycle(target, shards, trainer, record):
                trainer.train()
            return target


def extended_run_dir(run: Path, task: str) -> Path:
    """Return the default folder of the extended run, RUN+TASK."""
    return run.with_name(f"{run.resolve().name}+{task}")


@dataclass(frozen=True)
class FinishedRun:
    """A finished run: its record, recipe, shards and last checkpoint."""

    run: Path
    record: RunRecord
    recipe: Recipe
    shards: Shards
    stages: list[Stage]
    checkpoint: Checkpoint
    position: Position


def open_finished_run(run: Path) -> FinishedRun:
    """Open a finished run in order to extend it.

    Raises `FolderInUse` if it is being trained; `CheckpointError` if it is not a run, not finished, was trained with
    other rules, or its last checkpoint is damaged; `ShardError` if its shards are missing or were replaced.
    """
    record = read_run(run)
    check_rules(record.rules, run)
    if record.status != "done":
        if (owner := lock_owner(run)) is not None:
            raise FolderInUse(f"{run} is in use by {owner}. Wait until it is finished, then extend it.")
        raise CheckpointError(f"{run} is not finished (it is {record.status}). Finish it with `ernie2 resume {run}`.")
    stages, checkpoint = stages_of(record), newest(run)
    position = Position.of(checkpoint.state["position"])
    if position.stage != len(stages):
        raise CheckpointError(
            f"{run} cannot be extended: its last intact checkpoint, {checkpoint.folder.name}, is not the final one. "
            f"Start a new run from its parameters with `ernie2 pretrain RECIPE --init-from {run / 'hf'}`."
        )
    return FinishedRun(run, record, recipe_of(record, run), shards_of_run(run, record), stages, checkpoint, position)


def transfer_state(finished: FinishedRun, trainer: Trainer, task: str) -> tuple[str, ...]:
    """Copy parameters, optimizer state and position of the finished run to the trainer; return the new parameters.

    The new task's row of the task embedding copies row 0, as do all added rows; a table added to a model without one is
    zero. Other new parameters keep their initial values from (seed, name), with empty optimizer state. The first rank
    reads the finished run and sends its state to the others, which return ().
    """
    state = gather(trainer.model, trainer.optimizer, trainer.group)
    new: tuple[str, ...] = ()
    with trainer.group.shared_errors():
        if state is not None:
            new = _copy_state(finished, state, trainer.streams.ids[task])
    scatter(trainer.model, trainer.optimizer, state, trainer.group)
    position = finished.position
    trainer.start_at(replace(position, schedule_start=position.step, task_steps={}))
    return new


def _copy_state(finished: FinishedRun, target: FullState, row: int) -> tuple[str, ...]:
    """Copy the finished run's parameters and optimizer state to `target`; return the parameters it does not have.

    `row`: the new task's row of the task embedding; the finished run may have it, unused.
    """
    source, state = finished.checkpoint.parameters(), finished.checkpoint.optimizer_state()
    if unknown := sorted(source.keys() - target.parameters.keys()):
        raise CheckpointError(
            f"{finished.checkpoint.folder} has parameters unknown to this run: {', '.join(unknown[:5])}."
        )
    for name, parameter in target.parameters.items():
        values = source.get(name)
        if values is None:
            if name == TASK_TABLE:
                parameter.zero_()
        elif name == TASK_TABLE:
            parameter[: len(values)].copy_(values)
            parameter[len(values) :].copy_(values[0].expand_as(parameter[len(values) :]))
            parameter[row].copy_(values[0])
        elif parameter.shape != values.shape:
            raise CheckpointError(
                f"{name} has shape {tuple(values.shape)} in the finished run and {tuple(parameter.shape)} here, "
                "because an earlier task would get other classes from the data. Do not change its options."
            )
        else:
            parameter.copy_(values)
    for key, values in state.items():
        entry = target.optimizer[key]
        if entry.ndim == 0:  # a step count
            entry.copy_(values)
            continue
        entry[: len(values)].copy_(values)
        if key.partition("/")[2] == TASK_TABLE and row:
            entry[row].zero_()
    return tuple(sorted(target.parameters.keys() - source.keys()))


def check_overrides(task: str, overrides: Sequence[str]) -> None:
    """Raise `ConfigError` listing all keys that an extension cannot set, each with its reason."""
    check_list(overrides, "overrides")
    problems = []
    for override in overrides:
        key = override.partition("=")[0]
        if key in (*_SETTABLE, "encoder.task_ids") or key.startswith(("train.", f"tasks.{task}.")):
            continue
        first, _, last = key.partition(".")
        if first == "stages" and (new := StageSettings.RENAMED.get(last)):
            problems.append(f"  - {key}: this key is now stages.{new}")
            continue
        known = (*_NOT_SETTABLE, "train", "run", "name", "about")
        reason = _NOT_SETTABLE.get(first, f"there is no such key.{did_you_mean(first, known)}")
        problems.append(f"  - {key}: {reason.replace('NAME', task)}")
    if problems:
        raise ConfigError("an extension cannot set:\n" + "\n".join(problems))


def new_stages(stages: Sequence[Stage], task: str, overrides: Sequence[str], replay: int | None) -> list[Stage]:
    """Return the stages of the finished run and the new stage.

    The override stages.steps sets the new task's iterations; default: the total of the task introduced last.
    """
    given = [override.partition("=")[2] for override in overrides if override.startswith("stages.steps=")]
    if not given:
        last = stages[-1].introduced[0] if stages[-1].introduced else stages[-1].tasks[-1]
        return extend_stages(stages, task, sum(stage.iterations_of(last) for stage in stages), replay)
    try:
        steps = int(given[-1])
    except ValueError:
        raise ConfigError(f"stages.steps={given[-1]}: must be one number, the new task's iterations.") from None
    return extend_stages(stages, task, steps, replay)


def extended_recipe(
    recipe: Recipe,
    run_shards: Shards,
    new_shards: Shards,
    task: str,
    stages: Sequence[Stage],
    run: Path,
    overrides: Sequence[str] = (),
) -> Recipe:
    """Return `recipe` with `task` added. `task` reads corpora of `new_shards`, the earlier tasks those of `run_shards`.

    `stages`: all stages, including the new one. `run`: default run folder. Raises `ConfigError` for invalid options,
    `TaskError` if `new_shards` have nothing for the new task to read.
    """
    find_task(task)  # raises if there is no such task
    values = recipe.model_dump(mode="json")
    values |= {"run": str(run), "name": f"{recipe.name}-{task}"}
    earlier = _resolve_options(recipe.tasks, run_shards, recipe.batch.sequence_tokens)
    values["tasks"] = {**earlier, task: {}}
    values["stages"]["steps"] = {name: sum(stage.iterations_of(name) for stage in stages) for name in values["tasks"]}
    if recipe.stages.order is not None:
        values["stages"]["order"] = [*values["stages"]["order"], task]
    has_weights = all(corpus.weight is not None for corpus in recipe.corpora.values())
    for name, corpus in new_shards.corpora.items():
        if name not in values["corpora"]:
            values["corpora"][name] = _corpus_values(new_shards, name, corpus, has_weights)
    checked = load_recipe(values, [override for override in overrides if not override.startswith("stages.steps=")])
    _check_extendable(recipe, checked)
    added = _resolve_options({task: checked.tasks[task]}, new_shards, checked.batch.sequence_tokens)
    return load_recipe({**checked.model_dump(mode="json"), "tasks": {**earlier, **added}})


def _resolve_options(
    options: Mapping[str, Mapping[str, Any] | None], shards: Shards, sequence_tokens: int
) -> dict[str, dict[str, Any]]:
    """Return task → options, with all defaults and the names of the corpora the task reads from `shards`."""
    tasks = build_tasks(options, vocabulary_for(shards), shards.corpora)
    resolved, (feeds, _) = task_options(tasks), build_feeds(shards, tasks, sequence_tokens=sequence_tokens)
    for name, feed in feeds.items():
        resolved[name]["corpora"] = [corpus.name for corpus in feed.corpora]
    return resolved


def _corpus_values(shards: Shards, name: str, corpus: ShardedCorpus, has_weights: bool) -> dict[str, Any]:
    weight = corpus.facts.get("weight") or (corpus.num_tokens("train") if has_weights else None)
    return {
        "path": corpus.facts.get("sources") or [str(folder / name) for folder in shards.folders],
        "language": corpus.language,
        "licence": corpus.licence,
        "weight": weight if has_weights else None,
        **({"pairs": {}} if corpus.labels else {}),
    }


def _check_extendable(before: Recipe, after: Recipe) -> None:
    """Raise `ConfigError` if the optimizer cannot load the existing state, or if the task embedding would shrink."""
    if parameter_state(after.train).keys() != parameter_state(before.train).keys():
        raise ConfigError(
            f"train.optimizer={after.train.optimizer} cannot load the optimizer state of the finished run "
            f"({before.train.optimizer}). Do not change train.optimizer and train.momentum, or start a new run with "
            "another optimizer: `ernie2 pretrain RECIPE --init-from RUN/hf`."
        )
    if after.encoder.task_ids < before.encoder.task_ids:
        raise ConfigError(
            f"encoder.task_ids={after.encoder.task_ids} is below the existing {before.encoder.task_ids} rows; "
            "set it to that number or more."
        )
