"""What the forgetting picture of a study shows, as points: held-out accuracy by share of training, a panel a task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ernie2.learned import BASELINES
from ernie2.studies.analysis.reading import MAIN_RULE

LONGEST_LABEL = 21
"""Characters at the end of a line; an arm with a longer title stands there by its name."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Strip:
    """A stage in which an arm trained a task: shares of its training at begin and end, and iterations a step."""

    begin: float
    end: float
    density: float


@dataclass(frozen=True)
class Line:
    """One arm in one panel; `arm` is its place among the arms, `label` short enough for the end of a line.

    Points are (share of training 0–1, accuracy). `ends` are those of `mean` at which a stage ended, `entered` is the
    share at which the task's own training began, `last` the mean over seeds of the accuracy at the end.
    """

    arm: int
    title: str
    label: str
    seeds: Mapping[int, tuple[Point, ...]]
    mean: tuple[Point, ...]
    ends: tuple[Point, ...]
    entered: float
    strips: tuple[Strip, ...]
    last: float


@dataclass(frozen=True)
class Panel:
    """One task: its lines in the order of the arms, and the best baseline's accuracy."""

    title: str
    level: str
    lines: tuple[Line, ...]
    baseline: float | None


def panels(record: Mapping[str, Any]) -> tuple[Panel, ...]:
    """A panel a task, in the record's order, of the runs under the main rule that reached their end.

    An arm without such a run has no line.
    """
    made = []
    for task in record["tasks"]:
        lines = []
        for number, arm in enumerate(record["arms"]):
            runs = [
                run
                for run in record["runs"]
                if (run["arm"], run["restart"]) == (arm["name"], MAIN_RULE) and _finished(run)
            ]
            if line := _line(number, arm, runs, task["name"]):
                lines.append(line)
        made.append(Panel(task["title"], task["level"], tuple(lines), _baseline(record["runs"], task["name"])))
    return tuple(made)


def _line(number: int, arm: Mapping[str, Any], runs: Sequence[Mapping[str, Any]], task: str) -> Line | None:
    seeds = {run["seed"]: points for run in runs if (points := _points(run, task))}
    if not seeds:
        return None
    first = next(run for run in runs if run["seed"] in seeds)
    mean = mean_line(list(seeds.values()))
    total = _length(first)
    ends = {stage["end"] / total for stage in first["stages"]}
    strips = tuple(
        Strip(
            stage["begin"] / total,
            stage["end"] / total,
            min(1.0, stage["tasks"][task] / max(1, stage["end"] - stage["begin"])),
        )
        for stage in first["stages"]
        if stage["tasks"].get(task, 0) > 0
    )
    return Line(
        number,
        arm["title"],
        _label(arm),
        dict(sorted(seeds.items())),
        mean,
        tuple(point for point in mean if any(math.isclose(point[0], end) for end in ends)),
        strips[0].begin if strips else 1.0,
        strips,
        math.fsum(points[-1][1] for points in seeds.values()) / len(seeds),
    )


def _label(arm: Mapping[str, Any]) -> str:
    title = arm["title"] if len(arm["title"]) <= LONGEST_LABEL else arm["name"].replace("_", " ")
    return title if len(title) <= LONGEST_LABEL else f"{title[: LONGEST_LABEL - 1].rstrip()}…"


def _finished(run: Mapping[str, Any]) -> bool:
    """It was evaluated at the end of its last stage: the runs that the analysis takes."""
    last = max(run["heldout"], key=lambda one: (one["step"], one["stage"]), default=None)
    return last is not None and last["at"] == "stage_end" and last["stage"] == len(run["stages"]) - 1


def _points(run: Mapping[str, Any], task: str) -> tuple[Point, ...]:
    """Accuracy by share of the run's training; of several evaluations at a step the last, without unknown ones."""
    total = _length(run)
    found = {
        one["step"] / total: float(one["tasks"][task]["accuracy"])
        for one in run["heldout"]
        if _finite(one["tasks"].get(task, {}).get("accuracy"))
    }
    return tuple(sorted(found.items()))


def _length(run: Mapping[str, Any]) -> int:
    return max(1, int(run["stages"][-1]["end"]))


def mean_line(lines: Sequence[Sequence[Point]]) -> tuple[Point, ...]:
    """The mean of several lines wherever all of them have a value, straight between the places that were measured."""
    shares = sorted({share for line in lines for share, _ in line})
    found = ((share, [_between(line, share) for line in lines]) for share in shares)
    return tuple(
        (share, math.fsum(known) / len(known))
        for share, values in found
        if len(known := [value for value in values if value is not None]) == len(lines)
    )


def _between(line: Sequence[Point], share: float) -> float | None:
    for (x, y), (later, after) in pairwise((line[0], *line)):
        if x <= share <= later:
            return after if later == x else y + (after - y) * (share - x) / (later - x)
    return None


def _baseline(runs: Sequence[Mapping[str, Any]], task: str) -> float | None:
    """The best baseline's accuracy, mean over seeds: it is the same in all runs of a seed, whose held-out instances it
    depends on."""
    by_seed: dict[int, float] = {}
    for run in runs:
        figures = [one["tasks"].get(task, {}) for one in run["heldout"]]
        told = [max(known) for one in figures if (known := [one[key] for key in BASELINES if _finite(one.get(key))])]
        if told:
            by_seed[run["seed"]] = float(told[-1])
    return math.fsum(by_seed.values()) / len(by_seed) if by_seed else None


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
