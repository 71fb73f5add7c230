"""Where a run stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ernie2.batches.stream import Lane
from ernie2.training.convergence import Convergence


@dataclass
class Position:
    """Where a run stands, after the last pack trained: everything a resumed run needs besides parameters and moments.

    `stage` and `stage_step` say which step comes next; `step`, `tokens` and `seconds` count from the run's beginning;
    `schedule_start`: steps done when the learning rate's schedule began, above 0 in an extended run; `task_steps`:
    iterations of each task since then; `seen`: instances trained under each task id, by task name; `skipped`: steps
    whose loss or gradient was not finite; `bad_steps`: how many such the last ones were, in a row; `convergence`: what
    this stage's evaluations have shown.
    """

    lanes: list[Lane]
    stage: int = 0
    stage_step: int = 0
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    schedule_start: int = 0
    task_steps: dict[str, int] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)
    skipped: int = 0
    bad_steps: int = 0
    convergence: Convergence = field(default_factory=Convergence)

    def trained(self, stages: Sequence[Mapping[str, int]]) -> frozenset[str]:
        """Return the tasks whose training has begun; `stages` are the iterations of each task by stage."""
        ended = {task for stage in stages[: self.stage] for task, count in stage.items() if count}
        return frozenset(ended | {task for task, count in self.task_steps.items() if count})

    def state(self) -> dict[str, Any]:
        """As JSON values."""
        lanes = [lane.state() for lane in self.lanes]
        return {**vars(self), "lanes": lanes, "convergence": self.convergence.state()}

    @staticmethod
    def of(state: Mapping[str, Any]) -> Position:
        """From `state()`."""
        lanes = [Lane.of(lane) for lane in state["lanes"]]
        return Position(**{**state, "lanes": lanes, "convergence": Convergence(**state["convergence"])})
