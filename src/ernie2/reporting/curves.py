"""The page's charts as data: what `assets/charts.js` draws, free of anything JSON cannot hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ernie2.reporting.progress import Span, spans, trained
from ernie2.reporting.records_reader import Baseline, HeldOut, Records, Result, Step
from ernie2.wording import decimal

MOST_POINTS = 600
"""A training curve of more lines than this is drawn as means of neighbouring lines."""

Point = tuple[int, float | None]


def charts(records: Records) -> dict[str, Any]:
    """All charts: `steps` (right end of the common axis), `stages`, and `charts` by the id of their place in the page.

    A chart is {"series": [{"role", "x", "y"}], "rules": [{"role", "value", "label"}], "idle": [[from, to]], "form"}.
    A null in `y` is a gap; a step that is absent is passed over.
    """
    placed = spans(records)
    drawn: dict[str, Any] = {}
    for index, task in enumerate(records.run.tasks):
        drawn[f"loss-{index}"] = _loss_chart(records, task.name, placed)
        drawn[f"heldout-{index}"] = _accuracy_chart(records, task.name, placed)
    whole: tuple[tuple[str, str, Callable[[Step], float | None]], ...] = (
        ("lr", "scientific", lambda step: step.lr),
        ("throughput", "count", lambda step: step.tokens_per_second),
        ("gradient", "decimal", lambda step: step.grad_norm),
    )
    for name, form, of in whole:
        points = [(step.step, value) for step in records.steps if (value := of(step)) is not None]
        if any(_finite(value) is not None for _, value in points):
            drawn[name] = {"series": [_series("line", thin(points))], "rules": [], "idle": [], "form": form}
    last = max([span.end for span in placed] + [step.step for step in records.steps], default=0)
    stages = [{"name": span.name, "begin": span.begin, "end": span.end} for span in placed]
    return {"steps": last, "stages": stages, "charts": drawn}


def _loss_chart(records: Records, task: str, placed: Sequence[Span]) -> dict[str, Any]:
    points: list[Point] = []
    weights: list[int] = []
    for step in records.steps:
        if task not in step.loss:
            continue
        if points and _rested(task, points[-1][0], step.step, placed):
            points.append((step.step - 1, None))
            weights.append(0)
        points.append((step.step, step.loss[task]))
        weights.append(max(1, step.count.get(task, 1)))
    before, after = _heldout_points(records, task, lambda result: result.loss)
    cheap = _baseline(records, task, lambda result: result.cheap)
    rules = [_rule("cheap", cheap.loss, cheap.rule or "feature baseline")] if _finite(cheap.loss) is not None else []
    series = [_series("training", thin(points, weights)), _series("before", before), _series("heldout", after)]
    return {"series": series, "rules": rules, "idle": _idle(task, placed), "form": "decimal"}


def _accuracy_chart(records: Records, task: str, placed: Sequence[Span]) -> dict[str, Any]:
    before, after = _heldout_points(records, task, lambda result: result.accuracy)
    bounds = [_heldout_points(records, task, of)[1] for of in (lambda result: result.low, lambda result: result.high)]
    cheap = _baseline(records, task, lambda result: result.cheap)
    constant = _baseline(records, task, lambda result: result.constant)
    rules = [
        _rule(role, baseline.accuracy, label)
        for role, baseline, label in (
            ("cheap", cheap, cheap.rule or "feature baseline"),
            ("majority", constant, "best constant"),
        )
        if _finite(baseline.accuracy) is not None
    ]
    series = [
        _series("low", bounds[0]),
        _series("high", bounds[1]),
        _series("before", before),
        _series("heldout", after),
    ]
    return {"series": series, "rules": rules, "idle": _idle(task, placed), "form": "decimal"}


def _heldout_points(
    records: Records, task: str, of: Callable[[Result], float | None]
) -> tuple[list[Point], list[Point]]:
    """Held-out values before the task's training began, and since."""
    before: list[Point] = []
    after: list[Point] = []
    for evaluation in records.heldout:
        if task in evaluation.tasks and _finite(value := of(evaluation.tasks[task])) is not None:
            (after if _since(records, task, evaluation) else before).append((evaluation.step, value))
    return before, after


def _since(records: Records, task: str, evaluation: HeldOut) -> bool:
    return trained(records.run, task, evaluation)


def _baseline(records: Records, task: str, of: Callable[[Result], Baseline]) -> Baseline:
    """The baseline of the last evaluation that has the task."""
    for evaluation in reversed(records.heldout):
        if task in evaluation.tasks:
            return of(evaluation.tasks[task])
    return Baseline()


def _rule(role: str, value: float | None, label: str) -> dict[str, Any]:
    return {"role": role, "value": value, "label": f"{label.replace('_', ' ')} {decimal(value)}"}


def _idle(task: str, placed: Sequence[Span]) -> list[list[int]]:
    """Steps of the stages that do not train the task."""
    return [[span.begin, span.end] for span in placed if task not in span.active]


def _rested(task: str, earlier: int, later: int, placed: Sequence[Span]) -> bool:
    """Whether a stage without the task lies between two steps."""
    return any(earlier <= begin and end < later for begin, end in _idle(task, placed))


def thin(points: Sequence[Point], weights: Sequence[int] | None = None, most: int = MOST_POINTS) -> list[Point]:
    """At most about `most` points: runs of neighbours become their weighted mean at their last step; gaps stay.

    A mean is over the finite values of its run, and a gap where there is none.
    """
    weigh = list(weights) if weights is not None else [1] * len(points)
    each = math.ceil(len(points) / most)
    thinned: list[Point] = []
    total = weight = 0.0
    taken = 0
    for index, (step, value) in enumerate(points):
        found = _finite(value)
        if found is not None:
            total, weight = total + found * weigh[index], weight + weigh[index]
        taken += 1
        gap_next = index + 1 == len(points) or weigh[index + 1] == 0
        if taken >= each or gap_next or weigh[index] == 0:
            thinned.append((step, total / weight if weight else None))
            total = weight = 0.0
            taken = 0
    return thinned


def _series(role: str, points: Sequence[Point]) -> dict[str, Any]:
    values = [_finite(value) for _, value in points]
    return {
        "role": role,
        "x": [step for step, _ in points],
        "y": [None if value is None else float(f"{value:.6g}") for value in values],
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
