"""The GLUE submission, checked by an independent implementation of the server's rules.

Predictions are random, at the official sizes; the real test files are not needed.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np
import pytest

import tiny_finetuning as tiny
from ernie2.errors import DataError, StorageError
from ernie2.finetuning.glue_submission import best_run, check_test_files, sort_by_id, write_submission
from ernie2.finetuning.jobs import RunResult

NLI, TWO = {"entailment", "neutral", "contradiction"}, {"entailment", "not_entailment"}
SERVER = {  # file -> rows, labels
    "CoLA.tsv": (1063, {"0", "1"}),
    "SST-2.tsv": (1821, {"0", "1"}),
    "MRPC.tsv": (1725, {"0", "1"}),
    "STS-B.tsv": (1379, None),
    "QQP.tsv": (390965, {"0", "1"}),
    "MNLI-m.tsv": (9796, NLI),
    "MNLI-mm.tsv": (9847, NLI),
    "QNLI.tsv": (5463, TWO),
    "RTE.tsv": (3000, TWO),
    "WNLI.tsv": (146, {"0", "1"}),
    "AX.tsv": (1104, NLI),
}


@pytest.fixture(scope="module")
def predictions() -> dict[str, list[str | float]]:
    rng = np.random.default_rng(0)
    values_by_file: dict[str, list[str | float]] = {}
    for file, (rows, labels) in SERVER.items():
        values = rng.choice(sorted(labels), rows) if labels else rng.uniform(-0.5, 5.5, rows)
        values_by_file[file.removesuffix(".tsv")] = values.tolist()
    return values_by_file


@pytest.fixture(scope="module")
def good(predictions: dict[str, list[str | float]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("submission") / "glue.zip"
    write_submission(out, predictions)
    return out


def test_the_zip_follows_the_rules_of_the_server(good: Path, predictions: dict[str, list[str | float]]) -> None:
    with zipfile.ZipFile(good) as archive:
        # a fixed time: the same predictions give the same bytes
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert set(archive.namelist()) == set(SERVER)
        for file, (rows, labels) in SERVER.items():
            header, *lines, last = archive.read(file).decode("ascii").split("\n")
            assert header == "index\tprediction"
            assert last == ""
            ids, values = zip(*(line.split("\t") for line in lines), strict=True)
            assert list(ids) == [str(number) for number in range(rows)]
            if labels is None:
                assert all(0 <= float(value) <= 5 for value in values)
                assert {"0.000", "5.000"} <= set(values)
            else:
                assert set(values) == labels
                assert list(values) == predictions[file.removesuffix(".tsv")]
    assert [path.name for path in good.parent.iterdir()] == ["glue.zip"]


def test_predictions_are_sorted_by_id() -> None:
    assert sort_by_id(["0", "1", "2"], ["2", "0", "1"]) == ["1", "2", "0"]
    assert sort_by_id(["0", "1"], ["7", "3"]) == ["0", "1"]


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("WNLI", ["0"] * 145, "WNLI.tsv: 145 rows, the official test file has 146"),
        ("WNLI", ["entailment"] * 146, "WNLI.tsv: 'entailment' is not one of 0, 1"),
        ("RTE", ["1"] * 3000, "RTE.tsv: '1' is not one of entailment, not_entailment"),
        ("STS-B", [float("nan")] * 1379, "STS-B.tsv: 'nan' is not a number from 0 to 5"),
    ],
)
def test_an_invalid_submission_is_not_written(
    tmp_path: Path, predictions: dict[str, list[str | float]], name: str, values: list[str | float], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        write_submission(tmp_path / "x.zip", predictions | {name: values})
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_existing_file(
    tmp_path: Path, predictions: dict[str, list[str | float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.zip").write_text("before", encoding="utf-8")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="No space left"):
        write_submission(tmp_path / "x.zip", predictions)
    assert (tmp_path / "x.zip").read_text() == "before"


def test_the_best_run_on_dev_predicts_and_never_one_without_scores() -> None:
    def of(seed: int, *values: float) -> RunResult:
        return RunResult(
            seed, Path("x"), {"dev": dict(zip("ab", values, strict=False)), "test": {"a": 99.0}} if values else {}
        )

    assert best_run("mrpc", [of(0, 80, 70), of(1, 70, 90), of(2, math.nan), of(3)]).seed == 1
    with pytest.raises(DataError, match="no run of mrpc has dev scores"):
        best_run("mrpc", [of(0)])


def test_missing_and_short_test_files_are_reported_before_training() -> None:
    rte = tiny.data("classification", test=tiny.examples("classification", 3))
    with pytest.raises(DataError) as error:
        check_test_files({"rte": rte})
    assert "CoLA: cola has no test split" in str(error.value)
    assert "RTE: 3 rows in test.tsv, the official file has 3,000" in str(error.value)
