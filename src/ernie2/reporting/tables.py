"""The rows of the report's tables: forgetting matrix, final results, usable documents."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ernie2.learned import LEARNED, NOT_TRAINED, TOO_FEW, VerdictWord
from ernie2.reporting.progress import final_result, is_trained, stage_ends
from ernie2.reporting.records_reader import Records, Result
from ernie2.training.run_record import TaskRecord, UsableRecord


@dataclass(frozen=True)
class MatrixCell:
    """A task's held-out accuracy after a stage, compared with the best baseline."""

    result: Result
    zero_shot: bool
    """The task had not been trained yet."""
    side: str
    """"above" or "below" if the entire interval is above or below the best baseline; "level" otherwise, and with too
    few instances."""
    shade: float
    """0 to 1: the distance to the best baseline as a share of the row's largest in the same direction; 0 for
    zero-shot."""


@dataclass(frozen=True)
class MatrixRow:
    """One task after each stage; None for a stage without evaluation."""

    task: TaskRecord
    cells: tuple[MatrixCell | None, ...]
    forgetting: float | None
    """Best accuracy at a stage's end since the task was introduced, minus the last one; None for fewer than two."""
    clear: bool
    """Whether the best accuracy lies above the interval of the last one."""


def forgetting_matrix(records: Records) -> tuple[MatrixRow, ...]:
    """Return the held-out accuracy of each task (rows) at the end of each stage (columns)."""
    ends = stage_ends(records)
    rows = []
    for task in records.run.tasks:
        results = {index: end.tasks[task.name] for index, end in ends.items() if task.name in end.tasks}
        zero_shot = {index: not is_trained(records.run, task.name, ends[index]) for index in results}
        gains = {index: 0.0 if zero_shot[index] else _gain(result) for index, result in results.items()}
        cells = tuple(
            MatrixCell(results[index], zero_shot[index], _side(results[index]), _shade(gains[index], gains.values()))
            if index in results
            else None
            for index in range(len(records.run.stages))
        )
        trained = [results[index] for index in sorted(results) if not zero_shot[index]]
        since = [result for result in trained if _is_finite(result.accuracy)]
        rows.append(MatrixRow(task, cells, *_forgetting(since)))
    return tuple(rows)


def _forgetting(since: list[Result]) -> tuple[float | None, bool]:
    if len(since) < 2:
        return None, False
    last = since[-1]
    best = max(result.accuracy or 0.0 for result in since)
    return best - (last.accuracy or 0.0), last.high is not None and best > last.high


def _gain(result: Result) -> float:
    baseline = result.verdict.baseline_accuracy
    return 0.0 if result.accuracy is None or baseline is None else result.accuracy - baseline


def _side(result: Result) -> str:
    verdict = result.verdict
    if verdict.word == LEARNED:
        return "above"
    if verdict.word == TOO_FEW or verdict.baseline_accuracy is None or result.high is None:
        return "level"
    return "below" if result.high < verdict.baseline_accuracy else "level"


def _shade(gain: float, gains: Iterable[float]) -> float:
    same = [abs(other) for other in gains if other * gain > 0]
    return abs(gain) / max(same) if same else 0.0


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def final_rows(records: Records) -> list[tuple[TaskRecord, Result | None, VerdictWord]]:
    """Return each task, its last held-out result (None before any) and its verdict."""
    results = ((task, final_result(records, task.name)) for task in records.run.tasks)
    return [(task, result, NOT_TRAINED if result is None else result.verdict.word) for task, result in results]


def usable_rows(records: Records) -> list[tuple[str, Mapping[str, UsableRecord]]]:
    """Return titles of tasks with their usable documents by corpus, in the order of the run's tasks, then others."""
    usable, titles = records.run.data.usable, {task.name: task.title for task in records.run.tasks}
    return [(titles.get(name, name), usable[name]) for name in dict.fromkeys((*titles, *usable)) if name in usable]
