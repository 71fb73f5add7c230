"""Results of the runs on a dataset: values, median or mean and 95 % interval per metric, and the paper's results."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ernie2.config.finetuning_settings import FineTuningSettings
from ernie2.datasets.declarations import Size
from ernie2.datasets.examples import LabelledData
from ernie2.datasets.registry import DATASETS
from ernie2.finetuning.jobs import RunResult, to_json_values
from ernie2.finetuning.paper import paper_comparison, settings_origin, size_for
from ernie2.finetuning.scoring.metrics import CORRELATIONS, majority_scores
from ernie2.reporting.finetuning import percentage
from ernie2.seed_interval import mean_over_seeds

GLUE_TASKS = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli")
"""The tasks of the GLUE score; AX is diagnostic only."""


@dataclass(frozen=True)
class Row:
    """One metric on one split, in percent.

    `values`: by seed; nan for a collapsed seed. `middle`: their median or mean, with collapsed seeds ranked below every
    number; None if that is or includes a collapsed seed, and `withheld` explains it. `low`, `high`: 95 % interval of
    the mean over runs (Student's t), clipped to the range of the metric; None for fewer than two runs, with collapsed
    seeds, and if all values are equal, see `no_interval`. `majority`: majority baseline; None if not measurable.
    """

    split: str
    metric: str
    values: Mapping[int, float]
    middle: float | None
    low: float | None
    high: float | None
    withheld: str = ""
    majority: float | None = None
    no_interval: str = ""


@dataclass(frozen=True)
class DatasetResult:
    """Results on one dataset.

    `provenance`: provenance of the data. `examples`, `files`: number of examples and file names by split. `paper`: the
    paper's results for the same split and model size. `comparison`: notes on comparing with them. `diverged`: by seed,
    why a run has no metrics of a trained model.
    """

    dataset: str
    head: str
    provenance: str
    size: Size
    summary: str
    examples: Mapping[str, int]
    files: Mapping[str, str]
    rows: tuple[Row, ...]
    paper: Mapping[str, tuple[str, ...]]
    comparison: Mapping[str, str]
    diverged: Mapping[int, str]
    settings: FineTuningSettings
    task_id: int
    sequences_per_second: float
    folder: str
    notes: tuple[str, ...] = ()


def summarise_runs(
    data: LabelledData,
    runs: Sequence[RunResult],
    settings: FineTuningSettings,
    shape: tuple[int, int],
    task_id: int,
    folder: Path,
) -> DatasetResult:
    """Summarise the runs on a dataset. `shape`: layers and width of the encoder.

    Only declared datasets have results in the paper.
    """
    rows, paper, comparison = [], {}, {}
    for split in dict.fromkeys(split for run in runs for split in run.metrics):
        measured = {metric for run in runs for metric in run.metrics.get(split, {})}
        majority = majority_scores(data, split)
        rows += [
            _row(split, metric, runs, settings.summary, majority.get(metric))
            for metric in data.metrics
            if metric in measured
        ]
        if data.name in DATASETS:
            reported, note = paper_comparison(data, shape, split)
            paper[split], comparison[split] = tuple(row.describe() for row in reported), note
    rates = [run.sequences_per_second for run in runs if run.sequences_per_second]
    notes = dict.fromkeys(note for split in data.splits.values() for note in split.notes)
    notes |= dict.fromkeys(note for run in runs for note in run.notes)
    return DatasetResult(
        dataset=data.name,
        head=data.head,
        provenance=data.provenance,
        size=size_for(shape[0]),
        summary=settings.summary,
        examples={name: len(split.examples) for name, split in data.splits.items()},
        files={
            name: ", ".join(file.replace("\\", "/").rpartition("/")[2] for file in split.files)
            for name, split in data.splits.items()
        },
        rows=tuple(rows),
        paper=paper,
        comparison=comparison,
        diverged={run.seed: run.diverged for run in runs if run.diverged},
        settings=settings.model_copy(update={"runs": len(runs)}),
        task_id=task_id,
        sequences_per_second=round(statistics.median(rates), 1) if rates else 0.0,
        folder=str(folder),
        notes=tuple(notes),
    )


def dev_glue_score(results: Sequence[DatasetResult]) -> tuple[float | None, str]:
    """Return (GLUE score on development data, why it is withheld or '').

    The score is None unless all nine tasks were run and every metric has a median.
    """
    rows = {
        one.dataset: [row for row in one.rows if row.split.startswith("dev")]
        for one in results
        if one.dataset in GLUE_TASKS
    }
    if not all(name in rows for name in GLUE_TASKS):
        return None, ""
    withheld = [f"{name} has no results, as every seed diverged" for name in GLUE_TASKS if not rows[name]]
    withheld += [f"{name} {row.metric} has {row.withheld}" for name in GLUE_TASKS for row in rows[name] if row.withheld]
    if withheld:
        return None, "no GLUE score: " + "; ".join(withheld)
    return glue_score({name: [row.middle or 0.0 for row in dev] for name, dev in rows.items()}), ""


def glue_score(results: Mapping[str, Sequence[float]]) -> float:
    """Return the GLUE score: the mean over the nine tasks, in percent, as in Table 5 of the paper.

    `results`: values of each task, averaged if there are several (two metrics, or both halves of MNLI). WNLI counts, AX
    does not. Raises `KeyError` if a task is missing.
    """
    return sum(sum(results[name]) / len(results[name]) for name in GLUE_TASKS) / len(GLUE_TASKS)


def format_result(one: DatasetResult) -> list[str]:
    """Return the printed lines of a dataset: one per metric, then the paper's results, divergences and notes."""
    counts = ", ".join(f"{split} {count:,} of {one.files[split]}" for split, count in one.examples.items())
    lines = [f"{one.dataset} ({one.provenance}, {settings_origin(one.dataset, one.size)}, {counts})"]
    width = max((len(f"{row.split} {row.metric}") for row in one.rows), default=0)
    for row in one.rows:
        name = f"{row.split} {row.metric}".ljust(width)
        each = " ".join(percentage(value) for value in row.values.values())
        middle = row.withheld or f"{one.summary} {percentage(row.middle)}"
        interval = row.no_interval
        if row.low is not None:
            interval = f"95 % CI of the mean {percentage(row.low)} to {percentage(row.high)}"
        majority = "" if row.majority is None else f"majority {percentage(row.majority)}"
        lines.append(f"  {name}  {', '.join(filter(None, (middle, interval, majority)))}   each: {each}")
    for split, note in one.comparison.items():
        lines += [f"  paper, {line}" for line in one.paper[split]]
        lines.append(f"  {split}: {note}")
    lines += [f"  seed {seed} {why}" for seed, why in one.diverged.items()]
    lines += [f"  note: {note}" for note in one.notes]
    return lines


def build_record(results: Sequence[DatasetResult], **info: Any) -> dict[str, Any]:
    """Return the contents of results.json as JSON values; non-finite numbers become null."""
    score, withheld = dev_glue_score(results)
    scores = {"glue_score": score, "glue_withheld": withheld}
    return {
        **info,
        **scores,
        "datasets": [
            to_json_values(
                asdict(one)
                | {"settings": one.settings.model_dump(), "settings_from": settings_origin(one.dataset, one.size)}
            )
            for one in results
        ],
    }


def _row(split: str, metric: str, runs: Sequence[RunResult], summary: str, majority: float | None) -> Row:
    values = {run.seed: run.metrics.get(split, {}).get(metric, math.nan) for run in runs}
    finite = [value for value in values.values() if math.isfinite(value)]
    collapsed = len(values) - len(finite)
    middle = low = high = None
    note = ""
    if summary == "median":
        ranked = statistics.median(sorted([*finite, *[-math.inf] * collapsed]))
        middle = ranked if math.isfinite(ranked) else None
    elif not collapsed:
        middle = statistics.fmean(finite)
    if not collapsed and len(finite) > 1:
        interval = mean_over_seeds(finite, -100.0 if metric in CORRELATIONS else 0.0, 100.0)
        low, high, note = interval.low, interval.high, interval.note
    withheld = "" if middle is not None else f"no {summary}: {collapsed} of {len(values)} seeds collapsed"
    return Row(split, metric, values, middle, low, high, withheld, majority, note)
