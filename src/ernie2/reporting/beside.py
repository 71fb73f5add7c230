"""Runs side by side: what each task kept, seeds taken together.

Runs that differ in nothing but the seed are one column; other rules of sampling or numerics are a difference. Of a run
that extends another, "before" is what the finished run had reached and "change" what the extension made of it, told
apart run by run, so that seeds do not blur it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ernie2.reporting.progress import final, trained
from ernie2.reporting.records_reader import HeldOut, Records, Result
from ernie2.seed_interval import SeedInterval, over_seeds
from ernie2.training.run_record import RunRecord, TaskRecord

_APART = ("name", "about", "run", "seed", "shards", "corpora")
"""Keys of a recipe in which runs of one column may differ."""


@dataclass(frozen=True)
class Spread(SeedInterval):
    """A figure over runs, with the value of each; `note` says that all seeds agree, so that there is no interval."""

    values: tuple[float, ...]


@dataclass(frozen=True)
class Column:
    """Runs that differ in nothing but the seed."""

    label: str
    runs: tuple[Records, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Their seeds, sorted."""
        return tuple(sorted(records.run.seed for records in self.runs))


@dataclass(frozen=True)
class Cell:
    """A task at the end of a column's runs; `change` since before the extension, where they are extensions."""

    after: Spread
    change: Spread | None


@dataclass(frozen=True)
class Row:
    """One task over the columns: accuracy of its best `baseline`, `before` of the finished runs extended.

    Intervals over several seeds are Student's t; of one run that of its held-out evaluation, for a difference none.
    """

    task: TaskRecord
    baseline: float | None
    before: Spread | None
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class Comparison:
    """The table; `same_text` tells whether all runs were evaluated on the same held-out documents."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    same_text: bool

    @property
    def extended(self) -> bool:
        """Whether any of the runs extends another."""
        return any(row.before is not None for row in self.rows)


def compare(runs: Sequence[Records]) -> Comparison:
    """Sets the last held-out accuracy of every task of `runs` side by side, columns in the order of their first run."""
    grouped: dict[str, list[Records]] = {}
    for records in runs:
        grouped.setdefault(_key(records.run), []).append(records)
    columns: list[Column] = []
    for group in grouped.values():
        label = _label(group[0].run)
        same = sum(column.label.partition(" · ")[0] == label for column in columns)
        columns.append(Column(f"{label} · {same + 1}" if same else label, tuple(group)))
    tasks = {task.name: task for records in runs for task in records.run.tasks}
    rows = [_row(task, columns, runs) for task in tasks.values()]
    same_text = len({records.run.data.fingerprint for records in runs}) == 1
    return Comparison(tuple(columns), tuple(row for row in rows if any(row.cells)), same_text)


def before(records: Records, task: str) -> Result | None:
    """What the finished run had reached on `task` before this run extended it; None for the task that came."""
    evaluation = _start(records)
    if evaluation is None or not trained(records.run, task, evaluation):
        return None
    return evaluation.tasks.get(task)


def spread_of(values: Sequence[float]) -> Spread:
    """Mean and 95 % interval of one value a seed; no interval of a single value, and where all seeds agree."""
    found = over_seeds(values)
    return Spread(found.mean, found.low, found.high, found.note if len(values) > 1 else "", tuple(values))


def _row(task: TaskRecord, columns: Sequence[Column], runs: Sequence[Records]) -> Row:
    ends = [result for records in runs if (result := final(records, task.name)) is not None]
    baselines = [value for result in ends if (value := result.verdict.baseline_accuracy) is not None]
    # a finished run that several runs extend counts once
    sources = {
        (records.run.extended_from.run, records.run.extended_from.step): found
        for records in runs
        if records.run.extended_from is not None and (found := before(records, task.name)) is not None
    }
    return Row(
        task,
        math.fsum(baselines) / len(baselines) if baselines else None,
        _spread(sources.values()),
        tuple(_cell(column, task.name) for column in columns),
    )


def _cell(column: Column, task: str) -> Cell | None:
    ends = [(records, result) for records in column.runs if (result := final(records, task)) is not None]
    after = _spread(result for _, result in ends)
    if after is None:
        return None
    changes = [
        result.accuracy - start.accuracy
        for records, result in ends
        if (start := before(records, task)) is not None and start.accuracy is not None and result.accuracy is not None
    ]
    return Cell(after, spread_of(changes) if changes else None)


def _spread(results: Iterable[Result]) -> Spread | None:
    known = [(result, value) for result in results if (value := result.accuracy) is not None and math.isfinite(value)]
    if not known:
        return None
    spread = spread_of([value for _, value in known])
    only = known[0][0]
    return spread if len(known) > 1 else replace(spread, low=only.low, high=only.high)


def _start(records: Records) -> HeldOut | None:
    """The evaluation before the first step of an extension."""
    extension = records.run.extended_from
    if extension is None:
        return None
    starts = (e for e in records.heldout if e.at == "start" and e.stage == extension.stages)
    return next(starts, None)


def _key(run: RunRecord) -> str:
    recipe: dict[str, Any] = {key: value for key, value in run.recipe.items() if key not in _APART}
    return json.dumps([recipe, run.rules, [stage.iterations for stage in run.stages]], sort_keys=True)


def _label(run: RunRecord) -> str:
    extension = run.extended_from
    if extension is None:
        return run.name
    trained_now = run.stages[extension.stages].iterations
    replayed = [count for task, count in trained_now.items() if task != extension.task]
    if not replayed:
        return "new task alone"
    low, high = min(replayed), max(replayed)
    return f"with replay ({low:,} each)" if low == high else f"with replay ({low:,} to {high:,} each)"
