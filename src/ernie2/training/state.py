"""Position of a run, as plain values that checkpoints store and a resumed run continues from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import TypeAdapter

from ernie2.batches.streams import StreamState


@dataclass
class Convergence:
    """Early stopping of a stage: by task, the best held-out loss (nats) and the evaluations since it improved.

    The paper trains "until the metrics of the pre-training tasks converge" without giving a rule; patience is ours.
    """

    best: dict[str, float] = field(default_factory=dict)
    waited: dict[str, int] = field(default_factory=dict)

    def update(self, losses: Mapping[str, float], min_gain: float) -> None:
        """Add one evaluation; a loss improves if it is below the best one by at least the share `min_gain`."""
        for task, loss in losses.items():
            if task not in self.best or loss < self.best[task] * (1 - min_gain):
                self.best[task], self.waited[task] = loss, 0
            else:
                self.waited[task] = self.waited.get(task, 0) + 1

    def has_converged(self, tasks: Iterable[str], patience: int | None) -> bool:
        """Return whether no task improved in `patience` evaluations; never if that is None."""
        return patience is not None and all(self.waited.get(task, 0) >= patience for task in tasks)


@dataclass
class Position:
    """Position of a run after a step: everything a resumed run needs besides parameters and moments.

    `stage`, `stage_step`: the next step; `step`, `tokens`, `seconds`: totals since the start of the run;
    `schedule_start`: step at which the learning rate schedule started, above 0 in an extended run; `task_steps`:
    iterations of each task since then; `seen`: instances trained under each task id, by task name; `skipped`: steps
    with a loss or gradient that was not finite; `bad_steps`: number of such steps in a row at the end; `convergence`:
    early stopping of this stage.
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
        """Count a skipped step. A step that only overflowed in fp16 is skipped, but not bad."""
        self.skipped += skipped
        if not overflow:
            self.bad_steps = self.bad_steps + 1 if skipped else 0

    def end_stage(self) -> None:
        self.stage, self.stage_step, self.convergence = self.stage + 1, 0, Convergence()

    def trained(self, stages: Sequence[Mapping[str, int]]) -> frozenset[str]:
        """Return the tasks trained so far; `stages`: iterations of each task by stage."""
        ended = {task for stage in stages[: self.stage] for task, count in stage.items() if count}
        return frozenset(ended | {task for task, count in self.task_steps.items() if count})

    def state(self) -> dict[str, Any]:
        """Return a copy as JSON values; checkpoints call the stream states `streams`."""
        state = asdict(self)
        return {"streams": state.pop("stream_states"), **state}

    @staticmethod
    def of(state: Mapping[str, Any]) -> Position:
        """Return the position of `state()`."""
        values = {"stream_states" if name == "streams" else name: value for name, value in state.items()}
        return TypeAdapter(Position).validate_python(values)
