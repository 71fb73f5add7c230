"""The figures of each method (arm) from its finished runs: scores, held-out accuracy, transfer, cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ernie2.learned import LEARNED
from ernie2.studies.analysis import transfer
from ernie2.studies.analysis.reading import MAIN_RULE, Record, Run, Scores, Titled
from ernie2.studies.analysis.statistics import Estimate, estimate, variance_components

SCORE, FINAL, FORGETTING, BACKWARD, FORWARD, COST = "score", "final", "forgetting", "backward", "forward", "cost"
"""Measures. Scores are in percent, by data set; the four of held-out accuracy are fractions of 1, by task; cost is by
"passes" (of the encoder), "tokens" and "seconds", of one run."""
SETS = ("mnli", "sst2", "mrpc")
"""The data sets that the paper scores on, dev; `mnli` is its matched half."""
MEAN = "mean"
"""The item that stands for the mean over data sets or tasks. It is taken within a seed that has every part."""


@dataclass(frozen=True)
class Scored:
    """The fine-tuning runs of a method on one data set; `facts` are the scores of one seed, for what the data are.

    `sd_pretraining` is that of the seed's true score, apart from fine-tuning, 0 where it comes out negative and None
    below two seeds; `sd_finetuning` that of one run around its pre-training seed, None where no seed has two. In
    points. `runs` counts the `diverged` ones too, which have no finite score.
    """

    facts: Scores
    sd_pretraining: float | None
    sd_finetuning: float | None
    runs: int
    diverged: int


@dataclass(frozen=True)
class ArmResult:
    """All figures of one learning method under one rule of the schedule's restart.

    `runs` are those that reached their end, `figures` are by (measure, item). `baselines` is the accuracy of the best
    baseline by task, `learned` in how many seeds a task was learned, where the record tells of each.
    """

    name: str
    title: str
    runs: tuple[Run, ...]
    figures: Mapping[tuple[str, str], Estimate]
    scores: Mapping[str, Scored]
    baselines: Mapping[str, float]
    learned: Mapping[str, int]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The pre-training seeds, in rising order."""
        return tuple(run.seed for run in self.runs)

    def figure(self, measure: str, item: str = MEAN) -> Estimate | None:
        """Return one figure; None where it is not defined or not measured."""
        return self.figures.get((measure, item))


def arm_results(record: Record, restart: str) -> tuple[ArmResult, ...]:
    """Return every arm that has a finished run under the rule, in the order of the record."""
    by_arm = {arm: record.finished_runs(arm.name, restart) for arm in record.arms}
    return tuple(_arm(record, arm, runs) for arm, runs in by_arm.items() if runs)


def data_sets(record: Record) -> tuple[str, ...]:
    """Return the data sets that any finished run was scored on: the paper's three in its order, then others by name."""
    names = {name for run in record.runs if run.finished for name in run.scores}
    return (*(name for name in SETS if name in names), *sorted(names - set(SETS)))


def _arm(record: Record, arm: Titled, runs: tuple[Run, ...]) -> ArmResult:
    scores = {dataset: scored for dataset in data_sets(record) if (scored := _scored(dataset, runs)) is not None}
    by_seed = {run.seed: _of_run(record, run, scores) for run in runs}
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
    return ArmResult(arm.name, arm.title, runs, figures, scores, baselines, learned)


def _of_run(record: Record, run: Run, scores: Mapping[str, Scored]) -> dict[tuple[str, str], float | None]:
    """One run's value of every figure. A mean is over all items for which the figure is defined, or there is none."""
    tasks = [task.name for task in record.tasks]
    left = [task for task in tasks if task in transfer.left_behind(run)]
    alone = {one.task for one in record.scratch}
    parts: dict[str, dict[str, float | None]] = {
        SCORE: {name: _score(run, name, scores) for name in data_sets(record)},
        FINAL: {task: transfer.final(run, task) for task in tasks},
        FORGETTING: {task: transfer.forgetting(run, task) for task in left},
        BACKWARD: {task: transfer.backward(run, task) for task in left},
        FORWARD: {task: _forward(record, run, task) for task in tasks if task in alone},
    }
    values = {(measure, item): value for measure, items in parts.items() for item, value in items.items()}
    values |= {(measure, MEAN): _mean(items.values()) for measure, items in parts.items()}
    return values | {(COST, item): float(getattr(run, item)) for item in ("passes", "tokens", "seconds")}


def _mean(values: Iterable[float | None]) -> float | None:
    items = list(values)
    known = [value for value in items if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(items) else None


def _score(run: Run, dataset: str, scores: Mapping[str, Scored]) -> float | None:
    """None on a set where a run of any seed diverged: a mean over the others would flatter the method."""
    if dataset not in run.scores or dataset not in scores or scores[dataset].diverged:
        return None
    return _mean(run.scores[dataset].known.values())


def _scored(dataset: str, runs: Sequence[Run]) -> Scored | None:
    by_seed = {run.seed: run.scores[dataset] for run in runs if dataset in run.scores and run.scores[dataset].values}
    if not by_seed:
        return None
    total = sum(len(one.values) for one in by_seed.values())
    diverged = total - sum(len(one.known) for one in by_seed.values())
    spread = variance_components({} if diverged else {seed: list(one.known.values()) for seed, one in by_seed.items()})
    facts = next((one for one in by_seed.values() if one.known), next(iter(by_seed.values())))
    return Scored(facts, *spread, total, diverged)


def _forward(record: Record, run: Run, task: str) -> float | None:
    """Beside the task from scratch with the run's seed; one stage is one run under every rule, so another's will do."""
    by_rule = {one.restart: one for one in record.scratch if (one.task, one.seed) == (task, run.seed)}
    alone = by_rule.get(run.restart, by_rule.get(MAIN_RULE))
    if alone is None or task not in record.steps:
        return None
    point = min(record.transfer_at * record.steps[task], alone.iterations)
    return transfer.forward(run, alone.heldout, task, point)
