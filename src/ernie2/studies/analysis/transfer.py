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

from ernie2.studies.analysis.reading import Evaluation, Run


def entered(run: Run, task: str) -> int | None:
    """The stage in which the task was introduced; None where it never was."""
    return next((index for index, stage in enumerate(run.stages) if task in stage.introduced), None)


def accuracy(evaluation: Evaluation, task: str) -> float | None:
    """Held-out accuracy; None where the task was not evaluated, or without a finite result."""
    return evaluation.tasks[task].accuracy if task in evaluation.tasks else None


def final(run: Run, task: str) -> float | None:
    """Accuracy at the end of the run."""
    return accuracy(run.heldout[-1], task)


def best(run: Run, task: str) -> float | None:
    """The highest accuracy at a stage's end since the task entered; None where one of those ends has none."""
    ends = _ends(run, task)
    return None if not ends or None in ends else max(value for value in ends if value is not None)


def forgetting(run: Run, task: str) -> float | None:
    """`best` − `final`, never below 0."""
    highest, last = best(run, task), final(run, task)
    return None if len(_ends(run, task)) < 2 or highest is None or last is None else highest - last


def backward(run: Run, task: str) -> float | None:
    """`final` − accuracy at the end of the stage in which the task entered."""
    ends, last = _ends(run, task), final(run, task)
    return None if len(ends) < 2 or ends[0] is None or last is None else last - ends[0]


def _ends(run: Run, task: str) -> list[float | None]:
    """Accuracy at the end of each stage since the task entered."""
    stage = entered(run, task)
    if stage is None:
        return []
    return [accuracy(one, task) for one in run.heldout if one.at == "stage_end" and one.stage >= stage]


def after(evaluations: Sequence[Evaluation], task: str, iterations: float) -> float | None:
    """Accuracy after so many iterations of the task itself, interpolated; None where no evaluation comes so late.

    evaluations in the order of time. (0 → 0.2, 10 → 0.4, 20 → 0.5) after 12.5 iterations: 0.425.
    """
    known = [(one.iterations.get(task, 0), value) for one in evaluations if (value := accuracy(one, task)) is not None]
    for index, (count, value) in enumerate(known):
        if count == iterations:
            return value
        if count > iterations:
            if index == 0:
                return None
            earlier, before = known[index - 1]
            return before + (value - before) * (iterations - earlier) / (count - earlier)
    return None


def forward(run: Run, alone: Sequence[Evaluation], task: str, iterations: float) -> float | None:
    """Accuracy after so many of the task's iterations, less that of the task trained alone for as many."""
    ours, theirs = after(run.heldout, task, iterations), after(alone, task, iterations)
    return None if ours is None or theirs is None else ours - theirs
