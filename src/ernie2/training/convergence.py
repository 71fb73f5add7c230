"""Until converged: a stage ends early once no task's held-out loss has improved for a while.

The paper trains "until the metrics of the pre-training tasks converge" and does not say how that is told; patience is
ours.
What is remembered is a plain value inside the position, so a resumed run ends its stages at the same steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Convergence:
    """Of one stage, by task: the best held-out loss so far (nats), and evaluations in a row that did not improve it."""

    best: dict[str, float] = field(default_factory=dict)
    waited: dict[str, int] = field(default_factory=dict)

    def see(self, losses: Mapping[str, float], least_gain: float) -> None:
        """Takes in one evaluation; a loss is better where it is below the best by the share `least_gain` of it."""
        for task, loss in losses.items():
            if task not in self.best or loss < self.best[task] * (1 - least_gain):
                self.best[task], self.waited[task] = loss, 0
            else:
                self.waited[task] = self.waited.get(task, 0) + 1

    def reached(self, tasks: Iterable[str], patience: int | None) -> bool:
        """Whether every one of `tasks` went `patience` evaluations without improving; never where that is None."""
        return patience is not None and all(self.waited.get(task, 0) >= patience for task in tasks)

    def state(self) -> dict[str, Any]:
        """As JSON values."""
        return {"best": dict(self.best), "waited": dict(self.waited)}
