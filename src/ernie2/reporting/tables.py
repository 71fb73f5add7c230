"""The page's tables as plain rows: the forgetting matrix, the final figures, the usable data."""

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
    """A task's held-out accuracy after a stage, and how it stands to the best baseline."""

    result: Result
    zero_shot: bool
    """The task had not been trained yet."""
    side: str
    """"above" or "below" the best baseline with the whole interval, else "level", also with too few instances."""
    shade: float
    """Above: share of the row's best gain over the best baseline. Below: the share of its deepest gap. Zero-shot: 0."""


@dataclass(frozen=True)
class MatrixRow:
    """One task after each stage; None where it was not evaluated."""

    task: TaskRecord
    cells: tuple[MatrixCell | None, ...]
    forgetting: float | None
    """Best accuracy at a stage's end since the task was introduced, minus the last one; None below two such ends."""
    clear: bool
    """The best lies above the whole interval of the last one."""


def forgetting_matrix(records: Records) -> tuple[MatrixRow, ...]:
    """Held-out accuracy of each task (rows) at the end of each stage (columns)."""
    ends = stage_ends(records)
    rows = []
    for task in records.run.tasks:
        found = {index: end.tasks[task.name] for index, end in ends.items() if task.name in end.tasks}
        shot = {index: not is_trained(records.run, task.name, ends[index]) for index in found}
        gains = {index: 0.0 if shot[index] else _gain(result) for index, result in found.items()}
        cells = tuple(
            MatrixCell(found[index], shot[index], _side(found[index]), _shade(gains[index], gains.values()))
            if index in found
            else None
            for index in range(len(records.run.stages))
        )
        since = [found[index] for index in sorted(found) if not shot[index] and _is_finite(found[index].accuracy)]
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
    found = result.verdict
    if found.word == LEARNED:
        return "above"
    if found.word == TOO_FEW or found.baseline_accuracy is None or result.high is None:
        return "level"
    return "below" if result.high < found.baseline_accuracy else "level"


def _shade(gain: float, gains: Iterable[float]) -> float:
    same = [abs(other) for other in gains if other * gain > 0]
    return abs(gain) / max(same) if same else 0.0


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def final_rows(records: Records) -> list[tuple[TaskRecord, Result | None, VerdictWord]]:
    """Each task, its last held-out result (None before any) and the word for how it stands."""
    ends = ((task, final_result(records, task.name)) for task in records.run.tasks)
    return [(task, result, NOT_TRAINED if result is None else result.verdict.word) for task, result in ends]


def usable_rows(records: Records) -> list[tuple[str, Mapping[str, UsableRecord]]]:
    """Title of a task and its usable documents by corpus, in the order of the run's tasks, then any others."""
    usable, titles = records.run.data.usable, {task.name: task.title for task in records.run.tasks}
    return [(titles.get(name, name), usable[name]) for name in dict.fromkeys((*titles, *usable)) if name in usable]
