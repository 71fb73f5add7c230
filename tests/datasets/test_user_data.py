"""User files: the detected task with its reason, and errors with the line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ernie2.datasets.examples import Answer, Example, LabelledData
from ernie2.datasets.task_guess import HEAD_NAMES
from ernie2.datasets.user_data import load_user_data
from ernie2.errors import ConfigError, DataError

Rows = list[dict[str, Any]]


def load(folder: Path, train: Rows, dev: Rows | None = None, test: Rows | None = None, **options: Any) -> LabelledData:
    files = {}
    for split, rows in (("train", train), ("dev", train if dev is None else dev), ("test", test)):
        if rows is not None:
            files[split] = folder / f"{split}.jsonl"
            files[split].write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return load_user_data(
        **{split: str(path) for split, path in files.items()}, **{"text": "a", "label": "y", **options}
    )


def test_names_are_classes_and_a_test_file_may_lack_labels(tmp_path: Path) -> None:
    data = load(tmp_path, [{"a": "x", "y": "no"}, {"a": "z", "y": "yes"}], test=[{"a": "w"}])
    assert (data.head, data.labels, data.positive) == ("classification", ("no", "yes"), "yes")
    assert data.reasons == ("detected classification (2 classes in 'y')", "labels: no, yes")
    assert data.metrics == ("accuracy", "f1", "macro_f1")
    assert data.splits["train"].examples[1] == Example("1", "z", label="yes")
    assert data.splits["test"].examples == (Example("0", "w"),)
    assert data.provenance == "own"


def test_pairs_come_from_two_columns_of_any_format(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text('q\tt\ty\nwho?\t"him\t10\nwhat?\tit\t9\nhow?\tso\t9\n', encoding="utf-8")
    (tmp_path / "x.csv").write_text('q,t,y\nwho?,"""him",10\nwhat?,it,9\nhow?,so,9\n', encoding="utf-8")
    rows = [{"q": "who?", "t": '"him', "y": 10}, {"q": "what?", "t": "it", "y": 9}, {"q": "how?", "t": "so", "y": 9}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    for name in ("x.tsv", "x.csv", "x.parquet"):
        file = str(tmp_path / name)
        data = load_user_data(file, file, text="q, t", label="y")
        assert data.labels == ("9", "10"), name  # numbers by value
        assert data.splits["dev"].examples[0] == Example("0", "who?", '"him', "10")


@pytest.mark.parametrize(
    ("labels", "head", "reason"),
    [
        ([0.5, 1, 2], "regression", "numbers with fractions in 'y'"),
        (["0.5", "2"], "regression", "numbers with fractions in 'y'"),
        (
            [*range(21), 0],
            "classification",
            "21 classes in 'y', the whole numbers from 0 to 20; if they are a scale, use --head regression",
        ),
        (
            [str(3 * number) for number in range(21)],
            "classification",
            "21 classes in 'y', whole numbers written as strings; if they are a scale, use --head regression",
        ),
        ([*range(20), 0], "classification", "20 classes in 'y'"),
        (["1", "2", "x"], "classification", "3 classes in 'y'"),
        (["1_5", "2_5"], "classification", "2 classes in 'y'"),
        (["１", "٢", "3"], "classification", "3 classes in 'y'"),
        ([1, "1", 1.0, "1.0", "2"], "classification", "2 classes in 'y'"),
        (
            ["01", "1", "001", "2"],
            "classification",
            "4 classes in 'y', of which 001 and 01 and 1 are the same number; use one spelling if they are one class",
        ),
        ([["p"], ["p", "q"], []], "multi_label", "lists of labels in 'y'"),
    ],
)
def test_the_kind_is_guessed_by_rule_and_the_reason_given(
    tmp_path: Path, labels: list[Any], head: str, reason: str
) -> None:
    data = load(tmp_path, [{"a": "x", "y": label} for label in labels])
    assert (data.head, data.reasons[0]) == (head, f"detected {HEAD_NAMES.get(data.head, head)} ({reason})")


def test_a_guess_can_be_overridden(tmp_path: Path) -> None:
    rows = [{"a": "x", "y": 1}, {"a": "z", "y": 2}]
    data = load(tmp_path, rows, head="regression")
    assert (data.head, data.labels, data.metrics) == ("regression", (), ("pearson", "spearman"))
    assert [example.label for example in data.splits["train"].examples] == [1.0, 2.0]
    assert data.reasons == ("regression (set with --head)",)
    names = load(tmp_path, [{"a": "x", "y": "p|q"}, {"a": "z", "y": "q"}], head="multi_label")
    assert [example.label for example in names.splits["train"].examples] == [("p", "q"), ("q",)]
    with pytest.raises(ConfigError, match=r"'tagger' is not a kind of task. Did you mean 'tagging'\?"):
        load(tmp_path, rows, head="tagger")


def test_lists_of_tokens_and_tags_are_tagging_also_in_tsv(tmp_path: Path) -> None:
    rows = [{"a": ["Li", "Bai", "."], "y": ["B-PER", "I-PER", "O"]}] * 2
    expected = Example("0", "Li Bai .", label=("B-PER", "I-PER", "O"), tokens=("Li", "Bai", "."))
    data = load(tmp_path, rows)
    assert data.splits["train"].examples[0] == expected
    assert data.metrics == ("entity_f1", "token_accuracy")
    for text, tags in (('["Li", "Bai", "."]', '["B-PER", "I-PER", "O"]'), ("Li\x02Bai\x02.", "B-PER\x02I-PER\x02O")):
        (tmp_path / "x.tsv").write_text("a\ty\n" + f"{text}\t{tags}\n" * 2, encoding="utf-8")
        data = load_user_data(str(tmp_path / "x.tsv"), str(tmp_path / "x.tsv"), text="a", label="y")
        assert (data.head, data.splits["train"].examples[0]) == ("tagging", expected)
    words = load(tmp_path, [{"a": "Li left", "y": "N V"}, {"a": "Bai", "y": "N"}], head="tagging")
    assert words.metrics == ("token_accuracy",)
    assert words.labels == ("N", "V")


BIOES: Rows = [{"a": ["Li", "Bai", "."], "y": ["B-PER", "E-PER", "O"]}, {"a": ["Li", "."], "y": ["S-PER", "O"]}]


def test_the_tag_scheme_is_that_of_the_training_tags_or_named(tmp_path: Path) -> None:
    data = load(tmp_path, BIOES)
    assert data.scheme == "BIOES"
    assert data.reasons[-1].startswith("tag scheme: BIOES (the prefixes are B-, E-, S-")
    iob1 = [{"a": ["Li", "Du", "Bai"], "y": ["I-PER", "B-PER", "I-PER"]}, {"a": ["x", "y"], "y": ["O", "O"]}]
    assert load(tmp_path, iob1).scheme == "IOB1"
    named = load(tmp_path, iob1, scheme="iob2")
    assert (named.scheme, named.reasons[-1]) == ("IOB2", "tag scheme: IOB2, as named")
    assert "1 of 3 tagged tokens belong to no entity under IOB2 (first: " in named.splits["dev"].notes[0]
    plain = load(tmp_path, BIOES, scheme="none")
    assert (plain.scheme, plain.metrics) == (None, ("token_accuracy",))
    with pytest.raises(DataError, match=r"line 1: the tag 'E-PER' is none of IOB2"):
        load(tmp_path, BIOES, scheme="IOB2")
    with pytest.raises(DataError, match=r"train.jsonl, line 3: the tag 'U-PER' and the prefixes B, E, S"):
        load(tmp_path, [*BIOES, {"a": ["x"], "y": ["U-PER"]}])
    with pytest.raises(ConfigError, match="--scheme BIOES is for tagging, but the task is: detected classification"):
        load(tmp_path, GOOD, scheme="BIOES")


def test_tags_between_spaces_are_tagging_where_they_fit_the_words(tmp_path: Path) -> None:
    rows = [{"a": "Li Bai .", "y": "B-PER I-PER O"}, {"a": "left", "y": "O"}]
    data = load(tmp_path, rows)
    assert (data.head, data.scheme) == ("tagging", "IOB2")
    assert data.splits["train"].examples[0].tokens == ("Li", "Bai", ".")
    assert "if these are classes, use --head classification" in data.reasons[0]
    speech = [{"a": "dogs bark", "y": "N V"}, {"a": "run fast", "y": "V A"}, {"a": "a dog ran", "y": "D N V"}]
    assert load(tmp_path, speech).head == "tagging"
    assert load(tmp_path, speech[:2]).head == "classification"  # too few rows to tell from names of classes
    with pytest.raises(DataError, match=r"line 2: 5 tags in 'y', but 1 word in 'a'. Separate tokens.* --head tagging"):
        load(tmp_path, [*rows[:1], {"a": "李白走了。", "y": "B-PER I-PER O O O"}])
    with pytest.raises(DataError, match=r"line 1: every a is one token and every y a tag, such as B-PER. Give"):
        load(tmp_path, [{"a": "Li", "y": "B-PER"}, {"a": "left", "y": "O"}])
    names = [{"a": "x", "y": "very good"}, {"a": "z", "y": "very bad"}]
    assert load(tmp_path, names).reasons[0].endswith("2 classes in 'y'; if they are tags, use --head tagging)")


def test_many_long_names_are_shortened(tmp_path: Path) -> None:
    rows = [{"a": "x", "y": f"name {number:02} " + "word " * 30} for number in range(25)]
    reason = load(tmp_path, rows).reasons[1]
    assert reason.startswith("labels: name 00 word word word word word word wo…, name 01")
    assert reason.endswith("and 5 more")
    with pytest.raises(DataError, match=r"the label 'nome word word word word word word word …' .* and 5 more"):
        load(tmp_path, rows, [{"a": "x", "y": "nome " + "word " * 30}])


def test_multiple_choice_is_refused_by_name(tmp_path: Path) -> None:
    rows = [{"a": "Who?", "choices": ["Li", "Du"], "y": "Li"}, {"a": "When?", "choices": ["1", "2"], "y": "1"}]
    with pytest.raises(DataError, match=r"line 1: 'choices' is a list of choices; multiple choice is not supported"):
        load(tmp_path, rows)
    c3 = [[["A: Hello."], [{"question": "Who?", "choice": ["Li", "Du"], "answer": "Li"}], "1-1"]]
    file = tmp_path / "x.json"
    file.write_text(json.dumps(c3))
    with pytest.raises(DataError, match=r"x.json, item 1: 'choice' is a list of choices; multiple choice is not"):
        load_user_data(str(file), str(file), text="question", label="answer")


def test_answers_with_two_texts_are_spans_and_their_starts_are_located(tmp_path: Path) -> None:
    row = {"q": "谁？", "c": "诗人李白。", "y": {"text": ["李白", "杜甫"], "answer_start": [0, 1]}}
    data = load(tmp_path, [row, row], text="q,c")
    assert (data.head, data.answer_rules, data.labels) == ("span", "cmrc2018", ())
    assert data.splits["train"].examples[0] == Example(
        "0", "谁？", "诗人李白。", (Answer("李白", 2), Answer("杜甫", -1))
    )
    assert len(data.splits["train"].notes) == 2
    plain = [{"q": "Who?", "c": "The poet Li Bai.", "y": "Li Bai"}] * 2
    english = load(tmp_path, plain, text="q,c", head="span")
    assert english.answer_rules == "squad"
    assert english.splits["dev"].examples[0].label == (Answer("Li Bai", 9),)
    with pytest.raises(DataError, match="no answer occurs in its context"):
        load(tmp_path, plain, text="c,q", head="span")


UNANSWERABLE: Rows = [
    {"q": "Who?", "c": "The poet Li Bai.", "y": {"text": ["Li Bai"], "answer_start": [9]}},
    {"q": "When?", "c": "The poet Li Bai.", "y": {"text": [], "answer_start": []}},
]


def test_questions_without_answers_are_unanswerable(tmp_path: Path) -> None:
    data = load(tmp_path, UNANSWERABLE, text="q,c")
    assert (data.head, data.unanswerable) == ("span", True)
    assert [example.label for example in data.splits["train"].examples] == [(Answer("Li Bai", 9),), ()]
    assert data.splits["dev"].notes[-1].endswith("dev.jsonl: 1 of 2 questions are unanswerable")
    assert data.metrics == (
        "exact_match", "answer_f1", "has_answer_exact_match", "has_answer_f1", "no_answer_exact_match", "no_answer_f1",
    )  # fmt: skip
    as_lists = [UNANSWERABLE[0] | {"y": [{"text": "Li Bai", "answer_start": 9}]}, UNANSWERABLE[1] | {"y": []}]
    assert load(tmp_path, as_lists, text="q,c").splits["train"].examples == data.splits["train"].examples
    answers = [{"text": "Bai", "answer_start": 3}]
    for impossible in ({"is_impossible": True}, {"is_impossible": True, "answers": []}, {"answers": []}):
        questions = [
            {"id": "p", "question": "Who?", "answers": answers},
            {"id": "q", "question": "When?", **impossible},
        ]
        file = tmp_path / "x.json"
        file.write_text(json.dumps({"data": [{"paragraphs": [{"context": "Li Bai.", "qas": questions}]}]}))
        nested = load_user_data(str(file), str(file), text="question,context", label="answers")
        assert (nested.head, nested.splits["dev"].examples[1].label) == ("span", ())


def test_is_impossible_counts_in_a_row_a_question_as_it_does_nested(tmp_path: Path) -> None:
    answered = {"q": "Who?", "c": "The poet Li Bai.", "y": {"text": ["Li Bai"], "answer_start": [9]}}
    rows = [answered, answered | {"y": [], "is_impossible": True}, answered | {"is_impossible": False}]
    assert [bool(one.label) for one in load(tmp_path, rows, text="q,c").splits["train"].examples] == [True, False, True]
    with pytest.raises(DataError, match=r"train.jsonl, line 2: is_impossible is set, but there is an answer"):
        load(tmp_path, [answered, answered | {"is_impossible": True}], text="q,c")


def test_a_test_file_without_any_answer_has_no_labels_and_a_development_file_is_refused(tmp_path: Path) -> None:
    data = load(tmp_path, UNANSWERABLE, test=UNANSWERABLE[1:], text="q,c")
    assert data.splits["test"].examples[0].label is None
    with pytest.raises(DataError, match=r"no question in \S*dev.jsonl has an answer"):
        load(tmp_path, UNANSWERABLE, UNANSWERABLE[1:], text="q,c")
    with pytest.raises(DataError, match=r"dev.jsonl, line 1: there is no label in 'y'.*without an answer, write \[\]"):
        load(tmp_path, UNANSWERABLE, [UNANSWERABLE[0] | {"y": None}], text="q,c")
    with pytest.raises(DataError, match=r"line 1: y holds answers, which need two texts.*--text question,context"):
        load(tmp_path, UNANSWERABLE, text="c")


@pytest.mark.parametrize("form", ["nested", "flat"])
def test_squads_form_needs_no_names_of_columns(tmp_path: Path, form: str) -> None:
    def write(answers: list[dict[str, Any]]) -> str:
        question = {"id": "p", "question": "Who?", "answers": answers}
        rows = [question | {"context": "Li Bai."}, question | {"context": "Li Bai."}]
        content = {"data": [{"paragraphs": [{"context": "Li Bai.", "qas": [question, question]}]}]}
        file = tmp_path / "x.json"
        file.write_text(json.dumps(content if form == "nested" else rows))
        return str(file)

    file = write([{"text": "Bai", "answer_start": 3}])
    for text, label in (("text", "label"), ("question,context", "label"), ("text", "answers")):
        data = load_user_data(file, file, text=text, label=label)
        assert (data.head, data.texts) == ("span", ("question", "context"))
        assert data.splits["dev"].examples[1] == Example("p", "Who?", "Li Bai.", (Answer("Bai", 3),))
    with pytest.raises(DataError, match=r"no column 'contxt'\. Did you mean 'context'"):
        load_user_data(file, file, text="question,contxt", label="label")
    file = write([])
    with pytest.raises(DataError, match=r"^no question in \S*x.json has an answer; training"):
        load_user_data(file, file, text="text", label="label")


def test_a_missing_header_line_is_suspected(tmp_path: Path) -> None:
    file = tmp_path / "x.tsv"
    for content in ("0\tThe mill.\tneg\n", "The mill.\tneg\nThe sea.\tpos\nA hill.\tneg\n"):
        file.write_text(content + "1\tA.\tpos\n" * content.startswith("0"))
        with pytest.raises(DataError, match=r"no column 'sentence'\..* Columns: .*neg. Is the header line missing\?"):
            load_user_data(str(file), str(file), text="sentence", label="label")


def test_json_may_be_a_list_squads_form_or_lines(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    for content in (json.dumps(GOOD, indent=1), "\n".join(map(json.dumps, GOOD))):
        file.write_text(content, encoding="utf-8")
        assert load_user_data(str(file), str(file), text="a", label="y").splits["dev"].examples[1].label == "yes"
    questions = [{"id": i, "question": "Who?", "answers": [{"text": "Bai", "answer_start": 3}]} for i in "pq"]
    file.write_text(
        json.dumps({"data": [{"paragraphs": [{"context": "Li Bai.", "qas": questions}]}]}), encoding="utf-8"
    )
    data = load_user_data(str(file), str(file), text="question,context", label="answers")
    assert data.splits["train"].examples[1] == Example("q", "Who?", "Li Bai.", (Answer("Bai", 3),))
    file.write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="line 1: not valid JSON"):
        load_user_data(str(file), str(file), text="a", label="y")


GOOD: Rows = [{"a": "x", "y": "no"}, {"a": "z", "y": "yes"}]


@pytest.mark.parametrize(
    ("train", "dev", "options", "message"),
    [
        (
            GOOD,
            [{"a": "w", "y": "yess"}],
            {},
            r"dev.jsonl, line 1: the label 'yess' does not occur in training. Did you mean 'yes'\?",
        ),
        (GOOD, [{"a": " ", "y": "no"}], {}, "dev.jsonl, line 1: the text in 'a' is empty"),
        (GOOD, GOOD, {"text": "b"}, "line 1: there is no column 'b'.* Columns: a, y"),
        (GOOD, GOOD, {"label": "yy"}, r"line 1: there is no column 'yy'. Did you mean 'y'\?"),
        (GOOD[:1], GOOD[:1], {}, "train.jsonl: only one row"),
        (GOOD[:1] * 2, GOOD[:1], {}, "train.jsonl: every y is 'no'; a classifier needs at least two classes"),
        ([*GOOD, {"a": "w", "y": ""}], GOOD, {}, "train.jsonl, line 3: there is no label in 'y'"),
        (GOOD, [], {}, "dev.jsonl: the file has no rows"),
        ([{"a": "x", "y": 1}, {"a": "z", "y": "two"}], GOOD, {"head": "regression"}, "line 2: 'two' is not a number"),
        *(
            (
                [{"a": "x", "y": "0.5"}, {"a": "z", "y": beyond}],
                GOOD,
                {},
                "line 2: the label in 'y' is .*, not a finite",
            )
            for beyond in ("1e999", "-inf", "Infinity", 10**400)
        ),
        ([{"a": "x", "y": 0.5}] * 2, [{"a": "x", "y": 0.5}], {}, "every y is 0.5; there is nothing to learn"),
        ([{"a": ["x"], "y": ["O", "O"]}] * 2, [], {}, "the file has no rows"),
        ([{"a": ["x"], "y": ["O", "O"]}] * 2, [{"a": ["x"], "y": ["O"]}], {}, "line 1: 1 tokens but 2 tags"),
        ([{"a": ["x"], "y": ["O"]}] * 2, [{"a": ["x"], "y": ["O"]}], {}, "every tag is 'O'"),
        ([{"a": "x", "y": []}] * 2, [{"a": "x", "y": []}], {}, "every y is empty"),
        ([{"a": "x", "y": None}] * 2, GOOD, {}, "the column 'y' is empty in all rows"),
    ],
)
def test_faults_are_named(tmp_path: Path, train: Rows, dev: Rows, options: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(tmp_path, train, dev, **options)


def test_a_span_task_needs_two_texts_and_text_names_no_more(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs two texts"):
        load(tmp_path, GOOD, head="span")
    with pytest.raises(ConfigError, match="names 3 columns"):
        load(tmp_path, GOOD, text="a,b,c")


def test_a_text_of_a_hundred_thousand_characters_is_not_truncated(tmp_path: Path) -> None:
    data = load(tmp_path, [{"a": "word " * 20_000, "y": "no"}, {"a": "z", "y": "yes"}])
    assert len(data.splits["train"].examples[0].text) == 100_000


def test_labels_that_differ_only_in_case_stay_classes_and_one_note_names_them(tmp_path: Path) -> None:
    rows = [{"a": text, "y": label} for text, label in (("x", "Pos"), ("z", "pos"), ("u", "neg"), ("v", "NEG"))]
    data = load(tmp_path, rows)
    assert data.labels == ("NEG", "Pos", "neg", "pos")
    note_text = "labels differ only in case ('NEG' and 'neg'; 'Pos' and 'pos'); they are separate classes"
    notes = [note for split in data.splits.values() for note in split.notes]
    assert [note_text in note for note in notes] == [True]
    assert all("case" not in note for note in load(tmp_path, rows[1:3]).splits["train"].notes)


def test_answers_are_detected_as_question_answering_by_their_column(tmp_path: Path) -> None:
    rows = [{"q": "who?", "c": "Li Bai", "y": {"text": ["Li"], "answer_start": [0]}}] * 2
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = load_user_data(str(tmp_path / "t.jsonl"), str(tmp_path / "t.jsonl"), text="q,c", label="y")
    assert data.reasons == ("detected extractive question answering (column 'y')",)


@pytest.mark.parametrize("head", [None, "classification", "span"])
def test_cells_in_the_spelling_of_python_are_refused_by_name(tmp_path: Path, head: Any) -> None:
    file = tmp_path / "x.csv"
    file.write_text("q,c,y\n" + "Who?,a b,\"{'text': ['b'], 'answer_start': [2]}\"\n" * 2)
    with pytest.raises(DataError, match=r"x.csv, line 2: .* is a list or object in Python syntax, not in JSON"):
        load_user_data(str(file), str(file), text="q,c", label="y", head=head)
    file.write_text("a,y\n" + "\"['Li', 'left']\",1\n" * 2)
    with pytest.raises(DataError, match=r"x.csv, line 2: .* is a list or object in Python syntax"):
        load_user_data(str(file), str(file), text="a", label="y")


def test_a_repeated_key_is_refused_in_every_form_of_json(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    row = '{"a": "x",\n"y": "p", "y": "q"}'
    for content in (row.replace("\n", " "), f"[{row}]", f'{{"data": [{row}]}}'):
        file.write_text(content)
        with pytest.raises(DataError, match=r"x.json(, line 1)?: the key 'y' occurs twice in one object"):
            load_user_data(str(file), str(file), text="a", label="y")
    (tmp_path / "x.tsv").write_text("a\ty\n" + row.replace("\n", " ").join(("x\t", "\n")))
    with pytest.raises(DataError, match=r"x.tsv, line 2: the key 'y' occurs twice"):
        load_user_data(str(tmp_path / "x.tsv"), str(tmp_path / "x.tsv"), text="a", label="y")
