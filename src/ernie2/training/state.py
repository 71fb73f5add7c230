"""Where a run stands, as plain values that a checkpoint stores, so that a resumed run does as it would have done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import TypeAdapter

from ernie2.batches.streams import StreamState


@dataclass
class Convergence:
    """When a stage ends early: once no task's held-out loss has improved for a while.

    Of one stage, by task: the best held-out loss so far (nats), and evaluations in a row that did not improve it.
    The paper trains "until the metrics of the pre-training tasks converge" without a rule for it; patience is ours.
    """

    best: dict[str, float] = field(default_factory=dict)
    waited: dict[str, int] = field(default_factory=dict)

    def update(self, losses: Mapping[str, float], min_gain: float) -> None:
        """Takes in one evaluation; a loss is better where it is below the best by the share `min_gain` of it."""
        for task, loss in losses.items():
            if task not in self.best or loss < self.best[task] * (1 - min_gain):
                self.best[task], self.waited[task] = loss, 0
            else:
                self.waited[task] = self.waited.get(task, 0) + 1

    def has_converged(self, tasks: Iterable[str], patience: int | None) -> bool:
        """Whether every one of `tasks` went `patience` evaluations without improving; never where that is None."""
        return patience is not None and all(self.waited.get(task, 0) >= patience for task in tasks)


@dataclass
class Position:
    """Where a run stands, after the last pack trained: everything a resumed run needs besides parameters and moments.

    `stage` and `stage_step` say which step comes next; `step`, `tokens` and `seconds` count from the run's beginning;
    `schedule_start`: steps done when the learning rate's schedule began, above 0 in an extended run; `task_steps`:
    iterations of each task since then; `seen`: instances trained under each task id, by task name; `skipped`: steps
    whose loss or gradient was not finite; `bad_steps`: how many such the last ones were, in a row; `convergence`: what
    this stage's evaluations have shown.
    """

    stream_states: list[StreamState] = field(repr=False)
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

    def count_step(self, active: Sequence[str], tokens: int, seen: Mapping[str, int]) -> None:
        """Count a step that trains `active`, with its real tokens and its instances by task."""
        self.step, self.stage_step, self.tokens = self.step + 1, self.stage_step + 1, self.tokens + tokens
        for task in active:
            self.task_steps[task] = self.task_steps.get(task, 0) + 1
        for task, count in seen.items():
            self.seen[task] = self.seen.get(task, 0) + count

    def count_result(self, *, skipped: bool, overflow: bool) -> None:
        """Count whether the last step changed nothing; one that only overflowed in fp16 is no bad one."""
        self.skipped += skipped
        if not overflow:
            self.bad_steps = self.bad_steps + 1 if skipped else 0

    def end_stage(self) -> None:
        self.stage, self.stage_step, self.convergence = self.stage + 1, 0, Convergence()

    def trained(self, stages: Sequence[Mapping[str, int]]) -> frozenset[str]:
        """Return the tasks whose training has begun; `stages` are the iterations of each task by stage."""
        ended = {task for stage in stages[: self.stage] for task, count in stage.items() if count}
        return frozenset(ended | {task for task, count in self.task_steps.items() if count})

    def state(self) -> dict[str, Any]:
        """Return a copy as JSON values; checkpoints call the stream states `lanes`."""
        state = asdict(self)
        return {"lanes": state.pop("stream_states"), **state}

    @staticmethod
    def of(state: Mapping[str, Any]) -> Position:
        """Return the position of `state()`."""
        values = {"stream_states" if name == "lanes" else name: value for name, value in state.items()}
        return TypeAdapter(Position).validate_python(values)
