"""Write the zip file for the GLUE server: the best run on dev of each task predicts its test file.

The zip holds eleven files: one per task, two for MNLI, and AX predicted by the MNLI model. Each has the header
`index<TAB>prediction` and one line per example, with ids from 0 in the order of the test file. Everything is checked
against the server's rules before writing.
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

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest zip timestamp: equal predictions give equal bytes


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
"""File name in the zip, without .tsv -> dataset and split."""


def check_test_files(data: Mapping[str, LabelledData]) -> None:
    """Raise `DataError` listing every test file that is missing or not of the official size.

    `data`: the datasets by name.
    """
    problems = []
    for name, (dataset, part) in FILES.items():
        split, rows = data[dataset].splits.get(part) if dataset in data else None, official_rows(dataset, part)
        if split is None:
            problems.append(f"{name}: {dataset} has no {part} split in the data folder")
        elif len(split.examples) != rows:
            problems.append(f"{name}: {len(split.examples):,} rows in {split.files[0]}, the official file has {rows:,}")
    if problems:
        raise DataError("a GLUE submission needs every official test file.\n  " + "\n  ".join(problems))


def predict_submission(
    out: Path, data: Mapping[str, LabelledData], runs: Mapping[str, Sequence[RunResult]], device: torch.device
) -> dict[str, int]:
    """Predict all test files, write the zip, and return dataset -> seed of the run used, the best on dev.

    Raises `DataError` if a dataset has no run with dev scores.
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
        values = [prediction.value for prediction in predict_examples(finetuned[trained_on], examples, device)]
        predictions[name] = sort_by_id(values, [example.id for example in examples])
    write_submission(out, predictions)
    return chosen


def sort_by_id(values: Sequence[PredictedValue], ids: Sequence[str]) -> list[PredictedValue]:
    """Return `values` sorted by id if the ids are 0 … n-1 in any order, else unchanged."""
    if sorted(ids) != sorted(str(number) for number in range(len(ids))):
        return list(values)
    by_id = dict(zip(ids, values, strict=True))
    return [by_id[str(number)] for number in range(len(ids))]


def best_run(name: str, runs: Sequence[RunResult]) -> RunResult:
    """Return the run with the highest mean of its dev metrics; ties: the first."""
    scored = [run for run in runs if math.isfinite(_dev_mean(run))]
    if not scored:
        raise DataError(f"no run of {name} has dev scores, so its test file cannot be predicted. See its results.")
    return max(scored, key=_dev_mean)


def write_submission(out: Path, predictions: Mapping[str, Sequence[PredictedValue]]) -> None:
    """Write the zip atomically. `predictions`: class names for each key of `FILES`; for STS-B scores, clipped to 0–5.

    Raises `DataError` listing every violation of the server's rules, before writing, and `StorageError`.
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
                expected = f"one of {', '.join(labels)}" if labels else "a number from 0 to 5"
                problems.append(f"{name}.tsv: {wrong[0]!r} is not {expected}")
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
    """Return the number of rows of the official file of a split."""
    return DATASETS[dataset].splits[split].rows[0]


def _dev_mean(run: RunResult) -> float:
    values = [value for split, metrics in run.metrics.items() if split.startswith("dev") for value in metrics.values()]
    return sum(values) / len(values) if values else math.nan
