"""Compare the final held-out accuracy of each task across runs.

Runs that differ only in the seed form one column; other sampling or numerics rules are a difference. For a run that
extends another, "before" is the accuracy of the finished run and "change" the difference after the extension. It is
computed per run, so that differences between seeds do not add to its interval.
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
"""Keys of a recipe that may differ within a column."""


@dataclass(frozen=True)
class Column:
    """Runs that differ only in the seed."""

    label: str
    runs: tuple[Records, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The sorted seeds of the runs."""
        return tuple(sorted(records.run.seed for records in self.runs))


@dataclass(frozen=True)
class Cell:
    """A task at the end of a column's runs; `change`: the difference since before the extension, for extensions."""

    after: Estimate
    change: Estimate | None


@dataclass(frozen=True)
class Row:
    """One task in all columns, with the accuracy of its best `baseline` and `before`, that of the runs extended.

    Intervals over several seeds are Student's t. That of one run is from its held-out evaluation; its change has none.
    """

    task: TaskRecord
    baseline: float | None
    before: Estimate | None
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class Comparison:
    """The table; `same_text`: whether all runs were evaluated on the same held-out documents."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    same_text: bool

    @property
    def extended(self) -> bool:
        """Whether any run extends another."""
        return any(row.before is not None for row in self.rows)


def compare(runs: Sequence[Records]) -> Comparison:
    """Compare the last held-out accuracy of every task of `runs`; columns are in the order of their first run."""
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
    """Return the result on `task` before this run extended the finished run; None for the new task."""
    extension = records.run.extended_from
    if extension is None:
        return None
    start = next((e for e in records.heldout if e.at == "start" and e.stage == extension.stages), None)
    return start.tasks.get(task) if start is not None and is_trained(records.run, task, start) else None


def _row(task: TaskRecord, columns: Sequence[Column], runs: Sequence[Records]) -> Row:
    finals = [result for records in runs if (result := final_result(records, task.name)) is not None]
    baseline = estimate(dict(enumerate(result.verdict.baseline_accuracy for result in finals)))
    # a finished run that several runs extend counts once
    sources = {
        (records.run.extended_from.run, records.run.extended_from.step): result
        for records in runs
        if records.run.extended_from is not None and (result := result_before(records, task.name)) is not None
    }
    cells = tuple(_cell(column, task.name) for column in columns)
    return Row(task, baseline.mean if baseline else None, _average(sources.values()), cells)


def _cell(column: Column, task: str) -> Cell | None:
    finals = [(records, result) for records in column.runs if (result := final_result(records, task)) is not None]
    after = _average(result for _, result in finals)
    changes = (
        result.accuracy - start.accuracy
        for records, result in finals
        if (start := result_before(records, task)) is not None
        and start.accuracy is not None
        and result.accuracy is not None
    )
    return None if after is None else Cell(after, estimate(dict(enumerate(changes))))


def _average(results: Iterable[Result]) -> Estimate | None:
    by_run = dict(enumerate(results))
    mean = estimate({number: result.accuracy for number, result in by_run.items()})
    if mean is None or len(mean.values) > 1:
        return mean
    (only,) = mean.values
    return replace(mean, low=by_run[only].low, high=by_run[only].high, note="")


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
        return "new task only"
    low, high = min(replayed), max(replayed)
    return f"with replay ({low:,} each)" if low == high else f"with replay ({low:,} to {high:,} each)"
