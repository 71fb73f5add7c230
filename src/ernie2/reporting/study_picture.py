"""The forgetting picture of a study: held-out accuracy of every task while training went on, as one SVG written here.

A panel a task, a line an arm: the mean over pre-training seeds, with a faint line for each seed. The horizontal axis is
the share of a run's own training, so that arms with fewer encoder passes compare; strips under a panel show in which
stages each arm trained the task, the darker the more of its steps. Needs nothing else, in light and in dark.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ernie2.reporting.report import ASSETS
from ernie2.reporting.study_curves import Line, Panel, Point, panels
from ernie2.reporting.wording import decimal

PANEL, PLOT_WIDTH, PLOT_HEIGHT = 540, 308, 190
LEFT, TOP, STRIP, MARGIN = 42, 30, 6, 12
"""Where the plot begins in its panel, the height of an arm's strip, and the paper around all panels; all in units
of the picture (about pixels)."""

MARKS = ("M-3.4 0a3.4 3.4 0 1 0 6.8 0a3.4 3.4 0 1 0 -6.8 0z", "M-3 -3h6v6h-6z", "M0 -4.2l4.2 4.2l-4.2 4.2l-4.2 -4.2z",
         "M0 -4.2l4 7h-8z", "M0 4.2l4 -7h-8z", "M-4 -1.2h8v2.4h-8z")  # fmt: skip
"""What marks a stage's end on the line of each arm, in their order; a seventh arm begins again, as in the CSS."""


def style() -> str:
    """The CSS of the picture; it also gives whatever has the class `arm-0`, `arm-1` … the colour `--arm` of its arm."""
    return (ASSETS / "study_picture.css").read_text(encoding="utf-8")


def picture(record: Mapping[str, Any]) -> str:
    """The whole picture as an SVG document without XML declaration, so that it can stand in a page as it is.

    The same record gives the same text. Raises `KeyError` or `TypeError` where the record is not of its schema.
    """
    drawn = panels(record)
    arms = [(number % len(MARKS), arm["title"]) for number, arm in enumerate(record["arms"])]
    columns = min(2, len(drawn)) or 1
    legend, legend_height = _legend(arms, any(panel.baseline is not None for panel in drawn), columns * PANEL)
    tall = TOP + PLOT_HEIGHT + STRIP * len(arms) + 60
    wide = columns * PANEL + 2 * MARGIN
    high = legend_height + tall * math.ceil(len(drawn) / columns) - 22 + 2 * MARGIN
    body = [
        f'<g transform="translate({place % columns * PANEL} {legend_height + place // columns * tall})">'
        f"{_panel(panel, len(arms))}</g>"
        for place, panel in enumerate(drawn)
    ]
    told = "; ".join(
        f"{panel.title}: " + (", ".join(f"{line.title} {decimal(line.last)}" for line in panel.lines) or "not measured")
        for panel in drawn
    )
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="forgetting-picture" role="img" '
            f'viewBox="{-MARGIN} {-MARGIN} {wide} {high}" aria-labelledby="forgetting-title forgetting-desc">',
            '<title id="forgetting-title">Held-out accuracy of each task over training</title>',
            f'<desc id="forgetting-desc">Accuracy at the end, mean over pre-training seeds. {_text(told)}.</desc>',
            f"<style>\n{style()}</style>",
            f'<rect class="paper" x="{-MARGIN}" y="{-MARGIN}" width="{wide}" height="{high}"/>',
            legend,
            *body,
            "</svg>\n",
        )
    )


