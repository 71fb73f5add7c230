"""The figures of each method (arm) from its finished runs: scores, held-out accuracy, transfer, cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ernie2.learned import LEARNED
from ernie2.studies.analysis import transfer
from ernie2.studies.analysis.paper_table7 import SETS
from ernie2.studies.analysis.reading import MAIN_RULE, Record, Run
from ernie2.studies.analysis.statistics import Estimate, estimate, variance_components

SCORE, FINAL, FORGETTING, BACKWARD, FORWARD, COST = "score", "final", "forgetting", "backward", "forward", "cost"
"""Measures. Scores are in percent, by data set; the four of held-out accuracy are fractions of 1, by task; cost is by
"passes" (of the encoder), "tokens" and "seconds", of one run."""
MEAN = "mean"
"""The item that stands for the mean over data sets or tasks. It is taken within a seed that has every part."""


@dataclass(frozen=True)
class Scored:
    """The fine-tuning runs of a method on one data set.

    `standing` says what the data are ("official", "subset", …); `train` and `dev` count examples. `sd_pretraining` is
    that of the seed's true score, apart from fine-tuning, 0 where it comes out negative and None below two seeds;
    `sd_finetuning` that of one run around its pre-training seed, None where no seed has two. In points. `runs` counts
    the `diverged` ones too, which have no finite score.
    """

    metric: str
    split: str
    standing: str
    train: int
    dev: int
    sd_pretraining: float | None
    sd_finetuning: float | None
    runs: int
    diverged: int


@dataclass(frozen=True)
class ArmResult:
    """All figures of one learning method under one rule of the schedule's restart.

    `seeds` are those that reached their end, `figures` are by (measure, item). `baselines` is the accuracy of the best
    baseline by task, `learned` in how many seeds a task was learned, where the record tells of each.
    """

    name: str
    title: str
    restart: str
    seeds: tuple[int, ...]
    figures: Mapping[tuple[str, str], Estimate]
    scores: Mapping[str, Scored]
    baselines: Mapping[str, float]
    learned: Mapping[str, int]

    def figure(self, measure: str, item: str = MEAN) -> Estimate | None:
        """Return one figure; None where it is not defined or not measured."""
        return self.figures.get((measure, item))


def arm_results(record: Record, restart: str) -> tuple[ArmResult, ...]:
    """Return every arm that has a finished run under the rule, in the order of the record."""
    runs = [record.finished(arm.name, restart) for arm in record.arms]
    return tuple(_arm(record, found) for found in runs if found)


def data_sets(record: Record) -> tuple[str, ...]:
    """Return the data sets that any finished run was scored on: the paper's three in its order, then others by name."""
    found = {name for run in record.runs if run.finished for name in run.scores}
    paper = [name for name in SETS if name in found]
    return (*paper, *sorted(found - set(paper)))


def _arm(record: Record, runs: Sequence[Run]) -> ArmResult:
    sets, tasks = data_sets(record), [task.name for task in record.tasks]
    scores = {name: scored for name in sets if (scored := _scored(name, runs)) is not None}
    told = {name for name in scores if not scores[name].diverged}  # else a mean over the other runs would flatter it
    by_seed = {run.seed: _of_run(record, run, sets, told) for run in runs}
    keys = dict.fromkeys(key for one in by_seed.values() for key in one)
    figures = {key: estimate({seed: one.get(key) for seed, one in by_seed.items()}) for key in keys}
    baselines, learned = {}, {}
    for task in tasks:
        lasts = {run.seed: run.heldout[-1].tasks[task] for run in runs if task in run.heldout[-1].tasks}
        baseline = estimate({seed: last.verdict.baseline_accuracy for seed, last in lasts.items()})
        if baseline is not None:
            baselines[task] = baseline.mean
        if len(lasts) == len(runs) and all(last.instances is not None for last in lasts.values()):
            learned[task] = sum(last.verdict.word == LEARNED for last in lasts.values())
    return ArmResult(
        name=runs[0].arm,
        title=record.title(runs[0].arm),
        restart=runs[0].restart,
        seeds=tuple(run.seed for run in runs),
        figures={key: found for key, found in figures.items() if found is not None},
        scores=scores,
        baselines=baselines,
        learned=learned,
    )


def _of_run(record: Record, run: Run, sets: Sequence[str], told: set[str]) -> dict[tuple[str, str], float | None]:
    """One run's value of every figure. A mean is over all items for which the figure is defined, or there is none."""
    tasks = [task.name for task in record.tasks]
    left = [task for task in tasks if task in transfer.left_behind(run)]
    alone = [task for task in tasks if any(one.task == task for one in record.scratch)]
    parts: dict[str, dict[str, float | None]] = {
        SCORE: {name: _score(run, name) if name in told else None for name in sets},
        FINAL: {task: transfer.final(run, task) for task in tasks},
        FORGETTING: {task: transfer.forgetting(run, task) for task in left},
        BACKWARD: {task: transfer.backward(run, task) for task in left},
        FORWARD: {task: _forward(record, run, task) for task in alone},
    }
    found = {(measure, item): value for measure, items in parts.items() for item, value in items.items()}
    found |= {(measure, MEAN): _mean(items.values()) for measure, items in parts.items()}
    return found | {(COST, item): float(getattr(run, item)) for item in ("passes", "tokens", "seconds")}


def _mean(values: Iterable[float | None]) -> float | None:
    items = list(values)
    known = [value for value in items if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(items) else None


def _score(run: Run, dataset: str) -> float | None:
    return _mean(run.scores[dataset].known.values()) if dataset in run.scores else None


def _scored(dataset: str, runs: Sequence[Run]) -> Scored | None:
    scored = {run.seed: run.scores[dataset] for run in runs if dataset in run.scores and run.scores[dataset].values}
    if not scored:
        return None
    total = sum(len(one.values) for one in scored.values())
    diverged = total - sum(len(one.known) for one in scored.values())
    spread = variance_components({} if diverged else {seed: list(one.known.values()) for seed, one in scored.items()})
    facts = next((one for one in scored.values() if one.known), next(iter(scored.values())))
    return Scored(facts.metric, facts.split, facts.standing, facts.train, facts.dev, *spread, total, diverged)


def _forward(record: Record, run: Run, task: str) -> float | None:
    """Beside the task from scratch with the run's seed; one stage is one run under every rule, so another's will do."""
    found = {one.restart: one for one in record.scratch if (one.task, one.seed) == (task, run.seed)}
    alone = found.get(run.restart, found.get(MAIN_RULE))
    if alone is None or task not in record.steps:
        return None
    point = min(record.transfer_at * record.steps[task], alone.iterations)
    return transfer.forward(run, alone.heldout, task, point)
