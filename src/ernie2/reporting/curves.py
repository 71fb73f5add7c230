"""The data of the report's charts, as JSON values for `assets/charts.js`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ernie2.formatting import decimal
from ernie2.reporting.progress import StageSpan, is_trained, stage_spans
from ernie2.reporting.records_reader import Records, Result

MAX_POINTS = 600
"""A training curve with more points is drawn as means of adjacent points."""

Point = tuple[int, float | None]


def charts(records: Records) -> dict[str, Any]:
    """Return `steps` (the end of the common axis), `stages`, and `charts` by the id of their element in the page.

    A chart is {"series": [{"role", "x", "y"}], "rules": [{"role", "value", "label"}], "untrained": [[from, to]],
    "form"}. A null in `y` is a gap in the line; a missing step is not.
    """
    stages = stage_spans(records)
    plots: dict[str, Any] = {}
    for index, task in enumerate(records.run.tasks):
        plots[f"loss-{index}"] = _loss_chart(records, task.name, stages)
        plots[f"heldout-{index}"] = _accuracy_chart(records, task.name, stages)
    for name, key, form in (
        ("lr", "lr", "scientific"),
        ("throughput", "tokens_per_second", "count"),
        ("gradient", "grad_norm", "decimal"),
    ):
        points = [(step.step, value) for step in records.steps if (value := getattr(step, key)) is not None]
        if any(_finite(value) is not None for _, value in points):
            plots[name] = _chart({"line": downsample(points)}, form=form)
    last = max([span.end for span in stages] + [step.step for step in records.steps], default=0)
    places = [{"name": span.name, "begin": span.begin, "end": span.end} for span in stages]
    return {"steps": last, "stages": places, "charts": plots}


def _loss_chart(records: Records, task: str, stages: Sequence[StageSpan]) -> dict[str, Any]:
    points: list[Point] = []
    weights: list[int] = []
    for step in records.steps:
        if task not in step.loss:
            continue
        if points and _paused_between(task, points[-1][0], step.step, stages):
            points.append((step.step - 1, None))
            weights.append(0)
        points.append((step.step, step.loss[task]))
        weights.append(max(1, step.count.get(task, 1)))
    before, after = _heldout_points(records, task, "loss")
    baseline = _last(records, task).feature_baseline
    series = {"training": downsample(points, weights), "before": before, "heldout": after}
    return _chart(
        series, [("feature", baseline.loss, baseline.feature or "feature baseline")], _untrained_spans(task, stages)
    )


def _accuracy_chart(records: Records, task: str, stages: Sequence[StageSpan]) -> dict[str, Any]:
    series = {key: _heldout_points(records, task, key)[1] for key in ("low", "high")}
    series["before"], series["heldout"] = _heldout_points(records, task, "accuracy")
    last = _last(records, task)
    rules = [
        ("feature", last.feature_baseline.accuracy, last.feature_baseline.feature or "feature baseline"),
        ("majority", last.constant_baseline.accuracy, "constant baseline"),
    ]
    return _chart(series, rules, _untrained_spans(task, stages))


def _chart(
    series: Mapping[str, Sequence[Point]],
    rules: Iterable[tuple[str, float | None, str]] = (),
    untrained: Sequence[Sequence[int]] = (),
    form: str = "decimal",
) -> dict[str, Any]:
    """Return a chart. `series`: points by role. `rules`: role, value and label of the horizontal lines, if finite."""
    return {
        "series": [_series(role, points) for role, points in series.items()],
        "rules": [
            {"role": role, "value": value, "label": f"{label.replace('_', ' ')} {decimal(value)}"}
            for role, value, label in rules
            if _finite(value) is not None
        ],
        "untrained": untrained,
        "form": form,
    }


def _heldout_points(records: Records, task: str, key: str) -> tuple[list[Point], list[Point]]:
    """Return the held-out values before and after the task's training began."""
    before: list[Point] = []
    after: list[Point] = []
    for evaluation in records.heldout:
        if task in evaluation.tasks and _finite(value := getattr(evaluation.tasks[task], key)) is not None:
            (after if is_trained(records.run, task, evaluation) else before).append((evaluation.step, value))
    return before, after


def _last(records: Records, task: str) -> Result:
    """Return the last result of the task."""
    return next((one.tasks[task] for one in reversed(records.heldout) if task in one.tasks), Result())


def _untrained_spans(task: str, stages: Sequence[StageSpan]) -> list[list[int]]:
    """Return [begin, end] of the stages that do not train the task."""
    return [[span.begin, span.end] for span in stages if task not in span.active]


def _paused_between(task: str, earlier: int, later: int, stages: Sequence[StageSpan]) -> bool:
    """Return whether a stage without the task lies between two steps."""
    return any(earlier <= begin and end < later for begin, end in _untrained_spans(task, stages))


def downsample(points: Sequence[Point], weights: Sequence[int] | None = None, limit: int = MAX_POINTS) -> list[Point]:
    """Reduce to about `limit` points: groups of adjacent points become their weighted mean at the last step; gaps stay.

    A mean uses the finite values of its group; without any it is a gap.
    """
    weigh = list(weights) if weights is not None else [1] * len(points)
    size = math.ceil(len(points) / limit)
    means: list[Point] = []
    total = weight = 0.0
    count = 0
    for index, (step, value) in enumerate(points):
        finite = _finite(value)
        if finite is not None:
            total, weight = total + finite * weigh[index], weight + weigh[index]
        count += 1
        gap_next = index + 1 == len(points) or weigh[index + 1] == 0
        if count >= size or gap_next or weigh[index] == 0:
            means.append((step, total / weight if weight else None))
            total = weight = 0.0
            count = 0
    return means


def _series(role: str, points: Sequence[Point]) -> dict[str, Any]:
    values = [_finite(value) for _, value in points]
    return {
        "role": role,
        "x": [step for step, _ in points],
        "y": [None if value is None else float(f"{value:.6g}") for value in values],
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
