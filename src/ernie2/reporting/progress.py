"""Progress of a run: its stages in global steps, and which tasks were trained at an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ernie2.reporting.records_reader import HeldOut, Records, Result
from ernie2.training.run_record import RunRecord


@dataclass(frozen=True)
class StageSpan:
    """The global steps of a stage, `begin` (exclusive) to `end`; `end` is as planned until the stage has ended."""

    name: str
    begin: int
    end: int
    state: Literal["done", "running", "stopped", "planned"]
    active: frozenset[str]
    """Tasks with iterations in this stage."""


def stage_spans(records: Records) -> tuple[StageSpan, ...]:
    """Return the stages in order, as trained so far and then as planned."""
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
    """Return the index of the stage that introduces `task`, or None if no stage trains it."""
    for index, stage in enumerate(run.stages):
        if task in stage.introduced or (not stage.introduced and stage.iterations.get(task, 0) > 0):
            return index
    return next((index for index, stage in enumerate(run.stages) if stage.iterations.get(task, 0) > 0), None)


def is_trained(run: RunRecord, task: str, evaluation: HeldOut) -> bool:
    """Return whether training on `task` had begun at `evaluation`; if not, its figures are zero-shot."""
    stage = introduction_stage(run, task)
    if stage is None:
        return False
    return evaluation.stage > stage or (evaluation.stage == stage and evaluation.at != "start")


def stage_ends(records: Records) -> dict[int, HeldOut]:
    """Return the evaluations at the end of each stage, by stage index."""
    return {evaluation.stage: evaluation for evaluation in records.heldout if evaluation.at == "stage_end"}


def final_result(records: Records, task: str) -> Result | None:
    """Return the last held-out result of a task, or None if it was not evaluated since its training began."""
    for evaluation in reversed(records.heldout):
        if task in evaluation.tasks and is_trained(records.run, task, evaluation):
            return evaluation.tasks[task]
    return None


def last_step(records: Records) -> int:
    """Return the last global step in the records."""
    steps = [step.step for step in records.steps]
    return max(steps + [event.step for event in records.events] + [point.step for point in records.heldout], default=0)
