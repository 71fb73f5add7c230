"""Read contexts with questions and answers as examples, and locate every answer in its context.

Three forms are read: SQuAD's nested JSON, CMRC 2018's JSON (`context_text`, `query_text`, answers as strings), and the
Hub's flat rows. An `answer_start` is used only if the answer is at that position.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from ernie2.corpora.cells import is_missing, parse_number
from ernie2.datasets.declarations import Dataset
from ernie2.datasets.examples import Answer, Example
from ernie2.datasets.simplified_chinese import build_simplifier, is_traditional
from ernie2.errors import DataError
from ernie2.storage.files import json_type, json_value, read_lines
from ernie2.storage.tables import column, read_rows

_TRUTHS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


@dataclass(frozen=True)
class Question:
    """One question of a file; `answers` are (text, start), with start None if the file has none.

    An empty tuple means unanswerable; None means that the file does not give the answers.
    """

    place: str
    id: str
    question: str
    context: str
    answers: tuple[tuple[str, int | None], ...] | None


def read_spans(dataset: Dataset, file: str, *, labelled: bool) -> tuple[list[Example], list[str]]:
    """Return (examples, notes) of one file; notes count answers with a wrong or missing start, or not in the context.

    `label` is None for a question without answers, allowed only if not `labelled`: no declared dataset has unanswerable
    questions. If the dataset is declared `traditional` and the file is in Traditional characters, all texts are
    converted to Simplified ones; offsets do not change. Raises `DataError` for a file of another form, and for a
    training or development file with a question without answers, or without any answer that is in its context.
    """
    questions = list(read_questions(file))
    notes = []
    if dataset.traditional and is_traditional(question.context for question in questions):
        simplify = cache(build_simplifier(file))  # many questions share a context
        questions = [_simplify_question(question, simplify) for question in questions]
        notes.append(f"{file}: Traditional characters converted to Simplified, one for one")
    counts: Counter[str] = Counter()
    examples = [replace(one, label=one.label or None) for one in (build_example(each, counts) for each in questions)]
    if labelled and not counts:
        raise DataError(f"no question in {file} has an answer; training and development files need them.")
    bare = [question.place for question in questions if not question.answers]
    if labelled and bare:
        raise DataError(
            f"{bare[0]}: it has no answer ({len(bare)} of {len(questions)} have none); {dataset.title} has no "
            "unanswerable questions. Remove them, or pass your own files with --text question,context --label answers."
        )
    if labelled and not counts["right"] + counts["wrong"] + counts["missing"]:
        raise DataError(f"{file}: no answer occurs in its context; check that contexts and answers belong together.")
    return examples, [*notes, *answer_notes(file, counts)]


def read_questions(file: str) -> Iterator[Question]:
    """Yield the questions of a .json, .jsonl or .parquet file in any of the three forms. Raises `DataError`."""
    if ".json" not in file.lower() or ".jsonl" in file.lower():
        for number, row in enumerate(read_rows(file)):
            names = [column(row, (name,)) for name in ("question", "context", "answers")]
            question, context, answers = (row.cells[name] for name in names)
            impossible = row.cells.get("is_impossible")
            yield parse_question(row.place, row.cells.get("id", number), question, context, answers, impossible)
        return
    content = json_value(b"\n".join(read_lines(file)), file)
    try:
        yield from _nested(file, content)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{file}: not in SQuAD's form (data → paragraphs → context, qas → question, id, answers → text, "
            f"answer_start); {type(error).__name__}: {error}."
        ) from error


def build_example(question: Question, counts: Counter[str]) -> Example:
    """Return the example of a question with located answers.

    Counts answers by the result of `locate_answer`, and questions without any answer in the context as `lost`.
    """
    answers = []
    for text, start in question.answers or ():
        position, result = locate_answer(question.context, text, start)
        counts[result] += 1
        answers.append(Answer(text, position))
    if answers and all(answer.start < 0 for answer in answers):
        counts["lost"] += 1
    label = None if question.answers is None else tuple(answers)
    return Example(question.id, question.question, question.context, label)


def locate_answer(context: str, text: str, start: int | None) -> tuple[int, str]:
    """Return (position of `text` in `context` or -1; 'right', 'wrong', 'missing' or 'absent').

    right: the text is at `start`. wrong: it is elsewhere; the nearest occurrence is used, the first one if `start` is
    beyond the end. missing: `start` is None or negative; the first occurrence is used. absent: not in the context.
    """
    given = start is not None and start >= 0
    if given and text and context.startswith(text, start):
        return int(start or 0), "right"
    positions = []
    at = context.find(text) if text else -1
    while at >= 0:
        positions.append(at)
        at = context.find(text, at + 1)
    if not positions:
        return -1, "absent"
    target = int(start or 0) if given and int(start or 0) <= len(context) else 0
    return min(positions, key=lambda at: (abs(at - target), at)), "wrong" if given else "missing"


def answer_notes(file: str, counts: Mapping[str, int]) -> list[str]:
    """Return notes on wrong, missing and absent answers of a file."""
    total = sum(counts.get(kind, 0) for kind in ("right", "wrong", "missing", "absent"))
    problems = {
        "wrong": "are not at their answer_start; the nearest occurrence is used",
        "missing": "have no answer_start; the first occurrence is used",
        "absent": "do not occur in their context; they count for the score but are not trained on",
    }
    notes = [
        f"{file}: {counts[kind]} of {total} answers {problem}" for kind, problem in problems.items() if counts.get(kind)
    ]
    if counts.get("lost"):
        notes.append(f"{file}: {counts['lost']} questions have no answer in their context and are not trained on")
    return notes


def _nested(file: str, content: Any) -> Iterator[Question]:
    if isinstance(content, list):  # CMRC 2018 before its release in SQuAD's form
        paragraphs, names = content, ("query_id", "query_text", "context_text")
    else:
        paragraphs = [paragraph for document in content["data"] for paragraph in document["paragraphs"]]
        names = ("id", "question", "context")
    for paragraph in paragraphs:
        for query in paragraph["qas"]:
            identity, question, context = query[names[0]], query[names[1]], paragraph[names[2]]
            answers, impossible = query.get("answers"), query.get("is_impossible")
            yield parse_question(f"{file}, question {identity}", identity, question, context, answers, impossible)


def parse_question(
    place: str, identity: Any, question: Any, context: Any, answers: Any, impossible: Any = None
) -> Question:
    """Return the question in these cells; `impossible` makes it unanswerable.

    Raises `DataError` if `impossible` is set and there are answers, and for a cell of a wrong type.
    """
    if not isinstance(question, str) or not isinstance(context, str):
        raise DataError(f"{place}: question and context must be text.")
    parsed = None if is_missing(answers) else tuple(parse_answers(answers, place))
    unanswerable = _is_true(impossible, place)
    if unanswerable and parsed:
        raise DataError(f"{place}: is_impossible is set, but there is an answer; remove one of them.")
    return Question(place, str(identity), question, context, () if unanswerable else parsed)


def _is_true(value: Any, place: str) -> bool:
    """Return whether a cell of is_impossible is set; in .tsv and .csv it is a word."""
    if is_missing(value):
        return False
    truth = _TRUTHS.get(str(value).strip().lower())
    if truth is None:
        raise DataError(f"{place}: is_impossible is {_abbreviate(value)}; write true or false.")
    return truth


def parse_answers(value: Any, place: str) -> Iterator[tuple[str, int | None]]:
    """Yield (text, start or None) of answers: a string, strings, objects, or the Hub's object of two lists.

    Raises `DataError` for other forms.
    """
    if value is None:
        return
    if isinstance(value, str):
        yield value, None
    elif isinstance(value, Mapping) and isinstance(value.get("text"), Sequence) and not isinstance(value["text"], str):
        starts = value.get("answer_start")
        if is_missing(starts) or starts == []:
            starts = [None] * len(value["text"])
        if not isinstance(starts, list | tuple):
            raise DataError(f"{place}: text is a list, but answer_start is {json_type(starts)}; write a list of both.")
        if len(starts) != len(value["text"]):
            raise DataError(f"{place}: {len(value['text'])} answers but {len(starts)} starts; every answer needs one.")
        for text, start in zip(value["text"], starts, strict=True):
            yield _text(text, place), _start(start, place)
    elif isinstance(value, Mapping) and "text" in value:
        yield _text(value["text"], place), _start(value.get("answer_start"), place)
    elif isinstance(value, Sequence):
        for one in value:
            yield from parse_answers(_text(one, place) if one is None else one, place)
    else:
        raise DataError(f"{place}: answers must be text, or objects with text and answer_start (got {value!r}).")


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{place}: an answer is {json_type(value)}, not a string.")
    return value


def _start(value: Any, place: str) -> int | None:
    """Return a start as an integer, None if missing; pandas writes 4.0 for 4 in columns with missing values."""
    if is_missing(value):
        return None
    number = parse_number(value)
    if number is None or not number.is_integer():
        raise DataError(f"{place}: an answer_start is {_abbreviate(value)}; write a whole number, from 0 on.")
    return int(number)


def _abbreviate(value: Any) -> str:
    """Return a cell for a message, at most 60 characters."""
    return repr(value)[:60] if isinstance(value, str | float) else json_type(value)


def _simplify_question(question: Question, simplify: Callable[[str], str]) -> Question:
    """Return the question in Simplified characters.

    Answers are taken from the converted context, because conversion can depend on the sentence.
    """
    context = simplify(question.context)
    answers = []
    for text, start in question.answers or ():
        at, _ = locate_answer(question.context, text, start)
        answers.append((context[at : at + len(text)] if at >= 0 else simplify(text), start))
    converted = None if question.answers is None else tuple(answers)
    return Question(question.place, question.id, simplify(question.question), context, converted)