def _legend(arms: Sequence[tuple[int, str]], baseline: bool, width: int) -> tuple[str, int]:
    """The key above the panels and its height; entries that do not fit go on the next line."""
    made, x, y = [], 0.0, 16
    entries = [(f"arm-{number}", title, number) for number, title in arms]
    for name, title, number in [*entries, *([("ruled", "best baseline", None)] if baseline else [])]:
        wide = 46 + _width(title) + 20
        if x and x + wide > width:
            x, y = 0.0, y + 20
        line = "mean" if number is not None else "rule"
        mark = f'<path class="mark" transform="translate(18 0)" d="{MARKS[number]}"/>' if number is not None else ""
        made.append(
            f'<g class="{name}" transform="translate({_n(x)} {y})"><path class="{line}" d="M0 0H36"/>{mark}'
            f'<text class="key" x="43" y="4">{_text(title)}</text></g>'
        )
        x += wide
    note = f'<text class="soft" x="0" y="{y + 24}">Thick: mean over seeds, marked where a stage ends. Faint: one seed. '
    note += "Pale: before the task’s own training began. Strips: when each arm trained the task.</text>"
    return "\n".join((*made, note)), y + 46


def _panel(panel: Panel, arms: int) -> str:
    low, high, step = scale(panel)
    bottom = TOP + PLOT_HEIGHT
    parts = [
        f'<text class="name" x="0" y="14">{_text(panel.title)}'
        f'<tspan class="soft level" dx="8">{_text(panel.level)} level, held-out accuracy</tspan></text>'
    ]
    for number in range(round((high - low) / step) + 1):
        value = low + number * step
        parts.append(
            f'<path class="grid" d="M{LEFT} {_n(_y(value, low, high))}h{PLOT_WIDTH}"/><text class="soft tick-y" '
            f'x="{LEFT - 6}" y="{_n(_y(value, low, high) + 4)}">{decimal(value, _digits(step))}</text>'
        )
    foot = bottom + 12 + STRIP * arms + 14
    parts += [
        f'<path class="grid" d="M{_n(_x(quarter / 4))} {bottom}v4"/>'
        f'<text class="soft tick-x" x="{_n(_x(quarter / 4))}" y="{foot}">{25 * quarter} %</text>'
        for quarter in range(5)
    ]
    parts.append(f'<text class="soft" x="{LEFT + PLOT_WIDTH + 23}" y="{foot}">of its training</text>')
    if panel.baseline is not None:
        parts.append(f'<path class="ruled rule" d="M{LEFT} {_n(_y(panel.baseline, low, high))}h{PLOT_WIDTH}"/>')
    for row, line in enumerate(panel.lines):
        parts.append(_strips(line, bottom + 8 + row * STRIP))
    parts += [_seeds(line, low, high) for line in panel.lines]
    parts += [_mean(line, low, high) for line in panel.lines]
    if not panel.lines:
        parts.append(f'<text class="soft" x="{LEFT + 12}" y="{TOP + PLOT_HEIGHT // 2}">not measured yet</text>')
    return "\n".join((*parts, _end_labels(panel, low, high)))


def _strips(line: Line, y: int) -> str:
    bars = "".join(
        f'<rect x="{_n(_x(strip.begin))}" y="{y}" width="{_n(max(1.0, _x(strip.end) - _x(strip.begin) - 1))}" '
        f'height="{STRIP - 2}" opacity="{_n(0.25 + 0.75 * strip.density)}"/>'
        for strip in line.strips
    )
    return f'<g class="{_arm(line)} strip"><title>{_text(line.title)}: when it trained the task</title>{bars}</g>'


def _seeds(line: Line, low: float, high: float) -> str:
    if len(line.seeds) < 2:
        return ""
    return "".join(
        f'<path class="{_arm(line)} seed" d="{path(points, low, high)}"><title>{_text(line.title)}, seed {seed}: '
        f"{decimal(points[-1][1])} at the end</title></path>"
        for seed, points in line.seeds.items()
    )


def _mean(line: Line, low: float, high: float) -> str:
    mark = MARKS[line.arm % len(MARKS)]
    before = [point for point in line.mean if point[0] <= line.entered + 1e-9]
    since = [point for point in line.mean if point[0] >= line.entered - 1e-9]
    parts = [
        f'<path class="{name}" d="{path(points, low, high)}"/>'
        for name, points in (("zero-shot", before), ("mean", since))
        if len(points) > 1
    ]
    parts += [
        f'<path class="mark" transform="translate({_n(_x(share))} {_n(_y(value, low, high))})" d="{mark}">'
        f"<title>{_text(line.title)}: {decimal(value)} after {100 * share:.0f} % of training</title></path>"
        for share, value in line.ends
        if share >= line.entered - 1e-9
    ]
    return f'<g class="{_arm(line)}">{"".join(parts)}</g>'


