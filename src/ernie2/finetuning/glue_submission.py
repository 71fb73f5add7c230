"""From finished runs on all of GLUE to the zip for its server: the run that is best on dev predicts each test file.

The zip holds eleven files: one a task, both halves of MNLI, and AX as the MNLI model predicts it. Each has the line
`index<TAB>prediction`, then a line an example; ids run from 0 in the order of the test file. The server's rules are
checked before anything is written.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ernie2.datasets.examples import LabelledData
from ernie2.datasets.registry import DATASETS
from ernie2.errors import DataError
from ernie2.finetuning.finetuned_model import FinetunedModel, load_finetuned
from ernie2.finetuning.inference.predictions import predict_examples
from ernie2.finetuning.jobs import MODEL, RunResult
from ernie2.finetuning.scoring.metrics import PredictedValue
from ernie2.storage.atomic import write_bytes

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can hold: the same predictions give the same bytes


FILES: dict[str, tuple[str, str]] = {
    "CoLA": ("cola", "test"),
    "SST-2": ("sst2", "test"),
    "MRPC": ("mrpc", "test"),
    "STS-B": ("stsb", "test"),
    "QQP": ("qqp", "test"),
    "MNLI-m": ("mnli", "test_matched"),
    "MNLI-mm": ("mnli", "test_mismatched"),
    "QNLI": ("qnli", "test"),
    "RTE": ("rte", "test"),
    "WNLI": ("wnli", "test"),
    "AX": ("ax", "test"),
}
"""Name of a file in the zip, without .tsv -> the data set and split that it predicts."""


def check_test_files(data: Mapping[str, LabelledData]) -> None:
    """Raises `DataError` with every test file that is not there or not of the official size, before anything is
    trained; `data` holds the sets by name."""
    problems = []
    for name, (dataset, part) in FILES.items():
        split, rows = data[dataset].splits.get(part) if dataset in data else None, official_rows(dataset, part)
        if split is None:
            problems.append(f"{name}: {dataset} has no {part} split in the folder")
        elif len(split.examples) != rows:
            problems.append(f"{name}: {len(split.examples):,} rows in {split.files[0]}, the official file has {rows:,}")
    if problems:
        raise DataError("a submission to GLUE needs every official test file.\n  " + "\n  ".join(problems))


def predict_submission(
    out: Path, data: Mapping[str, LabelledData], runs: Mapping[str, Sequence[RunResult]], device: torch.device
) -> dict[str, int]:
    """Write the zip, and return by data set the seed whose run predicted, the best on dev.

    Raises `DataError` where a set has no run with figures.
    """
    chosen: dict[str, int] = {}
    finetuned: dict[str, FinetunedModel] = {}
    predictions: dict[str, list[PredictedValue]] = {}
    for name, (dataset, part) in FILES.items():
        trained_on = DATASETS[dataset].trained_on or dataset
        if trained_on not in finetuned:
            best = best_run(trained_on, runs.get(trained_on, ()))
            finetuned[trained_on], chosen[trained_on] = load_finetuned(best.folder / MODEL), best.seed
        examples = data[dataset].splits[part].examples
        values = [outcome.value for outcome in predict_examples(finetuned[trained_on], examples, device)]
        predictions[name] = sort_by_id(values, [example.id for example in examples])
    write_submission(out, predictions)
    return chosen


def sort_by_id(values: Sequence[PredictedValue], ids: Sequence[str]) -> list[PredictedValue]:
    """`values` in the order of their ids where these are 0 … n-1 in any order; else as they stand."""
    if sorted(ids) != sorted(str(number) for number in range(len(ids))):
        return list(values)
    by_id = dict(zip(ids, values, strict=True))
    return [by_id[str(number)] for number in range(len(ids))]


def best_run(name: str, runs: Sequence[RunResult]) -> RunResult:
    """The run with the highest mean over its metrics on dev; the first of equals."""
    scored = [run for run in runs if math.isfinite(_dev_mean(run))]
    if not scored:
        raise DataError(f"no run of {name} has figures on dev, so none can predict its test file; see its results.")
    return max(scored, key=_dev_mean)


def write_submission(out: Path, predictions: Mapping[str, Sequence[PredictedValue]]) -> None:
    """Write the zip atomically; `predictions` has class names for every key of `FILES`, or scores for STS-B.

    Scores are clipped to 0–5. Raises `DataError` with everything that is wrong by the server's rules, before anything
    is written, and `StorageError` when it cannot be written.
    """
    problems, packed = [], io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (dataset, part) in FILES.items():
            labels, rows = DATASETS[dataset].labels, official_rows(dataset, part)
            values = [str(value) if labels else _format_score(value) for value in predictions[name]]
            if len(values) != rows:
                problems.append(f"{name}.tsv: {len(values)} rows, the official test file has {rows}")
            if wrong := sorted(
                value for value in set(values) if (value not in labels if labels else not 0 <= float(value) <= 5)
            ):
                of = f"none of its labels {', '.join(labels)}" if labels else "not a number from 0 to 5"
                problems.append(f"{name}.tsv: {wrong[0]!r} is {of}")
            entry = zipfile.ZipInfo(f"{name}.tsv", _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            lines = ["index\tprediction", *(f"{index}\t{value}" for index, value in enumerate(values)), ""]
            archive.writestr(entry, "\n".join(lines))
    if problems:
        raise DataError(f"{out}: the GLUE server would refuse this submission.\n  " + "\n  ".join(problems))
    write_bytes(out, packed.getvalue())


def _format_score(score: Any) -> str:
    return f"{min(5.0, max(0.0, score)):.3f}" if math.isfinite(score) else str(float(score))


def official_rows(dataset: str, split: str) -> int:
    """The rows of the official file of a split."""
    return DATASETS[dataset].splits[split].rows[0]


def _dev_mean(run: RunResult) -> float:
    figures = [value for split, metrics in run.metrics.items() if split.startswith("dev") for value in metrics.values()]
    return sum(figures) / len(figures) if figures else math.nan
