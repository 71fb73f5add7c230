"""Compute the figures of each method from its finished runs: scores, held-out accuracy, transfer, cost.

Accuracies are fractions of 1.

Forgetting is the highest accuracy at the end of a stage since the task was introduced, minus the accuracy at the end of
the run. The maximum includes the last stage, so forgetting is never negative (unlike in Chaudhry et al. 2018). It uses
only the ends of stages, because the maximum of many noisy evaluations is biased upwards; with several stages some bias
remains. Backward transfer has no maximum and no such bias: the final accuracy minus the accuracy at the end of the
stage that introduced the task (Lopez-Paz & Ranzato 2017). Both are undefined for tasks introduced in the last stage.

Forward transfer is the accuracy after a given share of the task's iterations, minus that of the task trained from
scratch, from the same initial parameters, for as many iterations. Both are interpolated linearly between evaluations.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ernie2.learned import LEARNED
from ernie2.studies.analysis.schema import MAIN_RULE, Evaluation, Named, Record, Run, Scores
from ernie2.studies.analysis.statistics import Estimate, estimate, variance_components

SCORE, FINAL, FORGETTING, BACKWARD, FORWARD, COST = "score", "final", "forgetting", "backward", "forward", "cost"
"""Measures. Scores are percentages by dataset; the four measures of held-out accuracy are fractions of 1 by task; cost
has the items "passes" (of the encoder), "tokens" and "seconds" of one run."""
PAPER_DATASETS = ("mnli", "sst2", "mrpc")
"""The datasets of Table 7, evaluated on dev; `mnli` is the matched part."""
MEAN = "mean"
"""The item for the mean over datasets or tasks, computed per seed if the seed has all of them."""


@dataclass(frozen=True)
class DatasetScores:
    """The fine-tuning runs of a method on one dataset; `facts` are the scores of one seed, used for their description.

    Standard deviations are in points: `sd_pretraining` between pre-training seeds without the variance of fine-tuning
    (0 if the estimate is negative, None below two seeds), `sd_finetuning` between the runs of one pre-training seed
    (None if no seed has two). `runs` includes the `diverged` ones, which have no finite score.
    """

    facts: Scores
    sd_pretraining: float | None
    sd_finetuning: float | None
    runs: int
    diverged: int


@dataclass(frozen=True)
class MethodResult:
    """All figures of one learning method under one restart rule of the schedule.

    `runs` are the finished runs, `figures` are by (measure, item). `baselines`: accuracy of the best baseline by task.
    `learned`: number of seeds that learned a task, if the record has the verdict of every seed.
    """

    name: str
    title: str
    runs: tuple[Run, ...]
    figures: Mapping[tuple[str, str], Estimate]
    scores: Mapping[str, DatasetScores]
    baselines: Mapping[str, float]
    learned: Mapping[str, int]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The pre-training seeds, ascending."""
        return tuple(run.seed for run in self.runs)

    def figure(self, measure: str, item: str = MEAN) -> Estimate | None:
        """Return one figure, or None if it is undefined or not measured."""
        return self.figures.get((measure, item))


def method_results(record: Record, restart: str) -> tuple[MethodResult, ...]:
    """Return the results of every method that has a finished run under the rule, in the order of the record."""
    runs = {method: record.finished_runs(method.name, restart) for method in record.methods}
    return tuple(_method_result(record, method, finished) for method, finished in runs.items() if finished)


def scored_datasets(record: Record) -> tuple[str, ...]:
    """Return the datasets with scores of a finished run: the paper's three in its order, then others by name."""
    names = {name for run in record.runs if run.finished for name in run.scores}
    return (*(name for name in PAPER_DATASETS if name in names), *sorted(names - set(PAPER_DATASETS)))


def _method_result(record: Record, method: Named, runs: tuple[Run, ...]) -> MethodResult:
    scores = {dataset: scored for dataset in scored_datasets(record) if (scored := _scored(dataset, runs)) is not None}
    by_seed = {run.seed: _run_figures(record, run, scores) for run in runs}
    keys = dict.fromkeys(key for values in by_seed.values() for key in values)
    estimates = {key: estimate({seed: values.get(key) for seed, values in by_seed.items()}) for key in keys}
    figures = {key: figure for key, figure in estimates.items() if figure is not None}
    baselines, learned = {}, {}
    for task in (task.name for task in record.tasks):
        ends = {run.seed: run.heldout[-1].tasks[task] for run in runs if task in run.heldout[-1].tasks}
        if baseline := estimate({seed: end.verdict.baseline_accuracy for seed, end in ends.items()}):
            baselines[task] = baseline.mean
        if len(ends) == len(runs) and all(end.instances is not None for end in ends.values()):
            learned[task] = sum(end.verdict.word == LEARNED for end in ends.values())
    return MethodResult(method.name, method.title, runs, figures, scores, baselines, learned)


