"""Render a study as `study.md`, as `study.html`, a self-contained page, and as the chart `forgetting.svg`.

Both pages use `assets/study.jinja`. The chart, also part of study.html, shows the held-out accuracy of each task, one
line per method. Its axis is the share of the run's steps, so that methods with fewer encoder passes are comparable.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from ernie2.reporting.report import render_template
from ernie2.studies.analysis.analyse import Analysis
from ernie2.studies.analysis.schema import MAIN_RULE, Record, Run
from ernie2.studies.analysis.tables import template_values

LINE_STYLES = 6
"""Number of line styles in the template; a seventh method repeats the first."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """The mean over seeds of one method, as (share of training 0–1, accuracy); `style` is its line style."""

    style: int
    title: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Panel:
    """One task: its lines, the accuracy of the best baseline, and its axis from `low` to `high` with ticks every
    `step`."""

    title: str
    lines: tuple[Line, ...]
    baseline: float | None
    low: float
    high: float
    step: float


def render_markdown(analysis: Analysis) -> str:
    """Return the page as Markdown; the output is deterministic."""
    return render_template("study.md.jinja", template_values(analysis)).strip() + "\n"


def render_html(analysis: Analysis) -> str:
    """Return the page as HTML; the output is deterministic."""
    settings = json.dumps(analysis.record.settings, indent=2, ensure_ascii=False)
    drawing = Markup(render_svg(analysis.record))
    return render_template("study.html.jinja", template_values(analysis), drawing=drawing, settings=settings)


def render_svg(study: Record) -> str:
    """Return the chart as SVG, without XML declaration, so that it can be embedded in a page."""
    titles = [(number % LINE_STYLES, method.title) for number, method in enumerate(study.methods)]
    return render_template("forgetting.svg.jinja", panels=list(accuracy_panels(study)), titles=titles)


def accuracy_panels(study: Record) -> Iterator[Panel]:
    """Yield one panel per task, in the order of the record, from the finished runs under the main rule."""
    for task in study.tasks:
        lines = []
        for number, method in enumerate(study.methods):
            of_seeds = [
                points for run in study.finished_runs(method.name, MAIN_RULE) if (points := _points(run, task.name))
            ]
            if of_seeds:
                lines.append(Line(number % LINE_STYLES, method.title, mean_line(of_seeds)))
        baseline = _baseline(study.runs, task.name)
        values = [value for line in lines for _, value in line.points] + ([] if baseline is None else [baseline])
        yield Panel(task.title, tuple(lines), baseline, *axis_range(values))


def mean_line(lines: Sequence[Sequence[Point]]) -> tuple[Point, ...]:
    """Return the mean of several lines where all have a value, interpolated linearly between points."""
    begin, end = max(line[0][0] for line in lines), min(line[-1][0] for line in lines)
    shares = sorted({share for line in lines for share, _ in line if begin <= share <= end})
    means = np.mean([np.interp(shares, *np.array(line).T) for line in lines], axis=0)
    return tuple((share, float(value)) for share, value in zip(shares, means, strict=True))


def axis_range(values: Sequence[float]) -> tuple[float, float, float]:
    """Return low end, high end and tick step of an axis: round numbers that enclose all values."""
    least, most = (min(values), max(values)) if values else (0.0, 1.0)
    step = next((step for step in (0.01, 0.02, 0.05, 0.1) if most - least <= 5 * step), 0.2)
    low, high = math.floor(least / step + 1e-9) * step, math.ceil(most / step - 1e-9) * step
    return low, max(high, low + step), step


def _points(run: Run, task: str) -> tuple[Point, ...]:
    """Return accuracy by share of the run's steps: the last evaluation at each step, without missing values."""
    last = max(1, run.heldout[-1].step)
    by_share = {one.step / last: one.tasks[task].accuracy for one in run.heldout if task in one.tasks}
    return tuple((share, value) for share, value in by_share.items() if value is not None)


def _baseline(runs: Sequence[Run], task: str) -> float | None:
    """Return the accuracy of the best baseline, mean over seeds; runs of one seed have the same held-out instances."""
    by_seed = {
        run.seed: value
        for run in runs
        for one in run.heldout
        if task in one.tasks and (value := one.tasks[task].verdict.baseline_accuracy) is not None
    }
    return math.fsum(by_seed.values()) / len(by_seed) if by_seed else None
