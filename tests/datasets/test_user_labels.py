"""Labels of user files: every change, drop or guess is reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ernie2.datasets.examples import LabelledData
from ernie2.datasets.user_data import load_user_data
from ernie2.errors import DataError

Labels = list[Any]


def load(
    folder: Path, train: Labels, dev: Labels | None = None, test: Labels | None = None, **more: Any
) -> LabelledData:
    files = {}
    for split, labels in (("train", train), ("dev", train if dev is None else dev), ("test", test)):
        if labels is not None:
            files[split] = folder / f"{split}.jsonl"
            rows = ({"a": f"text {number}", "y": label} for number, label in enumerate(labels))
            files[split].write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return load_user_data(**{split: str(path) for split, path in files.items()}, text="a", label="y", **more)


def labels_of(data: LabelledData, split: str) -> Labels:
    return [example.label for example in data.splits[split].examples]


def test_whole_numbers_are_the_same_classes_with_and_without_a_point(tmp_path: Path) -> None:
    data = load(tmp_path, [0, 1, 1], [0.0, 1.0], ["1.0", "0"])
    assert data.labels == ("0", "1")
    assert labels_of(data, "dev") == ["0", "1"]
    assert labels_of(data, "test") == ["1", "0"]
    assert [split.notes for split in data.splits.values()] == [
        (), (f"{tmp_path}/dev.jsonl: removed .0, as in 1.0, from 2 labels",),
        (f"{tmp_path}/test.jsonl: removed .0, as in 1.0, from 1 label",),
    ]  # fmt: skip


def test_labels_that_differ_in_white_space_are_one_class_with_a_note(tmp_path: Path) -> None:
    data = load(tmp_path, ["pos", "pos ", " neg", "neg"])
    assert data.labels == ("neg", "pos")
    assert data.reasons[0] == "detected classification (2 classes in 'y')"
    assert "train.jsonl: normalised white space in 2 labels" in data.splits["train"].notes[0]


@pytest.mark.parametrize("label", [float("nan"), "nan", None, "", " "])
def test_nan_is_no_class_and_its_row_is_named(tmp_path: Path, label: Any) -> None:
    with pytest.raises(DataError, match=r"train.jsonl, line 2: there is no label in 'y'"):
        load(tmp_path, ["pos", label, "neg"])


def test_nan_in_parquet_is_neither_label_nor_text(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": ["x", "y", "z"], "y": [0.0, 1.0, float("nan")]}), file)
    with pytest.raises(DataError, match=r"x.parquet, row 3: there is no label in 'y'"):
        load_user_data(str(file), str(file), text="a", label="y")
    pq.write_table(pa.table({"a": [1.0, float("nan")], "y": ["p", "q"]}), file)
    with pytest.raises(DataError, match=r"x.parquet, row 1: the text in 'a' is a number, not a string"):
        load_user_data(str(file), str(file), text="a", label="y")


def test_the_word_nan_as_a_text_stays_with_a_note(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("a\ty\nnan\tp\ngood\tq\n")
    data = load_user_data(str(tmp_path / "x.tsv"), str(tmp_path / "x.tsv"), text="a", label="y")
    assert data.splits["train"].notes == (
        f"{tmp_path}/x.tsv: the word nan is the text of 1 row; remove them if it marks a missing text",
    )


def test_class_numbers_written_as_strings_are_classes_however_many(tmp_path: Path) -> None:
    data = load(tmp_path, [str(number) for number in range(0, 357, 3)])
    assert (data.head, len(data.labels)) == ("classification", 119)
    assert "119 classes in 'y', whole numbers written as strings" in data.reasons[0]
    assert data.reasons[1].endswith("57 and 99 more")
    assert load(tmp_path, [str(number) for number in range(30)], head="regression").head == "regression"


def test_many_whole_numbers_with_gaps_are_refused(tmp_path: Path) -> None:
    numbers = [7 * number for number in range(30)]
    message = "'y' has 30 different whole numbers between 0 and 203, which may be classes or a scale. Use --head class"
    with pytest.raises(DataError, match=f"train.jsonl: {message}"):
        load(tmp_path, numbers)
    assert load(tmp_path, numbers, head="regression").labels == ()
    assert len(load(tmp_path, numbers, head="classification").labels) == 30
    assert load(tmp_path, list(range(1, 31))).head == "classification"  # all from 1 to 30


def test_a_dash_in_inference_data_is_left_out_and_counted(tmp_path: Path) -> None:
    data = load(tmp_path, ["neutral", "-", "entailment", "-"], ["-", "neutral"])
    assert data.labels == ("entailment", "neutral")
    assert (labels_of(data, "train"), labels_of(data, "dev")) == (["neutral", "entailment"], ["neutral"])
    assert data.reasons[0] == "detected classification (2 classes in 'y')"
    assert data.splits["train"].notes == (
        f"{tmp_path}/train.jsonl: 2 rows with the label -, on which annotators did not agree, are left out",
    )
    with pytest.raises(DataError, match=r"dev.jsonl: no row has a label on which annotators agreed"):
        load(tmp_path, ["neutral", "entailment"], ["-", "-"])
    assert load(tmp_path, ["-", "+"]).labels == ("+", "-")


def test_minus_one_in_a_test_file_is_no_label_unless_training_has_it(tmp_path: Path) -> None:
    data = load(tmp_path, [0, 1], test=[-1, "-1"])
    assert labels_of(data, "test") == [None, None]
    assert data.splits["test"].notes == (
        f"{tmp_path}/test.jsonl: 2 labels are -1, which training does not have, and count as none",
    )
    mixed = load(tmp_path, [0, 1], test=[-1, 1])
    assert labels_of(mixed, "test") == [None, "1"]
    assert mixed.splits["test"].notes[1].endswith("1 rows have no label, so this test file is not scored")
    assert labels_of(load(tmp_path, [-1, 1], test=[-1, 1]), "test") == ["-1", "1"]
    assert labels_of(load(tmp_path, [0.5, 4.0], test=[-1, -1]), "test") == [None, None]
    assert labels_of(load(tmp_path, [0.5, 4.0], test=[-1, 2]), "test") == [-1.0, 2.0]
    with pytest.raises(DataError, match="the label '-1' does not occur in training"):
        load(tmp_path, [0, 1], dev=[-1, 1])


@pytest.mark.parametrize(
    ("label", "message"), [(["p"], "is a list"), ({"a": 1}, "is an object"), (0.5, "is 0.5, a number with a fraction")]
)
def test_a_label_that_is_no_name_is_refused(tmp_path: Path, label: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"line 2: the label in 'y' {message}"):
        load(tmp_path, ["p", label, "q"], head="classification")


@pytest.mark.parametrize(
    ("text", "message"), [(5, "a number"), (["p"], "a list"), (None, "empty"), (float("nan"), "empty")]
)
def test_a_text_that_is_no_string_is_refused_with_its_line(tmp_path: Path, text: Any, message: str) -> None:
    file = tmp_path / "x.jsonl"
    rows = [{"a": "x", "y": "p"}, {"a": text, "y": "q"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=f"line 2: the text in 'a' is {message}"):
        load_user_data(str(file), str(file), text="a", label="y")


def test_empty_labels_in_lists_are_left_out_and_counted(tmp_path: Path) -> None:
    data = load(tmp_path, [["p ", None], ["q"], []])
    assert labels_of(data, "train") == [("p",), ("q",), ()]
    assert data.splits["train"].notes[1] == f"{tmp_path}/train.jsonl: 1 empty labels in lists of labels are left out"


def test_a_token_without_a_tag_is_refused_and_tags_are_names_however_written(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text('{"a": ["u", "v"], "y": ["N", "N "]}\n{"a": ["u", "v"], "y": [1.0, "V"]}\n')
    data = load_user_data(str(file), str(file), text="a", label="y")
    assert labels_of(data, "train") == [("N", "N"), ("1", "V")]
    for tag in ("null", "NaN", '""'):
        file.write_text(f'{{"a": ["u", "v"], "y": ["N", "V"]}}\n{{"a": ["u", "v"], "y": ["N", {tag}]}}\n')
        with pytest.raises(DataError, match="line 2: token 2 has no tag in 'y'; every token needs one"):
            load_user_data(str(file), str(file), text="a", label="y")
