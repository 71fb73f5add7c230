"""The figures of one arm from its finished runs: scores, held-out results, transfer, cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from ernie2.learned import LEARNED
from ernie2.studies.analysis import transfer
from ernie2.studies.analysis.paper_table7 import SETS
from ernie2.studies.analysis.reading import MAIN_RULE, Record, Run, Scratch
from ernie2.studies.analysis.results import Arm, ArmResult, Cost, Score, TaskFigure
from ernie2.studies.analysis.statistics import Estimate, estimate, mean_over, variance_components


def arm_results(record: Record, restart: str) -> tuple[ArmResult, ...]:
    """Every arm that has a finished run under the rule, in the order of the record."""
    runs = [record.finished(arm.name, restart) for arm in record.arms]
    return tuple(_arm(record, found) for found in runs if found)


def data_sets(record: Record) -> tuple[str, ...]:
    """The data sets that any finished run was scored on: the paper's three in its order, then others by name."""
    found = {name for run in record.runs if run.finished for name in run.scores}
    paper = [name for name in SETS if name in found]
    return (*paper, *sorted(found - set(paper)))


def _arm(record: Record, runs: Sequence[Run]) -> ArmResult:
    sets = data_sets(record)
    scores = {name: score for name in sets if (score := _score(name, runs)) is not None}
    tasks = {task.name: _task(record, task.name, task.title, runs) for task in record.tasks}
    last = len(runs[0].stages) - 1
    left = [name for name in tasks if (entry := transfer.entered(runs[0], name)) is not None and entry < last]
    alone = [name for name in tasks if any(one.task == name for one in record.scratch)]
    return ArmResult(
        arm=Arm(runs[0].arm, record.title(runs[0].arm), runs[0].restart, tuple(run.seed for run in runs)),
        scores=tuple(scores.values()),
        mean_score=mean_over([scores[name].estimate if name in scores else None for name in sets]),
        tasks=tuple(figure for figure in tasks.values() if figure is not None),
        heldout=_mean_of(tasks, tasks, lambda figure: figure.final),
        forgetting=_mean_of(tasks, left, lambda figure: figure.forgetting),
        backward=_mean_of(tasks, left, lambda figure: figure.backward),
        forward=_mean_of(tasks, alone, lambda figure: figure.forward),
        cost=_cost(runs),
    )


def _mean_of(
    tasks: Mapping[str, TaskFigure | None], names: Iterable[str], part: Callable[[TaskFigure], Estimate | None]
) -> Estimate | None:
    """Over the named tasks; None where one of them lacks it, so that arms are never compared over different tasks."""
    return mean_over([None if (figure := tasks[name]) is None else part(figure) for name in names])


def _score(dataset: str, runs: Sequence[Run]) -> Score | None:
    scored = {run.seed: run.scores[dataset] for run in runs if dataset in run.scores and run.scores[dataset].values}
    if not scored:
        return None
    finite = {seed: list(one.known.values()) for seed, one in scored.items()}
    total = sum(len(one.values) for one in scored.values())
    if diverged := total - sum(map(len, finite.values())):
        finite = {}  # a mean over the runs that are left would flatter the arm
    parts = variance_components(finite)
    facts = next((one for one in scored.values() if one.known), next(iter(scored.values())))
    return Score(
        dataset=dataset,
        split=facts.split,
        metric=facts.metric,
        standing=facts.standing,
        train=facts.train,
        dev=facts.dev,
        estimate=estimate({seed: math.fsum(values) / len(values) for seed, values in finite.items() if values}),
        pretraining_sd=parts.between,
        finetuning_sd=parts.within,
        runs=total,
        diverged=diverged,
    )


def _task(record: Record, task: str, title: str, runs: Sequence[Run]) -> TaskFigure | None:
    """None where no run has a finite accuracy of the task at its end, and at every end of a stage that counts."""

    def over_seeds(figure: Callable[[Run, str], float | None]) -> Estimate | None:
        return estimate({run.seed: figure(run, task) for run in runs})

    final, best = over_seeds(transfer.final), over_seeds(transfer.best)
    if final is None or best is None:
        return None
    lasts = {run.seed: run.heldout[-1].tasks.get(task) for run in runs}
    verdicts = {seed: last.verdict for seed, last in lasts.items() if last is not None}
    baseline = estimate({seed: found.baseline_accuracy for seed, found in verdicts.items()})
    told = all(last is not None and last.instances is not None for last in lasts.values())
    return TaskFigure(
        task=task,
        title=title,
        final=final,
        loss=estimate({seed: None if last is None else last.loss for seed, last in lasts.items()}),
        best=best,
        baseline=None if baseline is None else baseline.mean,
        learned=sum(found.word == LEARNED for found in verdicts.values()) if told else None,
        forgetting=over_seeds(transfer.forgetting),
        backward=over_seeds(transfer.backward),
        forward=estimate({run.seed: _forward(record, run, task) for run in runs}),
    )


def _forward(record: Record, run: Run, task: str) -> float | None:
    alone = _alone(record, run, task)
    if alone is None or task not in record.steps:
        return None
    point = min(record.transfer_at * record.steps[task], alone.iterations)
    return transfer.forward(run, alone.heldout, task, point)


def _alone(record: Record, run: Run, task: str) -> Scratch | None:
    """The task from scratch with the run's seed; one stage is one run under every rule, so another rule's will do."""
    found = {one.restart: one for one in record.scratch if (one.task, one.seed) == (task, run.seed)}
    return found.get(run.restart, found.get(MAIN_RULE))


def _cost(runs: Sequence[Run]) -> Cost:
    def over_seeds(values: Mapping[int, float]) -> Estimate:
        made = estimate(values)
        assert made is not None  # counts are finite
        return made

    return Cost(
        passes=over_seeds({run.seed: run.passes for run in runs}),
        tokens=over_seeds({run.seed: run.tokens for run in runs}),
        seconds=over_seeds({run.seed: run.seconds for run in runs}),
    )