def _run_figures(record: Record, run: Run, scores: Mapping[str, DatasetScores]) -> dict[tuple[str, str], float | None]:
    """Return the value of every figure of one run; a mean needs all items for which the figure is defined."""
    tasks = [task.name for task in record.tasks]
    forgettable = [task for task in tasks if task in forgettable_tasks(run)]
    from_scratch = {one.task for one in record.scratch}
    parts: dict[str, dict[str, float | None]] = {
        SCORE: {name: _score(run, name, scores) for name in scored_datasets(record)},
        FINAL: {task: final_accuracy(run, task) for task in tasks},
        FORGETTING: {task: forgetting(run, task) for task in forgettable},
        BACKWARD: {task: backward_transfer(run, task) for task in forgettable},
        FORWARD: {task: _forward(record, run, task) for task in tasks if task in from_scratch},
    }
    values = {(measure, item): value for measure, items in parts.items() for item, value in items.items()}
    values |= {(measure, MEAN): _mean(items.values()) for measure, items in parts.items()}
    return values | {(COST, item): float(getattr(run, item)) for item in ("passes", "tokens", "seconds")}


def _mean(values: Iterable[float | None]) -> float | None:
    items = list(values)
    known = [value for value in items if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(items) else None


def _score(run: Run, dataset: str, scores: Mapping[str, DatasetScores]) -> float | None:
    """Return the mean score, or None if a run of any seed diverged: a mean over the others would favour the method."""
    if dataset not in run.scores or dataset not in scores or scores[dataset].diverged:
        return None
    return _mean(run.scores[dataset].known.values())


def _scored(dataset: str, runs: Sequence[Run]) -> DatasetScores | None:
    by_seed = {run.seed: run.scores[dataset] for run in runs if dataset in run.scores and run.scores[dataset].values}
    if not by_seed:
        return None
    total = sum(len(one.values) for one in by_seed.values())
    diverged = total - sum(len(one.known) for one in by_seed.values())
    spread = variance_components({} if diverged else {seed: list(one.known.values()) for seed, one in by_seed.items()})
    facts = next((one for one in by_seed.values() if one.known), next(iter(by_seed.values())))
    return DatasetScores(facts, *spread, total, diverged)


def _forward(record: Record, run: Run, task: str) -> float | None:
    """Compare with the run from scratch of the same seed; it has one stage, so its restart rule does not matter."""
    by_rule = {one.restart: one for one in record.scratch if (one.task, one.seed) == (task, run.seed)}
    alone = by_rule.get(run.restart, by_rule.get(MAIN_RULE))
    if alone is None or task not in record.steps:
        return None
    point = min(record.forward_transfer_at * record.steps[task], alone.iterations)
    return forward_transfer(run, alone.heldout, task, point)


def forgettable_tasks(run: Run) -> set[str]:
    """Return the tasks introduced before the last stage, which can be forgotten."""
    return {task for stage in run.stages[:-1] for task in stage.introduced}


def final_accuracy(run: Run, task: str) -> float | None:
    """Return the accuracy at the end of the run."""
    return _accuracy(run.heldout[-1], task)


def forgetting(run: Run, task: str) -> float | None:
    """Return the highest minus the last accuracy at a stage's end since the task was introduced; None if one lacks."""
    ends = _stage_end_accuracies(run, task)
    known = [value for value in ends if value is not None]
    return max(known) - known[-1] if len(ends) > 1 and len(known) == len(ends) else None


def backward_transfer(run: Run, task: str) -> float | None:
    """Return the final accuracy minus that at the end of the stage that introduced the task."""
    ends = _stage_end_accuracies(run, task)
    return None if len(ends) < 2 or ends[0] is None or ends[-1] is None else ends[-1] - ends[0]


def forward_transfer(run: Run, scratch: Sequence[Evaluation], task: str, iterations: float) -> float | None:
    """Return the accuracy after a number of the task's iterations, minus that of the task trained from scratch."""
    accuracy, reference = accuracy_after(run.heldout, task, iterations), accuracy_after(scratch, task, iterations)
    return None if accuracy is None or reference is None else accuracy - reference


def accuracy_after(evaluations: Sequence[Evaluation], task: str, iterations: float) -> float | None:
    """Return the accuracy after a number of the task's iterations, interpolated; None outside the evaluated range.

    `evaluations` are in chronological order. (0 → 0.2, 10 → 0.4, 20 → 0.5) after 12.5 iterations: 0.425.
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


def _stage_end_accuracies(run: Run, task: str) -> list[float | None]:
    """Return the accuracy at the end of each stage since the task was introduced."""
    first = next((index for index, stage in enumerate(run.stages) if task in stage.introduced), len(run.stages))
    return [_accuracy(one, task) for one in run.heldout if one.at_end and one.stage >= first]
