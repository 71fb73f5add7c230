"""Runs side by side: what each task kept, seeds taken together.

Runs that differ in nothing but the seed are one column; other rules of sampling or numerics are a difference. Of a run
that extends another, "before" is what the finished run had reached and "change" what the extension made of it, told
apart run by run, so that seeds do not blur it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ernie2.reporting.progress import final_result, is_trained
from ernie2.reporting.records_reader import Records, Result
from ernie2.studies.analysis.statistics import Estimate, estimate
from ernie2.training.run_record import RunRecord, TaskRecord

_IGNORED_KEYS = ("name", "about", "run", "seed", "shards", "corpora")
"""Keys of a recipe in which runs of one column may differ."""


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

    after: Estimate
    change: Estimate | None


@dataclass(frozen=True)
class Row:
    """One task over the columns: accuracy of its best `baseline`, `before` of the finished runs extended.

    Intervals over several seeds are Student's t; of one run that of its held-out evaluation, for a difference none.
    """

    task: TaskRecord
    baseline: float | None
    before: Estimate | None
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
        grouped.setdefault(_column_key(records.run), []).append(records)
    columns: list[Column] = []
    for group in grouped.values():
        label = _label(group[0].run)
        same = sum(column.label.partition(" · ")[0] == label for column in columns)
        columns.append(Column(f"{label} · {same + 1}" if same else label, tuple(group)))
    tasks = {task.name: task for records in runs for task in records.run.tasks}
    rows = [_row(task, columns, runs) for task in tasks.values()]
    same_text = len({records.run.data.fingerprint for records in runs}) == 1
    return Comparison(tuple(columns), tuple(row for row in rows if any(row.cells)), same_text)


def result_before(records: Records, task: str) -> Result | None:
    """What the finished run had reached on `task` before this run extended it; None for the task that came."""
    extension = records.run.extended_from
    if extension is None:
        return None
    start = next((e for e in records.heldout if e.at == "start" and e.stage == extension.stages), None)
    return start.tasks.get(task) if start is not None and is_trained(records.run, task, start) else None


def _row(task: TaskRecord, columns: Sequence[Column], runs: Sequence[Records]) -> Row:
    ends = [result for records in runs if (result := final_result(records, task.name)) is not None]
    baseline = estimate(dict(enumerate(result.verdict.baseline_accuracy for result in ends)))
    # a finished run that several runs extend counts once
    sources = {
        (records.run.extended_from.run, records.run.extended_from.step): found
        for records in runs
        if records.run.extended_from is not None and (found := result_before(records, task.name)) is not None
    }
    cells = tuple(_cell(column, task.name) for column in columns)
    return Row(task, baseline.mean if baseline else None, _average(sources.values()), cells)


def _cell(column: Column, task: str) -> Cell | None:
    ends = [(records, result) for records in column.runs if (result := final_result(records, task)) is not None]
    after = _average(result for _, result in ends)
    changes = (
        result.accuracy - start.accuracy
        for records, result in ends
        if (start := result_before(records, task)) is not None
        and start.accuracy is not None
        and result.accuracy is not None
    )
    return None if after is None else Cell(after, estimate(dict(enumerate(changes))))


def _average(results: Iterable[Result]) -> Estimate | None:
    by_run = dict(enumerate(results))
    found = estimate({number: result.accuracy for number, result in by_run.items()})
    if found is None or len(found.values) > 1:
        return found
    (only,) = found.values
    return replace(found, low=by_run[only].low, high=by_run[only].high, note="")


def _column_key(run: RunRecord) -> str:
    recipe = {key: value for key, value in run.recipe.items() if key not in _IGNORED_KEYS}
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
