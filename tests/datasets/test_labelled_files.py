"""Rows of official datasets: labels in every spelling, tags of tokens, and test files without labels."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ernie2.datasets.examples import Example
from ernie2.datasets.labelled_files import class_name, read_labelled
from ernie2.datasets.registry import find_dataset
from ernie2.errors import DataError


def read(name: str, file: Path, labelled: bool = True) -> list[Example]:
    return read_labelled(find_dataset(name), str(file), labelled=labelled)[0]


def test_cola_is_read_without_a_header_and_its_test_file_with_one(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text('gj04\t1\t\tIt\'s "fine".\nbc01\t0\t*\tFine it.\n', encoding="utf-8")
    (tmp_path / "test.tsv").write_text("index\tsentence\n0\tBill left.\n", encoding="utf-8")
    assert read("cola", tmp_path / "train.tsv") == [
        Example("0", 'It\'s "fine".', label="1"),
        Example("1", "Fine it.", label="0"),
    ]
    assert read("cola", tmp_path / "test.tsv", labelled=False) == [Example("0", "Bill left.")]


def test_mrpc_begins_with_a_byte_order_mark_and_holds_open_quotes(tmp_path: Path) -> None:
    text = '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t10\t11\t"He left.\tHe went.\r\n'
    (tmp_path / "train.tsv").write_bytes(text.encode())
    assert read("mrpc", tmp_path / "train.tsv") == [Example("0", '"He left.', "He went.", "1")]


def test_mnli_takes_the_gold_label_of_the_official_columns(tmp_path: Path) -> None:
    names = "index\tpromptID\tsentence1\tsentence2\tlabel1\tgold_label"
    (tmp_path / "dev_matched.tsv").write_text(f"{names}\n7\tp\tA.\tB.\tneutral\tentailment\n", encoding="utf-8")
    assert read("mnli", tmp_path / "dev_matched.tsv") == [Example("7", "A.", "B.", "entailment")]


def test_integer_labels_of_the_hub_are_indices_and_minus_one_is_none(tmp_path: Path) -> None:
    rows = [{"premise": "A", "hypothesis": "B", "label": label, "idx": 5} for label in (0, 1, 2, -1)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "test.parquet")
    labels = [example.label for example in read("mnli", tmp_path / "test.parquet", labelled=False)]
    assert labels == ["entailment", "neutral", "contradiction", None]
    with pytest.raises(DataError, match="row 4: there is no label"):
        read("mnli", tmp_path / "test.parquet")


def test_minus_one_in_a_text_table_is_no_label_either(tmp_path: Path) -> None:
    (tmp_path / "test.tsv").write_text("sentence\tlabel\nA film.\t-1\n", encoding="utf-8")
    assert read("sst2", tmp_path / "test.tsv", labelled=False) == [Example("0", "A film.")]
    with pytest.raises(DataError, match="line 2: there is no label"):
        read("sst2", tmp_path / "test.tsv")


def test_the_labelled_file_of_ax_is_read(tmp_path: Path) -> None:
    names = "Lexical Semantics\tPredicate-Argument Structure\tLogic\tKnowledge\tDomain\tPremise\tHypothesis\tLabel"
    line = "Quantifiers\t\t\t\tArtificial\tAll cats purr.\tSome cats purr.\tentailment"
    (tmp_path / "diagnostic-full.tsv").write_text(f"{names}\n{line}\n", encoding="utf-8")
    assert read("ax", tmp_path / "diagnostic-full.tsv", labelled=False) == [
        Example("0", "All cats purr.", "Some cats purr.", "entailment")
    ]


def test_scores_are_numbers_and_the_hubs_minus_one_is_none(tmp_path: Path) -> None:
    rows = [{"sentence1": "A", "sentence2": "B", "label": score} for score in (5.0, -1.0)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "test.parquet")
    assert [example.label for example in read("stsb", tmp_path / "test.parquet", labelled=False)] == [5.0, None]
    (tmp_path / "x.tsv").write_text("sentence1\tsentence2\tscore\nA\tB\thigh\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 2: 'high' is not a number"):
        read("stsb", tmp_path / "x.tsv")


def test_broken_rows_of_qqp_are_left_out_and_counted_and_empty_questions_kept(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text(
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n0\t1\t2\tA?\tB\nC?\t0\n1\t3\t4\tD?\t\t1\n",
        encoding="utf-8",
    )
    examples, notes = read_labelled(find_dataset("qqp"), str(tmp_path / "train.tsv"), labelled=True)
    assert examples == [Example("1", "D?", "", "1")]
    assert "2 rows without the right number of cells left out" in notes[0]
    assert "1 example with an empty text kept" in notes[1]


def test_tags_are_separated_as_ernies_files_do_or_are_the_hubs_lists(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("text_a\tlabel\n李\x02白 \x02。\tB-PER\x02I-PER\x02O\n", encoding="utf-8")
    (example,) = read("msra_ner", tmp_path / "train.tsv")
    assert example.tokens == ("李", "白 ", "。")
    assert example.label == ("B-PER", "I-PER", "O")
    pq.write_table(pa.Table.from_pylist([{"tokens": ["李", "白"], "ner_tags": [1, 2]}]), tmp_path / "x.parquet")
    assert read("msra_ner", tmp_path / "x.parquet")[0].label == ("B-PER", "I-PER")


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ("李\x02白\tB-PER", "line 2: 2 tokens but 1 tags"),
        ("李\tB-GPE", "line 2: the label 'B-GPE' is none of O, B-PER"),
    ],
)
def test_tags_that_do_not_fit_are_refused(tmp_path: Path, cells: str, message: str) -> None:
    (tmp_path / "train.tsv").write_text(f"text_a\tlabel\n{cells}\n", encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read("msra_ner", tmp_path / "train.tsv")


def test_candidates_of_one_question_share_a_group(tmp_path: Path) -> None:
    (tmp_path / "dev.tsv").write_text("qid\ttext_a\ttext_b\tlabel\n3\t谁？\t他\t1\n3\t谁？\t她\t0\n", encoding="utf-8")
    assert [(one.id, one.group, one.label) for one in read("dbqa", tmp_path / "dev.tsv")] == [
        ("0", "3", "1"),
        ("1", "3", "0"),
    ]


def test_a_label_is_a_name_an_alias_or_an_index() -> None:
    names = ("entailment", "neutral", "contradiction")
    aliases = {"contradictory": "contradiction"}
    assert class_name("contradictory", names, aliases, "here") == "contradiction"
    assert class_name(2, names, None, "here") == "contradiction"
    assert class_name("", names, None, "here") is None
    for wrong in (3, "2", "maybe"):
        with pytest.raises(DataError, match=f"here: the label '{wrong}' is none of entailment"):
            class_name(wrong, names, None, "here")


def test_a_column_that_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("sentence\tlable\nGood.\t1\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"line 1: there is no column 'label'. Did you mean 'lable'\?"):
        read("sst2", tmp_path / "train.tsv")


def test_minus_one_and_nan_are_no_label_and_a_dash_of_inference_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "test.tsv").write_text("sentence\tlabel\nGood.\t-1\nBad.\t-1\n", encoding="utf-8")
    examples = read("sst2", tmp_path / "test.tsv", labelled=False)
    assert [example.label for example in examples] == [None, None]
    with pytest.raises(DataError, match="line 2: there is no label"):
        read("sst2", tmp_path / "test.tsv")
    (tmp_path / "train.tsv").write_text("sentence1\tsentence2\tgold_label\na\tb\t-\nc\td\tneutral \n", encoding="utf-8")
    examples, notes = read_labelled(find_dataset("mnli"), str(tmp_path / "train.tsv"), labelled=True)
    assert [example.label for example in examples] == ["neutral"]
    assert any("normalised white space in 1 label" in note for note in notes)
    assert any("1 row with the label -, on which annotators did not agree, left out" in note for note in notes)
    assert class_name(float("nan"), ("0", "1"), None, "here") is None
    assert class_name("1.0", ("0", "1"), None, "here") == "1"


def test_rows_of_a_ranking_set_name_their_question(tmp_path: Path) -> None:
    (tmp_path / "dev.tsv").write_text("qid\ttext_a\ttext_b\tlabel\n7\ta\tb\t1\n\ta\tc\t0\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"line 3: 'qid' is empty; it must name the question of the row"):
        read("dbqa", tmp_path / "dev.tsv")
