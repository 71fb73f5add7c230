"""Contexts with questions and answers → examples, with every answer found in its context.

Three forms hold them: SQuAD's nested JSON, CMRC 2018's own (`context_text`, `query_text`, answers as plain strings),
and the Hub's flat rows. What `answer_start` says is believed only where the text really stands there.
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
    """One question as a file has it; `answers` are (text, start) with start None where the file gives none.

    No answers (an empty tuple) make it unanswerable; None is a question whose answers the file does not tell.
    """

    place: str
    id: str
    question: str
    context: str
    answers: tuple[tuple[str, int | None], ...] | None


def read_spans(dataset: Dataset, file: str, *, labelled: bool) -> tuple[list[Example], list[str]]:
    """(examples, notes) of one file; the notes count the answers whose start was wrong, missing or nowhere to be found.

    `label` is None for a question without answers, which only a file that is not `labelled` may have: no declared set
    has unanswerable questions. Where the set is declared `traditional` and the file is, context,
    question and answers are turned into Simplified, one character for one, so offsets stay. Raises `DataError` for a
    file of another form, a training or development file with a question without an answer, and one without an answer
    that its context holds.
    """
    questions = list(read_questions(file))
    notes = []
    if dataset.traditional and is_traditional(question.context for question in questions):
        simplify = cache(build_simplifier(file))  # many questions share a context
        questions = [_simplify_question(question, simplify) for question in questions]
        notes.append(f"{file}: Traditional characters turned into Simplified, one for one")
    counts: Counter[str] = Counter()
    examples = [replace(one, label=one.label or None) for one in (build_example(each, counts) for each in questions)]
    if labelled and not counts:
        raise DataError(f"no question in {file} has an answer; training and development files need them.")
    bare = [question.place for question in questions if not question.answers]
    if labelled and bare:
        raise DataError(
            f"{bare[0]}: it has no answer ({len(bare)} of {len(questions)} have none); {dataset.title} has no "
            "unanswerable questions. Take them out, or train on files of your own with --text question,context --label "
            "answers."
        )
    if labelled and not counts["right"] + counts["wrong"] + counts["missing"]:
        raise DataError(f"{file}: no answer occurs in its context; check that contexts and answers belong together.")
    return examples, [*notes, *answer_notes(file, counts)]


def read_questions(file: str) -> Iterator[Question]:
    """The questions of a .json, .jsonl or .parquet file in any of the three forms. Raises `DataError`."""
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
            f"{file}: not of SQuAD's form (data → paragraphs → context, qas → question, id, answers → text, "
            f"answer_start); met {type(error).__name__}: {error}."
        ) from error


def build_example(question: Question, counts: Counter[str]) -> Example:
    """The example of a question, its answers found; counts answers as right, wrong, missing (no start was given) or
    absent (not in the context), and questions whose answers are all absent as `lost`."""
    answers = []
    for text, start in question.answers or ():
        found, kind = locate_answer(question.context, text, start)
        counts[kind] += 1
        answers.append(Answer(text, found))
    if answers and all(answer.start < 0 for answer in answers):
        counts["lost"] += 1
    label = None if question.answers is None else tuple(answers)
    return Example(question.id, question.question, question.context, label)


def locate_answer(context: str, text: str, start: int | None) -> tuple[int, str]:
    """(where `text` stands in `context`, or -1; 'right', 'wrong', 'missing' or 'absent').

    A start is right when the text stands there. Else the occurrence nearest to it is taken, the first one where the
    start is missing, negative or beyond the end.
    """
    given = start is not None and start >= 0
    if given and text and context.startswith(text, start):
        return int(start or 0), "right"
    places = []
    at = context.find(text) if text else -1
    while at >= 0:
        places.append(at)
        at = context.find(text, at + 1)
    if not places:
        return -1, "absent"
    aim = int(start or 0) if given and int(start or 0) <= len(context) else 0
    return min(places, key=lambda place: (abs(place - aim), place)), "wrong" if given else "missing"


def answer_notes(file: str, counts: Mapping[str, int]) -> list[str]:
    """What a user should know about the answers of a file, in words."""
    total = sum(counts.get(kind, 0) for kind in ("right", "wrong", "missing", "absent"))
    said = {
        "wrong": "have an answer_start at which they do not stand; the nearest occurrence is taken",
        "missing": "have no answer_start; the first occurrence is taken",
        "absent": "do not occur in their context; they count when scoring but cannot be learnt from",
    }
    notes = [f"{file}: {counts[kind]} of {total} answers {words}" for kind, words in said.items() if counts.get(kind)]
    if counts.get("lost"):
        notes.append(f"{file}: {counts['lost']} questions have no answer in their context and are not trained on")
    return notes


def _nested(file: str, content: Any) -> Iterator[Question]:
    if isinstance(content, list):  # CMRC 2018 before its SQuAD-style edition
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
    """The question that these cells hold; `impossible` makes it unanswerable.

    Raises `DataError` for answers beside `impossible`, and for a cell that is not of its kind.
    """
    if not isinstance(question, str) or not isinstance(context, str):
        raise DataError(f"{place}: question and context must be text.")
    found = None if is_missing(answers) else tuple(parse_answers(answers, place))
    unanswerable = _is_true(impossible, place)
    if unanswerable and found:
        raise DataError(f"{place}: is_impossible is set, but there is an answer; take out one of them.")
    return Question(place, str(identity), question, context, () if unanswerable else found)


def _is_true(value: Any, place: str) -> bool:
    """Whether a cell of is_impossible is set; in .tsv and .csv it is a word."""
    if is_missing(value):
        return False
    truth = _TRUTHS.get(str(value).strip().lower())
    if truth is None:
        raise DataError(f"{place}: is_impossible is {_abbreviate(value)}; write true or false.")
    return truth


def parse_answers(value: Any, place: str) -> Iterator[tuple[str, int | None]]:
    """(text, start or None) of answers written as a string, strings, objects, or the Hub's object of two lists.

    Raises `DataError` for any other form.
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
        raise DataError(f"{place}: answers are text, or objects with text and answer_start; got {value!r}.")


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{place}: an answer is {json_type(value)}, not a string.")
    return value


def _start(value: Any, place: str) -> int | None:
    """A start as a number, None where it is missing; pandas writes 4.0 for 4 where others are missing."""
    if is_missing(value):
        return None
    number = parse_number(value)
    if number is None or not number.is_integer():
        raise DataError(f"{place}: an answer_start is {_abbreviate(value)}; write a whole number, from 0 on.")
    return int(number)


def _abbreviate(value: Any) -> str:
    """A cell for a message, never more than a few words."""
    return repr(value)[:60] if isinstance(value, str | float) else json_type(value)


def _simplify_question(question: Question, simplify: Callable[[str], str]) -> Question:
    """The question in Simplified characters. An answer is cut from the converted context, so that it stands in it even
    where a character is converted otherwise outside its sentence."""
    context = simplify(question.context)
    answers = []
    for text, start in question.answers or ():
        place, _ = locate_answer(question.context, text, start)
        answers.append((context[place : place + len(text)] if place >= 0 else simplify(text), start))
    found = None if question.answers is None else tuple(answers)
    return Question(question.place, question.id, simplify(question.question), context, found)
