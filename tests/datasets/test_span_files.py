"""Contexts, questions and answers: three forms, and starts that are used only if the answer is there."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie2.datasets.examples import Answer, Example
from ernie2.datasets.registry import find_dataset
from ernie2.datasets.span_files import locate_answer, parse_answers, parse_question, read_questions, read_spans
from ernie2.errors import DataError

CONTEXT = "李白是唐代诗人。李白生于701年。"


def squad(*answers: dict[str, Any]) -> dict[str, Any]:
    question = {"id": "q1", "question": "谁？", "answers": list(answers)}
    return {"version": "v1.0", "data": [{"paragraphs": [{"id": "p", "context": CONTEXT, "qas": [question]}]}]}


def read(file: Path, name: str = "cmrc2018", labelled: bool = True) -> tuple[list[Example], list[str]]:
    return read_spans(find_dataset(name), str(file), labelled=labelled)


@pytest.mark.parametrize(
    ("start", "found", "kind"),
    [
        (0, 0, "right"),
        (8, 8, "right"),
        (7, 8, "wrong"),  # the occurrence at 8 is nearer than that at 0
        (2, 0, "wrong"),
        (4, 0, "wrong"),  # as far from both: the first
        (-1, 0, "missing"),
        (None, 0, "missing"),
        (999, 0, "wrong"),
    ],
)
def test_a_start_is_right_if_the_text_is_there_else_the_nearest_occurrence_is_used(
    start: int | None, found: int, kind: str
) -> None:
    assert locate_answer(CONTEXT, "李白", start) == (found, kind)


@given(st.text("ab", max_size=30), st.text("ab", max_size=3), st.integers(-2, 40))
def test_a_place_that_is_given_always_holds_the_text(context: str, text: str, start: int) -> None:
    place, kind = locate_answer(context, text, start)
    if kind == "absent":
        assert not text or text not in context
    else:
        assert context[place : place + len(text)] == text


def test_every_form_gives_the_same_example(tmp_path: Path) -> None:
    answer = {"text": "唐代", "answer_start": 3}
    (tmp_path / "squad.json").write_text(json.dumps(squad(answer)), encoding="utf-8")
    (tmp_path / "squad.json.gz").write_bytes(gzip.compress(json.dumps(squad(answer)).encode()))
    query = {"query_id": "q1", "query_text": "谁？", "answers": ["唐代"]}
    first_form = [{"context_id": "p", "context_text": CONTEXT, "title": "李白", "qas": [query]}]
    (tmp_path / "first.json").write_text(json.dumps(first_form), encoding="utf-8")
    row = {"id": "q1", "context": CONTEXT, "question": "谁？", "answers": {"text": ["唐代"], "answer_start": [3]}}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "hub.parquet")
    for name in ("squad.json", "squad.json.gz", "first.json", "hub.parquet"):
        assert read(tmp_path / name)[0] == [Example("q1", "谁？", CONTEXT, (Answer("唐代", 3),))], name


def test_wrong_missing_and_absent_answers_are_counted(tmp_path: Path) -> None:
    answers = [
        {"text": text, "answer_start": start} for text, start in (("唐代", 3), ("诗人", 0), ("701年", -1), ("宋代", 2))
    ]
    (tmp_path / "x.json").write_text(json.dumps(squad(*answers)), encoding="utf-8")
    (example,), notes = read(tmp_path / "x.json")
    assert example.label == (Answer("唐代", 3), Answer("诗人", 5), Answer("701年", 12), Answer("宋代", -1))
    assert [note.split(": ")[1].split(" answers")[0] for note in notes] == ["1 of 4", "1 of 4", "1 of 4"]


def test_a_test_file_without_answers_is_read_and_a_training_file_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps(squad()), encoding="utf-8")
    assert read(tmp_path / "x.json", labelled=False)[0] == [Example("q1", "谁？", CONTEXT)]
    with pytest.raises(DataError, match=r"no question in \S*x.json has an answer"):
        read(tmp_path / "x.json")
    (tmp_path / "y.json").write_text(json.dumps(squad({"text": "宋代", "answer_start": 0})), encoding="utf-8")
    with pytest.raises(DataError, match="no answer occurs in its context"):
        read(tmp_path / "y.json")


def test_a_question_without_an_answer_is_refused_by_name_where_the_set_has_none(tmp_path: Path) -> None:
    content = squad({"text": "唐代", "answer_start": 3})
    content["data"][0]["paragraphs"][0]["qas"].append({"id": "q2", "question": "何？", "answers": []})
    (tmp_path / "x.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(
        DataError, match=r"x.json, question q2: it has no answer \(1 of 2 have none\); CMRC 2018 has no"
    ):
        read(tmp_path / "x.json")
    assert [one.label is None for one in read(tmp_path / "x.json", labelled=False)[0]] == [False, True]


def test_a_question_that_is_impossible_and_has_an_answer_is_refused(tmp_path: Path) -> None:
    content = squad({"text": "唐代", "answer_start": 3})
    content["data"][0]["paragraphs"][0]["qas"][0]["is_impossible"] = True
    (tmp_path / "x.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match="question q1: is_impossible is set, but there is an answer"):
        read(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ('{"rows": []}', "not in SQuAD's form"),
        ('{"data": [{"paragraphs": [{}]}]}', "KeyError"),
    ],
)
def test_another_form_is_refused_with_what_is_expected(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "x.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read(tmp_path / "x.json")


def test_traditional_files_are_turned_into_simplified_and_offsets_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = dict(zip("國學為時間這個", "国学为时间这个", strict=True))
    monkeypatch.setattr(
        "ernie2.datasets.span_files.build_simplifier", lambda file: lambda text: "".join(table.get(c, c) for c in text)
    )
    question = {"id": "1", "question": "這個?", "answers": [{"text": "國學", "answer_start": 2}]}
    content = {"data": [{"paragraphs": [{"context": "時間國學為", "qas": [question]}]}]}
    (tmp_path / "DRCD_dev.json").write_text(json.dumps(content), encoding="utf-8")
    (example,), notes = read(tmp_path / "DRCD_dev.json", "drcd")
    assert example == Example("1", "这个?", "时间国学为", (Answer("国学", 2),))
    assert [note.split(": ")[1] for note in notes] == ["Traditional characters converted to Simplified, one for one"]
    assert read(tmp_path / "DRCD_dev.json", "cmrc2018")[0][0].pair == "時間國學為"  # only what is declared traditional


def test_only_nonzero_counts_are_reported() -> None:
    from ernie2.datasets.span_files import answer_notes

    assert answer_notes("f", Counter(right=3)) == []
    assert answer_notes("f", Counter(right=1, absent=1, lost=1)) == [
        "f: 1 of 2 answers do not occur in their context; they count for the score but are not trained on",
        "f: 1 questions have no answer in their context and are not trained on",
    ]


def test_half_a_surrogate_pair_in_a_context_is_refused_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(r'{"data": [{"paragraphs": [{"context": "a \ud83d", "qas": []}]}]}')
    with pytest.raises(DataError, match=r"x.json: not valid JSON .*half a character"):
        list(read_questions(str(tmp_path / "x.json")))


def test_an_answer_is_a_string_and_its_start_may_be_written_with_a_point() -> None:
    assert list(parse_answers({"text": ["a"], "answer_start": [4.0]}, "here")) == [("a", 4)]
    for wrong in ([None], {"text": None}, {"text": [None]}, {"text": ["a", 5]}, [{"text": float("nan")}]):
        with pytest.raises(DataError, match=r"here: an answer is (null|NaN|a number), not a string"):
            list(parse_answers(wrong, "here"))


@pytest.mark.parametrize(
    ("start", "number"), [("6", 6), (" 6 ", 6), ("6.0", 6), (6, 6), (0, 0), (None, None), ("", None)]
)
def test_a_start_may_be_written_as_a_string_and_may_be_missing(start: Any, number: int | None) -> None:
    assert list(parse_answers({"text": "a", "answer_start": start}, "here")) == [("a", number)]
    assert list(parse_answers({"text": ["a"], "answer_start": [start]}, "here")) == [("a", number)]


@pytest.mark.parametrize("start", ["8.5", 8.5, True, "x", "1_0", "٦", [6], {"a": 1}, float("inf")])
def test_a_start_that_is_no_whole_number_is_refused(start: Any) -> None:
    for answers in ({"text": "a", "answer_start": start}, {"text": ["a"], "answer_start": [start]}):
        with pytest.raises(DataError, match=r"^here: an answer_start is .*; write a whole number, from 0 on.$"):
            list(parse_answers(answers, "here"))


@pytest.mark.parametrize("start", [6, 0, "6", True])
def test_one_start_beside_a_list_of_texts_is_refused(start: Any) -> None:
    with pytest.raises(DataError, match=r"^here: text is a list, but answer_start is (a number|a string|true); write"):
        list(parse_answers({"text": ["a"], "answer_start": start}, "here"))


@pytest.mark.parametrize(
    ("cell", "impossible"), [("True", True), ("1", True), (1.0, True), ("false", False), (0, False)]
)
def test_is_impossible_counts_in_a_row_a_question_also_where_it_is_a_word(cell: Any, impossible: bool) -> None:
    assert parse_question("here", 1, "q", "c", None, cell).answers == (() if impossible else None)


def test_is_impossible_that_is_neither_true_nor_false_is_refused() -> None:
    with pytest.raises(DataError, match="here: is_impossible is 'perhaps'; write true or false"):
        parse_question("here", 1, "q", "c", [], "perhaps")
