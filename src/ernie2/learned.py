"""Decide whether a task is learned, for evaluation, reports, model cards and studies.

A task is learned if the 95 % interval of its held-out accuracy lies above every baseline on the same instances. There
is no verdict with fewer than `MIN_INSTANCES` instances, or before the task's training has begun.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

MIN_INSTANCES = 30
"""Held-out instances needed for "learned" or "not learned" (our choice): with 30, the interval of a binary task at
chance is still 0.33 to 0.67."""

VerdictWord = Literal["learned", "not learned", "too few instances to tell", "not trained yet"]
LEARNED: VerdictWord = "learned"
NOT_LEARNED: VerdictWord = "not learned"
TOO_FEW: VerdictWord = "too few instances to tell"
NOT_TRAINED: VerdictWord = "not trained yet"

BASELINES = {
    "majority_baseline": "majority baseline",
    "constant_baseline": "constant baseline",
    "feature_baseline": "feature baseline",
}
"""Key of each baseline in the records → its name in messages. `constant_baseline` is fitted on the held-out instances
themselves, so no model that always gives one answer can beat it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict, and the strongest baseline with its accuracy (None if no baseline is known)."""

    word: VerdictWord
    baseline: str
    baseline_accuracy: float | None
    instances: int

    @property
    def reason(self) -> str:
        """The verdict and its reason, on one line."""
        against = f"{self.baseline}, {self.baseline_accuracy:.3f}" if self.baseline_accuracy is not None else "unknown"
        if self.word == NOT_TRAINED:
            return f"{NOT_TRAINED}: no step has trained this task so far"
        if self.word == TOO_FEW:
            return f"{TOO_FEW} ({self.instances}; at least {MIN_INSTANCES} are needed)"
        if self.word == LEARNED:
            return f"{LEARNED}: the 95 % interval is above the best baseline ({against})"
        return f"{NOT_LEARNED}: the 95 % interval is not above the best baseline ({against})"


def verdict(
    instances: int | None, low: float | None, accuracies: Mapping[str, float | None], *, trained: bool = True
) -> Verdict:
    """Return the verdict on a task. `low` is the lower end of the 95 % interval of its accuracy.

    `accuracies`: key of `BASELINES` → accuracy of that baseline; all must be known for "learned". `trained`: whether
    the task's training has begun.
    """
    known = {key: value for key, value in accuracies.items() if value is not None}
    strongest = max(known, key=lambda key: known[key], default=None)
    complete = known.keys() >= BASELINES.keys()
    above = low is not None and strongest is not None and complete and low > known[strongest]
    claim = TOO_FEW if (instances or 0) < MIN_INSTANCES else LEARNED if above else NOT_LEARNED
    word = claim if trained else NOT_TRAINED
    name = "no baseline" if strongest is None else BASELINES[strongest]
    return Verdict(word, name, None if strongest is None else known[strongest], instances or 0)


def verdict_of(figures: Mapping[str, Any]) -> Verdict:
    """Return the verdict on a task's held-out figures, as returned by `HeldOut.evaluate` or read from metrics.jsonl."""
    return verdict(
        figures.get("instances"),
        figures.get("low"),
        {key: (figures.get(key) or {}).get("accuracy") for key in BASELINES},
        trained=figures.get("trained", True),
    )
