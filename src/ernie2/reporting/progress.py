"""How far a run has come: where its stages lie in global steps, and which tasks an evaluation finds trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ernie2.reporting.records_reader import HeldOut, Records, Result
from ernie2.training.run_record import RunRecord


@dataclass(frozen=True)
class StageSpan:
    """A stage's place: global steps `begin` (exclusive) to `end`; where it has not ended, `end` is the planned one."""

    name: str
    begin: int
    end: int
    state: Literal["done", "running", "stopped", "planned"]
    active: frozenset[str]
    """Tasks that have iterations in this stage."""


def stage_spans(records: Records) -> tuple[StageSpan, ...]:
    """The stages in order, as they were trained so far and as planned after that."""
    begins = {event.stage: event.step for event in records.events if event.event == "begin"}
    ends = {event.stage: event.step for event in records.events if event.event == "end"}
    unfinished: Literal["running", "stopped"] = "running" if records.run.status == "running" else "stopped"
    placed: list[StageSpan] = []
    for index, stage in enumerate(records.run.stages):
        begin = begins.get(index, placed[-1].end if placed else 0)
        end = ends.get(index, begin + stage.steps)
        state: Literal["done", "running", "stopped", "planned"] = (
            "done" if index in ends else unfinished if index in begins else "planned"
        )
        active = frozenset(task for task, iterations in stage.iterations.items() if iterations > 0)
        placed.append(StageSpan(stage.name or str(index + 1), begin, end, state, active))
    return tuple(placed)


def introduction_stage(run: RunRecord, task: str) -> int | None:
    """Index of the stage in which `task` enters, or None when no stage trains it."""
    for index, stage in enumerate(run.stages):
        if task in stage.introduced or (not stage.introduced and stage.iterations.get(task, 0) > 0):
            return index
    return next((index for index, stage in enumerate(run.stages) if stage.iterations.get(task, 0) > 0), None)


def is_trained(run: RunRecord, task: str, evaluation: HeldOut) -> bool:
    """Whether `evaluation` was made after training on `task` had begun; before that its figures are zero-shot."""
    entered = introduction_stage(run, task)
    if entered is None:
        return False
    return evaluation.stage > entered or (evaluation.stage == entered and evaluation.at != "start")


def stage_ends(records: Records) -> dict[int, HeldOut]:
    """Stage index → the evaluation at that stage's end."""
    return {evaluation.stage: evaluation for evaluation in records.heldout if evaluation.at == "stage_end"}


def final_result(records: Records, task: str) -> Result | None:
    """The last held-out result of a task, or None where it was not evaluated since its training began."""
    for evaluation in reversed(records.heldout):
        if task in evaluation.tasks and is_trained(records.run, task, evaluation):
            return evaluation.tasks[task]
    return None


def last_step(records: Records) -> int:
    """The last global step the records know of."""
    steps = [step.step for step in records.steps]
    return max(steps + [event.step for event in records.events] + [point.step for point in records.heldout], default=0)
