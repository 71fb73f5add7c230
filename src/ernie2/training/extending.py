"""A finished run learns one more task: parameters, moments, position and records go over into a new run.

The finished run stays as it is. The new one starts from its last parameters bit for bit, keeps Adam's moments, gives
what is new an empty state, begins the learning rate's schedule anew, and goes on counting stages and steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ernie2.batches.stages import Stage
from ernie2.config.settings import Recipe
from ernie2.errors import CheckpointError, FolderInUse, ShardError
from ernie2.model.hf_names import TASK_TABLE
from ernie2.shards.shard_folders import open_shards
from ernie2.shards.store import Shards
from ernie2.storage.locks import owner_of
from ernie2.tasks.recipe import load_recipe
from ernie2.training.checkpoints import Checkpoint, newest
from ernie2.training.full_state import FullState, gather, put
from ernie2.training.position import Position
from ernie2.training.records import Records, read_run
from ernie2.training.rules import check_rules
from ernie2.training.trainer import Trainer


@dataclass(frozen=True)
class Finished:
    """A run that is done: what it is, what it read, and its last checkpoint."""

    run: Path
    facts: dict[str, Any]
    recipe: Recipe
    shards: Shards
    stages: list[Stage]
    checkpoint: Checkpoint
    position: Position


def open_finished(run: Path) -> Finished:
    """Opens a finished run to be extended.

    Raises `FolderInUse` where it is being trained, `CheckpointError` where it is not a run, not finished, began under
    other rules, or its last checkpoint is damaged; `ShardError` where its shards are gone or were made anew.
    """
    facts = read_run(run)
    check_rules(facts, run)
    if facts["status"] != "done":
        if (owner := owner_of(run)) is not None:
            raise FolderInUse(f"{run} is in use by {owner}. Wait until its training is finished, then extend it.")
        raise CheckpointError(f"{run} is not finished (it is {facts['status']}): `ernie2 resume {run}` finishes it.")
    stages, checkpoint = stages_of(facts), newest(run)
    position = Position.of(checkpoint.state["position"])
    if position.stage != len(stages):
        raise CheckpointError(
            f"{run}: its last whole checkpoint, {checkpoint.folder.name}, is not that of its end, so it cannot be "
            f"extended. `ernie2 pretrain RECIPE --init-from {run / 'hf'}` starts a new run from its parameters."
        )
    return Finished(run, facts, recipe_of(facts, run), shards_of_run(run, facts), stages, checkpoint, position)


def recipe_of(facts: Mapping[str, Any], run: Path) -> Recipe:
    """The recipe in run.json, for `run` where it lies now, in the precision it began in on whatever machine."""
    train = {**facts["recipe"]["train"], "precision": facts["precision"]}
    return load_recipe({**facts["recipe"], "run": str(run), "train": train})


def stages_of(facts: Mapping[str, Any]) -> list[Stage]:
    """The stages in run.json as values."""
    return [Stage(tuple(stage["iterations"].items()), tuple(stage["introduced"])) for stage in facts["stages"]]


def shards_of_run(run: Path, facts: Mapping[str, Any]) -> Shards:
    """Return the shards a run was trained on, of one folder or several. Raises `ShardError` for others."""
    shards = open_shards(*facts["data"]["shards"])
    if shards.fingerprint != facts["data"]["fingerprint"]:
        raise ShardError(
            f"{shards.folder} holds other shards than those {run} was trained on: they were replaced. Prepare those "
            "again from the same corpora and recipe; or give shards to evaluate on with --data, or start a new run "
            "from this one with --init-from."
        )
    return shards


def take_over(finished: Finished, trainer: Trainer, task: str) -> tuple[str, ...]:
    """Puts everything the finished run knows into the trainer of the run that extends it; returns the new parameters.

    The new task's row of the task table copies row 0, as does every row by which the table grows; a table added to a
    model without one is zero. What is new keeps the start that (seed, name) gives it, with empty moments. Of many ranks
    the first reads the finished run; the others get all of it from there, and return nothing.
    """
    ours = gather(trainer.model, trainer.optimizer, trainer.world)
    new: tuple[str, ...] = ()
    with trainer.world.together():
        if ours is not None:
            new = _take_all(finished, ours, trainer.stream.ids[task])
    put(trainer.model, trainer.optimizer, ours, trainer.world)
    position = finished.position
    trainer.begin_at(replace(position, schedule_start=position.step, task_steps={}))
    return new


def carry_records(finished: Finished, records: Records) -> None:
    """Starts the records of the extending run with those of the finished one.

    Scores stay behind: they were measured on the finished run's encoder. Lines of a run stopped before its first
    checkpoint are forgotten.
    """
    records.cut()
    for line in Records(finished.run).read():
        if line["kind"] != "score":
            records.write(**line)


def extension_facts(
    finished: Finished, facts: Mapping[str, Any], task: str, data: Path, replay: int | None
) -> dict[str, Any]:
    """run.json of the run that extends: its own facts, the stages of the finished run as they were, and where it began.

    `replay` as the user gave it.
    """
    done = len(finished.stages)
    return {
        **facts,
        "stages": [*finished.facts["stages"], *facts["stages"][done:]],
        "initialised_from": finished.facts["initialised_from"],
        "extended_from": {
            "run": str(finished.run.resolve()),
            "step": finished.position.step,
            "stages": done,
            "task": task,
            "data": str(data.resolve()),
            "replay": replay,
        },
    }


def _take_all(finished: Finished, ours: FullState, row: int) -> tuple[str, ...]:
    """Changes `ours` to what the finished run knows; returns what it does not."""
    theirs, moments = finished.checkpoint.parameters(), finished.checkpoint.moments()
    if lost := sorted(theirs.keys() - ours.parameters.keys()):
        raise CheckpointError(f"{finished.checkpoint.folder} holds {', '.join(lost[:5])}, which has no place here.")
    for name, parameter in ours.parameters.items():
        if name in theirs:
            _take(name, parameter, theirs[name], row)
            _take_moments(name, ours.moments, moments, row)
        elif name == TASK_TABLE:
            parameter.zero_()
    return tuple(sorted(ours.parameters.keys() - theirs.keys()))


def _take(name: str, parameter: Tensor, values: Tensor, row: int) -> None:
    if name == TASK_TABLE:
        parameter[: len(values)].copy_(values)
        parameter[len(values) :].copy_(values[0].expand_as(parameter[len(values) :]))
        parameter[row].copy_(values[0])
        return
    if parameter.shape != values.shape:
        raise CheckpointError(
            f"{name} has shape {tuple(values.shape)} in the finished run and {tuple(parameter.shape)} here: the data "
            "would give an earlier task other classes. Leave its options as they were."
        )
    parameter.copy_(values)


def _take_moments(name: str, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], row: int) -> None:
    ours[f"step/{name}"].copy_(theirs[f"step/{name}"])
    for key in (f"exp_avg/{name}", f"exp_avg_sq/{name}"):
        ours[key][: len(theirs[key])].copy_(theirs[key])
        if name == TASK_TABLE and row:
            ours[key][row].zero_()
