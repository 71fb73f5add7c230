"""A study → `study.md`, `study.html`, one file that needs nothing else, and its chart `forgetting.svg`.

`assets/study.jinja` lays out both pages. The chart, which study.html holds too, is the held-out accuracy of each task
by share of a run's own training, a line a method, so that methods with fewer encoder passes compare.
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
"""Colours and dashes of lines in the template; a seventh method begins again."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """The mean over seeds of one method, as (share of training 0–1, accuracy); `style` is its place among them."""

    style: int
    title: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Panel:
    """One task: its lines, the best baseline's accuracy, and its axis from `low` to `high` with a tick a `step`."""

    title: str
    lines: tuple[Line, ...]
    baseline: float | None
    low: float
    high: float
    step: float


def render_markdown(analysis: Analysis) -> str:
    """Return the page as Markdown; the same record gives the same text."""
    return render_template("study.md.jinja", template_values(analysis)).strip() + "\n"


def render_html(analysis: Analysis) -> str:
    """Return the page as HTML; the same record gives the same text."""
    settings = json.dumps(analysis.record.settings, indent=2, ensure_ascii=False)
    drawing = Markup(render_svg(analysis.record))
    return render_template("study.html.jinja", template_values(analysis), drawing=drawing, settings=settings)


def render_svg(study: Record) -> str:
    """Return the SVG document, without XML declaration, so that it can stand in a page as it is."""
    titles = [(number % LINE_STYLES, arm.title) for number, arm in enumerate(study.arms)]
    return render_template("forgetting.svg.jinja", panels=list(accuracy_panels(study)), titles=titles)


def accuracy_panels(study: Record) -> Iterator[Panel]:
    """Yield a panel a task, in the record's order, of the runs under the main rule that reached their end."""
    for task in study.tasks:
        lines = []
        for number, arm in enumerate(study.arms):
            of_seeds = [
                points for run in study.finished_runs(arm.name, MAIN_RULE) if (points := _points(run, task.name))
            ]
            if of_seeds:
                lines.append(Line(number % LINE_STYLES, arm.title, mean_line(of_seeds)))
        baseline = _baseline(study.runs, task.name)
        shown = [value for line in lines for _, value in line.points] + ([] if baseline is None else [baseline])
        yield Panel(task.title, tuple(lines), baseline, *axis_range(shown))


def mean_line(lines: Sequence[Sequence[Point]]) -> tuple[Point, ...]:
    """Return the mean of several lines wherever all have a value, straight between the places that were measured."""
    begin, end = max(line[0][0] for line in lines), min(line[-1][0] for line in lines)
    shares = sorted({share for line in lines for share, _ in line if begin <= share <= end})
    means = np.mean([np.interp(shares, *np.array(line).T) for line in lines], axis=0)
    return tuple((share, float(value)) for share, value in zip(shares, means, strict=True))


def axis_range(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the lowest and highest value of an axis and the step of its ticks: round numbers that hold all values."""
    least, most = (min(values), max(values)) if values else (0.0, 1.0)
    step = next((step for step in (0.01, 0.02, 0.05, 0.1) if most - least <= 5 * step), 0.2)
    low, high = math.floor(least / step + 1e-9) * step, math.ceil(most / step - 1e-9) * step
    return low, max(high, low + step), step


def _points(run: Run, task: str) -> tuple[Point, ...]:
    """Accuracy by share of the run's training; of several evaluations at a step the last, without unknown ones."""
    last = max(1, run.heldout[-1].step)
    by_share = {one.step / last: one.tasks[task].accuracy for one in run.heldout if task in one.tasks}
    return tuple((share, value) for share, value in by_share.items() if value is not None)


def _baseline(runs: Sequence[Run], task: str) -> float | None:
    """The best baseline's accuracy, mean over seeds: all runs of a seed share the held-out instances it depends on."""
    by_seed = {
        run.seed: value
        for run in runs
        for one in run.heldout
        if task in one.tasks and (value := one.tasks[task].verdict.baseline_accuracy) is not None
    }
    return math.fsum(by_seed.values()) / len(by_seed) if by_seed else None