def _end_labels(panel: Panel, low: float, high: float) -> str:
    """The last value and name of every line at its right, moved apart where they would cover each other."""
    wanted = [(_arm(line), line.label, line.last, _x(line.mean[-1][0]) if line.mean else _x(1.0))
              for line in panel.lines]  # fmt: skip
    if panel.baseline is not None:
        wanted.append(("ruled", "best baseline", panel.baseline, _x(1.0)))
    wanted.sort(key=lambda entry: -entry[2])
    places = apart([_y(value, low, high) for _, _, value, _ in wanted], 15.0, TOP + 2.0, TOP + PLOT_HEIGHT + 24.0)
    right = LEFT + PLOT_WIDTH
    made = []
    for (name, title, value, x), y in zip(wanted, places, strict=True):
        made.append(
            f'<g class="{name}"><path class="leader" d="M{_n(x + 6)} {_n(_y(value, low, high))}'
            f'L{right + 12} {_n(y)}"/><text class="end" x="{right + 16}" y="{_n(y + 4)}">'
            f'<tspan class="value">{decimal(value)}</tspan> {_text(title)}</text></g>'
        )
    return "\n".join(made)


def apart(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places near the wanted ones, which ascend, at least `gap` apart and within the bounds where there is room."""
    groups: list[list[float]] = []  # each: [sum of wanted places, lines in it]
    for place in wanted:
        groups.append([place, 1])
        while (
            len(groups) > 1
            and _top(groups[-1], gap, low, high) < _top(groups[-2], gap, low, high) + gap * groups[-2][1]
        ):
            total, lines = groups.pop()
            groups[-1] = [groups[-1][0] + total, groups[-1][1] + lines]
    return [_top(group, gap, low, high) + gap * line for group in groups for line in range(int(group[1]))]


def _top(group: Sequence[float], gap: float, low: float, high: float) -> float:
    total, lines = group
    middle = total / lines - gap * (lines - 1) / 2
    return max(low, min(middle, high - gap * (lines - 1)))


def scale(panel: Panel) -> tuple[float, float, float]:
    """Lowest and highest value of a panel's axis and the step of its ticks: round numbers that hold every line."""
    values = [value for line in panel.lines for points in line.seeds.values() for _, value in points]
    values += [panel.baseline] if panel.baseline is not None else []
    least, most = (min(values), max(values)) if values else (0.0, 1.0)
    span = most - least or 0.1
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if span <= 5 * step or step == 1.0)
    low, high = math.floor(least / step + 1e-9) * step, math.ceil(most / step - 1e-9) * step
    return low, high if high > low else low + step, step


def path(points: Sequence[Point], low: float, high: float) -> str:
    """The points as an SVG path in the units of a panel."""
    return "M" + "L".join(f"{_n(_x(share))} {_n(_y(value, low, high))}" for share, value in points)


def _x(share: float) -> float:
    return LEFT + PLOT_WIDTH * share


def _y(value: float, low: float, high: float) -> float:
    return TOP + PLOT_HEIGHT * (high - value) / (high - low)


def _n(value: float) -> str:
    """A coordinate with at most two decimals."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _digits(step: float) -> int:
    return 2 if step < 0.1 else 1


def _width(text: str) -> float:
    """About how wide a text is at the size of the key."""
    return 6.4 * len(text)


def _arm(line: Line) -> str:
    return f"arm-{line.arm % len(MARKS)}"


def _text(value: object) -> str:
    """Escaped for SVG, without the control characters that XML cannot hold."""
    return html.escape(re.sub(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]", "", str(value)))
