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
from dataclasses import dataclass
from pathlib import Path

import torch

from ernie2.datasets.declared import DATASETS
from ernie2.datasets.examples import LabelledData
from ernie2.errors import DataError
from ernie2.finetuning.inference.predictions import predict_texts
from ernie2.finetuning.jobs import MODEL, Run
from ernie2.finetuning.tuned_folder import Tuned, load_tuned
from ernie2.storage.atomic import write_bytes

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can hold: the same predictions give the same bytes


@dataclass(frozen=True)
class SubmissionFile:
    """One file of the zip: the data set and split it predicts, its rows, and its labels (none: a score from 0 to 5)."""

    dataset: str
    split: str
    rows: int
    labels: tuple[str, ...]


def _file(dataset: str, split: str = "test") -> SubmissionFile:
    declared = DATASETS[dataset]
    return SubmissionFile(dataset, split, declared.splits[split].rows[0], declared.labels)


FILES: dict[str, SubmissionFile] = {
    "CoLA": _file("cola"),
    "SST-2": _file("sst2"),
    "MRPC": _file("mrpc"),
    "STS-B": _file("stsb"),
    "QQP": _file("qqp"),
    "MNLI-m": _file("mnli", "test_matched"),
    "MNLI-mm": _file("mnli", "test_mismatched"),
    "QNLI": _file("qnli"),
    "RTE": _file("rte"),
    "WNLI": _file("wnli"),
    "AX": _file("ax"),
}
"""Name of a file in the zip, without .tsv -> what it holds."""


def check_tests(data: Mapping[str, LabelledData]) -> None:
    """Raises `DataError` with every test file that is not there or not of the official size, before anything is
    trained; `data` holds the sets by name."""
    problems = []
    for name, file in FILES.items():
        split = data[file.dataset].splits.get(file.split) if file.dataset in data else None
        if split is None:
            problems.append(f"{name}: {file.dataset} has no {file.split} split in the folder")
        elif len(split.examples) != file.rows:
            problems.append(
                f"{name}: {len(split.examples):,} rows in {split.files[0]}, the official file has {file.rows:,}"
            )
    if problems:
        raise DataError("a submission to GLUE needs every official test file.\n  " + "\n  ".join(problems))


def submit(
    out: Path, data: Mapping[str, LabelledData], runs: Mapping[str, Sequence[Run]], device: torch.device
) -> dict[str, int]:
    """Write the zip, and return by data set the seed whose run predicted, the best on dev.

    Raises `DataError` where a set has no run with figures.
    """
    chosen: dict[str, int] = {}
    values: dict[str, list[str | float]] = {}
    ids: dict[str, list[str]] = {}
    tuned: dict[str, Tuned] = {}
    for name, file in FILES.items():
        trained_on = DATASETS[file.dataset].trained_on or file.dataset
        if trained_on not in tuned:
            best = best_run(trained_on, runs.get(trained_on, ()))
            tuned = {trained_on: load_tuned(best.folder / MODEL)} | tuned
            chosen[trained_on] = best.seed
        examples = data[file.dataset].splits[file.split].examples
        outcomes = predict_texts(tuned[trained_on], examples, device)
        values[name] = [
            outcome.value if isinstance(outcome.value, float) else str(outcome.value) for outcome in outcomes
        ]
        numbers = [example.id for example in examples]
        if sorted(numbers) == sorted(str(number) for number in range(len(numbers))):
            ids[name] = numbers
    write_submission(out, values, ids)
    return chosen


def best_run(name: str, runs: Sequence[Run]) -> Run:
    """The run with the highest mean over its metrics on dev; the first of equals."""
    scored = [(_dev(run), run) for run in runs]
    scored = [(score, run) for score, run in scored if math.isfinite(score)]
    if not scored:
        raise DataError(f"no run of {name} has figures on dev, so none can predict its test file; see its results.")
    return max(scored, key=lambda pair: pair[0])[1]


def write_submission(
    out: Path, predictions: Mapping[str, Sequence[str | float]], ids: Mapping[str, Sequence[str]] | None = None
) -> None:
    """Write the zip atomically; `predictions` maps a key of `FILES` to class names, or scores for STS-B.

    Scores are clipped to 0–5. `ids` are those of the test files where they are known (they may come in any order),
    else 0 … n-1. Raises `DataError` with everything that is wrong by the server's rules, before anything is written,
    and `StorageError` when it cannot be written.
    """
    tables = {name: _table(name, values, (ids or {}).get(name)) for name, values in predictions.items()}
    problems = [problem for name in (*FILES, *(set(tables) - set(FILES))) for problem in _check(name, tables.get(name))]
    if problems:
        raise DataError(f"{out}: the GLUE server would refuse this submission.\n  " + "\n  ".join(problems))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in FILES:
            content = "".join(f"{index}\t{value}\n" for index, value in [("index", "prediction"), *tables[name]])
            entry = zipfile.ZipInfo(f"{name}.tsv", _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    write_bytes(out, packed.getvalue())


def _table(name: str, values: Sequence[str | float], ids: Sequence[str] | None) -> list[tuple[str, str]]:
    if ids is not None and len(ids) != len(values):
        raise DataError(f"{name}: {len(values)} predictions for {len(ids)} ids; each id needs one.")
    scores = name in FILES and not FILES[name].labels
    shown = [_clipped(value) if scores else str(value) for value in values]
    if ids is None:
        return [(str(number), value) for number, value in enumerate(shown)]
    table = list(zip(ids, shown, strict=True))
    return sorted(table, key=lambda row: int(row[0])) if all(key.isdecimal() for key in ids) else table


def _clipped(value: str | float) -> str:
    score = float(value)
    return f"{min(5.0, max(0.0, score)):.3f}" if math.isfinite(score) else str(score)


def _check(name: str, table: Sequence[tuple[str, str]] | None) -> list[str]:
    if name not in FILES:
        return [f"{name}: not one of the eleven files ({', '.join(FILES)})"]
    expected = FILES[name]
    if table is None:
        return [f"{name}.tsv is missing: predict the {expected.split} split of {expected.dataset}"]
    problems = []
    if len(table) != expected.rows:
        problems.append(f"{name}.tsv: {len(table)} rows, the official test file has {expected.rows}")
    if [index for index, _ in table] != [str(number) for number in range(len(table))]:
        problems.append(f"{name}.tsv: ids are not 0 … {len(table) - 1}, each once and in order")
    if expected.labels:
        wrong = sorted({value for _, value in table if value not in expected.labels})
        problems += [f"{name}.tsv: {one!r} is none of its labels {', '.join(expected.labels)}" for one in wrong[:1]]
    else:
        wrong = [value for _, value in table if not 0 <= float(value) <= 5]
        problems += [f"{name}.tsv: {one!r} is not a number from 0 to 5" for one in wrong[:1]]
    return problems


def _dev(run: Run) -> float:
    figures = [value for split, metrics in run.metrics.items() if split.startswith("dev") for value in metrics.values()]
    return sum(figures) / len(figures) if figures else math.nan
