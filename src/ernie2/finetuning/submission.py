"""The zip that the GLUE server takes, and the server's rules as a check to run before an upload is spent.

Eleven files: one a task, both halves of MNLI, and AX as the MNLI model predicts it. Each has the line
`index<TAB>prediction`, then a line an example; ids run from 0 in the order of the test file.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ernie2.errors import DataError
from ernie2.storage.atomic import write_bytes

_ZERO_ONE = ("0", "1")
_NLI = ("entailment", "neutral", "contradiction")
_BINARY_NLI = ("entailment", "not_entailment")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can hold: the same predictions give the same bytes


@dataclass(frozen=True)
class SubmissionFile:
    """One file of the zip: the data set and split it predicts, its rows, and its labels (none: a score from 0 to 5)."""

    dataset: str
    split: str
    rows: int
    labels: tuple[str, ...]


FILES: dict[str, SubmissionFile] = {
    "CoLA": SubmissionFile("cola", "test", 1_063, _ZERO_ONE),
    "SST-2": SubmissionFile("sst2", "test", 1_821, _ZERO_ONE),
    "MRPC": SubmissionFile("mrpc", "test", 1_725, _ZERO_ONE),
    "STS-B": SubmissionFile("stsb", "test", 1_379, ()),
    "QQP": SubmissionFile("qqp", "test", 390_965, _ZERO_ONE),
    "MNLI-m": SubmissionFile("mnli", "test_matched", 9_796, _NLI),
    "MNLI-mm": SubmissionFile("mnli", "test_mismatched", 9_847, _NLI),
    "QNLI": SubmissionFile("qnli", "test", 5_463, _BINARY_NLI),
    "RTE": SubmissionFile("rte", "test", 3_000, _BINARY_NLI),
    "WNLI": SubmissionFile("wnli", "test", 146, _ZERO_ONE),
    "AX": SubmissionFile("ax", "test", 1_104, _NLI),
}
"""Name of a file in the zip, without .tsv -> what it holds."""


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


def check_submission(path: Path) -> list[str]:
    """Everything in a zip that the server's rules forbid, in words; an empty list means it is fit to be sent.

    Rules: exactly the eleven files, at the top of the zip; the header; ids 0 … n-1, each once; the official number of
    rows; labels of the task's set, spelled out; STS-B numbers from 0 to 5. Raises `DataError` for what is not a zip.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            contents = {name: archive.read(name).decode("utf-8") for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a zip of text files ({error}); write it anew.") from error
    problems = [f"{name}: not one of the eleven files" for name in contents if name.removesuffix(".tsv") not in FILES]
    for name in FILES:
        if f"{name}.tsv" not in contents:
            problems.append(f"{name}.tsv is missing")
            continue
        header, *lines = contents[f"{name}.tsv"].split("\n")
        if header != "index\tprediction":
            problems.append(f"{name}.tsv: the first line is not index<TAB>prediction")
        cells = [line.split("\t") for line in lines if line]
        if any(len(row) != 2 for row in cells):
            problems.append(f"{name}.tsv: a line does not have two cells")
            continue
        problems += _check(name, [(row[0], row[1]) for row in cells])
    return problems


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
        if wrong:
            problems.append(f"{name}.tsv: {wrong[0]!r} is none of its labels {', '.join(expected.labels)}")
    elif bad := [value for _, value in table if not _is_score(value)]:
        problems.append(f"{name}.tsv: {bad[0]!r} is not a number from 0 to 5")
    return problems


def _is_score(value: str) -> bool:
    try:
        return 0.0 <= float(value) <= 5.0
    except ValueError:
        return False
