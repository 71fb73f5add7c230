"""Forgetting, backward and forward transfer of one run, from its held-out evaluations. Accuracies are fractions of 1.

Forgetting is the highest accuracy at a stage's end since the task entered, the last included, less the accuracy at the
end (Chaudhry et al. 2018 take the highest before the last, which can be negative; with the last included it cannot).
It counts ends of stages only: the highest of many noisy evaluations lies above the true one even where nothing is
forgotten. Some of that bias is left, as there is more than one end to choose from. Backward transfer chooses nothing
and is free of it: the accuracy at the end less the accuracy at the end of the stage in which the task entered
(Lopez-Paz & Ranzato 2017). A task that entered in the last stage has neither.

Forward transfer is the accuracy after a tenth of the task's own iterations less that of the same task trained alone
from the same initial parameters for as long, each by linear interpolation between the evaluations around it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ernie2.studies.analysis.reading import Evaluation, Run


def left_behind(run: Run) -> set[str]:
    """Return the tasks that entered before the last stage: those that can be forgotten."""
    return {task for stage in run.stages[:-1] for task in stage.introduced}


def final(run: Run, task: str) -> float | None:
    """Return the accuracy at the end of the run."""
    return _accuracy(run.heldout[-1], task)


def forgetting(run: Run, task: str) -> float | None:
    """Return the highest accuracy at a stage's end since the task entered less the last; None where an end has none."""
    ends = _ends(run, task)
    known = [value for value in ends if value is not None]
    return max(known) - known[-1] if len(ends) > 1 and len(known) == len(ends) else None


def backward(run: Run, task: str) -> float | None:
    """Return the accuracy at the end less that at the end of the stage in which the task entered."""
    ends = _ends(run, task)
    return None if len(ends) < 2 or ends[0] is None or ends[-1] is None else ends[-1] - ends[0]


def forward(run: Run, alone: Sequence[Evaluation], task: str, iterations: float) -> float | None:
    """Return the accuracy after so many of the task's iterations less that of the task trained alone for as many."""
    ours, theirs = after(run.heldout, task, iterations), after(alone, task, iterations)
    return None if ours is None or theirs is None else ours - theirs


def after(evaluations: Sequence[Evaluation], task: str, iterations: float) -> float | None:
    """Return the accuracy after so many iterations of the task itself, interpolated; None outside the evaluations.

    evaluations in the order of time. (0 → 0.2, 10 → 0.4, 20 → 0.5) after 12.5 iterations: 0.425.
    """
    known = [(one.iterations.get(task, 0), value) for one in evaluations if (value := _accuracy(one, task)) is not None]
    counts = [count for count, _ in known]
    if iterations in counts:
        return next(value for count, value in known if count == iterations)
    if not counts or not counts[0] < iterations < counts[-1]:
        return None
    return float(np.interp(iterations, counts, [value for _, value in known]))


def _accuracy(evaluation: Evaluation, task: str) -> float | None:
    return evaluation.tasks[task].accuracy if task in evaluation.tasks else None


def _ends(run: Run, task: str) -> list[float | None]:
    """Accuracy at the end of each stage since the task entered; none where it never did."""
    entered = next((index for index, stage in enumerate(run.stages) if task in stage.introduced), len(run.stages))
    return [_accuracy(one, task) for one in run.heldout if one.at_end and one.stage >= entered]
