"""Read labelled user files as examples; the kind of task is detected (task_guess.py) or given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast, get_args

from ernie2.corpora.cells import (
    describe_changes,
    is_missing,
    parse_number,
    parse_table_cell,
    parse_text,
    parse_tokens,
    row_name,
)
from ernie2.datasets.examples import METRICS, Example, Head, Label, LabelledData, Split
from ernie2.datasets.labelled_files import as_list
from ernie2.datasets.span_files import Question, answer_notes, build_example, parse_question, read_questions
from ernie2.datasets.tag_files import TAG_FILES, is_tag_file, read_tag_file
from ernie2.datasets.tag_schemes import Scheme
from ernie2.datasets.task_guess import CHOICES, HEAD_NAMES, guess_head, multiple_choice_error
from ernie2.datasets.user_labels import (
    abbreviate_labels,
    case_conflict_notes,
    check_answers,
    check_known,
    check_labelled,
    check_train,
    clear_minus_one_labels,
    drop_dash_labels,
    read_label,
    read_tags,
    resolve_scheme,
)
from ernie2.errors import ConfigError, DataError, did_you_mean
from ernie2.formatting import quantity
from ernie2.storage.files import RepeatedKeyError, json_value, read_lines
from ernie2.storage.listing import file_format, list_files
from ernie2.storage.tables import TABLE_FORMATS, Row, column, read_rows

_WHICH_TEXT = "Name the right ones with --text."
_WHICH_LABEL = "Name the right one with --label."
_SPAN_COLUMNS = ("question", "context", "answers")
"""Default columns of SQuAD's form, nested or flat."""
_UNANSWERABLE = ("has_answer_exact_match", "has_answer_f1", "no_answer_exact_match", "no_answer_f1")


def load_user_data(
    train: str,
    dev: str,
    test: str | None = None,
    *,
    text: str,
    label: str,
    head: str | None = None,
    scheme: str | None = None,
) -> LabelledData:
    """Load a dataset from user files: tables, or CoNLL files for tagging; each is a path, glob or URL.

    `text` names one column, or two separated by a comma; `label` names one. The defaults "text" and "label" also match
    question, context and answers of SQuAD's form. `head` overrides the detected kind of task, explained in `reasons`.
    `scheme` overrides the tag scheme detected in the training tags. Classes are those of the training file, sorted
    (numbers by value). A test file may lack labels.

    Raises `ConfigError` for an unknown head or scheme, and `DataError` with file and line for a missing column, an
    empty text, a missing label, a label that training does not have, tags that do not match their tokens or a scheme, a
    training file with fewer than two rows or a single class, and answers of which none is in its context.
    """
    if head is not None and head not in get_args(Head):
        raise ConfigError(f"{head!r} is not a kind of task.{did_you_mean(head, get_args(Head))} "
                          f"Known: {', '.join(get_args(Head))}.")  # fmt: skip
    texts = [part.strip() for part in text.split(",")]
    if not 1 <= len(texts) <= 2 or not all(texts):
        raise ConfigError(f"--text {text!r} names {len(texts)} columns; name one, or two separated by a comma.")
    paths = {"train": train, "dev": dev} | ({"test": test} if test is not None else {})
    files = {split: tuple(list_files([path], (*TABLE_FORMATS, *TAG_FILES))) for split, path in paths.items()}
    rows, file_notes = _rows(files, texts, label, None if head is None else head == "tagging")
    texts, label = _span_columns(rows["train"], texts, label)
    for split, split_rows in rows.items():
        _check_rows(split, paths[split], split_rows, texts, label)
    kind, reason = (
        (cast(Head, head), "set with --head") if head is not None else guess_head(rows["train"], texts, label)
    )
    detected = f"{'detected ' if head is None else ''}{HEAD_NAMES.get(kind, kind)} ({reason})"
    splits, labels = _splits(kind, rows, files, paths, texts, label)
    splits = {split: replace(one, notes=(*file_notes[split], *one.notes)) for split, one in splits.items()}
    unanswerable = kind == "span" and any(one.label == () for split in splits.values() for one in split.examples)
    tag_scheme, scheme_reason = None, ""
    if kind == "tagging":
        tag_scheme, scheme_reason, splits = resolve_scheme(splits, rows, scheme)
    elif scheme is not None:
        raise ConfigError(f"--scheme {scheme} is for tagging, but the task is: {detected}.")
    return LabelledData(
        name="own",
        head=kind,
        labels=labels,
        metrics=(*_metrics(kind, labels, tag_scheme), *(_UNANSWERABLE if unanswerable else ())),
        splits=splits,
        positive=labels[-1] if kind == "classification" and len(labels) == 2 else None,
        answer_rules=_answer_rules(splits["train"]) if kind == "span" else None,
        unanswerable=unanswerable,
        scheme=tag_scheme,
        texts=tuple(texts),
        reasons=(
            detected,
            *([f"labels: {abbreviate_labels(labels)}"] if labels else []),
            *([f"tag scheme: {scheme_reason}"] if scheme_reason else []),
        ),
    )


def _rows(
    files: Mapping[str, tuple[str, ...]], texts: Sequence[str], label: str, tagging: bool | None
) -> tuple[dict[str, list[Row]], dict[str, list[str]]]:
    """Return (rows, notes) by split."""
    rows: dict[str, list[Row]] = {split: [] for split in files}
    notes: dict[str, list[str]] = {split: [] for split in files}
    for split, paths in files.items():
        for file in paths:
            if not is_tag_file(file, tagging=tagging):
                rows[split] += rows_of(file)
                continue
            if len(texts) > 1:
                raise ConfigError(f"--text {','.join(texts)}: {file} has one token per line; name one column.")
            tag_rows, tag_notes = read_tag_file(file, texts[0], label)
            rows[split] += tag_rows
            notes[split] += tag_notes
    return rows, notes


def _span_columns(rows: Sequence[Row], texts: list[str], label: str) -> tuple[list[str], str]:
    """Return (texts, label); for rows in SQuAD's form, its columns replace defaults that do not exist."""
    if rows and all(name in rows[0].cells for name in _SPAN_COLUMNS):
        if texts == ["text"] and "text" not in rows[0].cells:
            texts = list(_SPAN_COLUMNS[:2])
        if label == "label" and "label" not in rows[0].cells:
            label = _SPAN_COLUMNS[2]
    return texts, label


def rows_of(file: str) -> Iterator[Row]:
    """Return the rows of a table; a .json file may also be a list of objects, or SQuAD's nested form."""
    if file_format(file, TABLE_FORMATS).split(".")[1] != "json":
        return read_rows(file)
    try:
        content = json_value(b"\n".join(read_lines(file)), file)
    except RepeatedKeyError:
        raise
    except DataError:
        return read_rows(file)  # one object per line; for invalid JSON, the error names the line
    if isinstance(content, dict) and "data" in content:
        return (Row(question.place, _cells(question)) for question in read_questions(file))
    if isinstance(content, list) and (name := _choices_in(content)):
        raise multiple_choice_error(f"{file}, item 1", name)
    return read_rows(file)


def _choices_in(content: list[Any]) -> str:
    """Return the key of the choices in C3's list of lists (texts with their questions), or ""."""
    first = content[0] if content and isinstance(content[0], list) else []
    questions = [one for part in first if isinstance(part, list) for one in part if isinstance(one, dict)]
    return next((name for one in questions for name in CHOICES if name in one), "")


def _cells(question: Question) -> dict[str, Any]:
    answers = None
    if question.answers is not None:
        answers = [{"text": text, "answer_start": start} for text, start in question.answers]
    return {"id": question.id, "question": question.question, "context": question.context, "answers": answers}


def _splits(
    kind: Head,
    rows: dict[str, list[Row]],
    files: dict[str, tuple[str, ...]],
    names: Mapping[str, str],
    texts: Sequence[str],
    label: str,
) -> tuple[dict[str, Split], tuple[str, ...]]:
    splits: dict[str, Split] = {}
    train_labels: set[Label] = set()
    known: tuple[str, ...] = ()
    for split, split_rows in rows.items():
        answers: Counter[str] = Counter()
        changes: Counter[str] = Counter()
        examples = [
            _example(kind, row, number, texts, label, answers, changes) for number, row in enumerate(split_rows)
        ]
        if split == "train":
            train_labels = {example.label for example in examples if example.label is not None}
        if split == "test":
            examples = clear_minus_one_labels(kind, examples, train_labels, changes)
        examples, split_rows = drop_dash_labels(kind, examples, split_rows, train_labels, changes)
        if not examples:
            raise DataError(f"{names[split]}: no row has a label on which annotators agreed; add other examples.")
        if split != "test":
            check_labelled(examples, split_rows, label)
        if split == "train":
            known = _classes(kind, examples)
            check_train(kind, examples, known, files["train"][0], label)
            conflicts = case_conflict_notes(files["train"][0], known)
        check_known(kind, examples, split_rows, known)
        notes = [*answer_notes(files[split][0], answers), *_text_notes(names[split], examples)]
        if kind == "span":
            examples = check_answers(split, files[split][0], examples, answers, notes)
        notes += [*describe_changes(names[split], changes), *(conflicts if split == "train" else ())]
        splits[split] = Split(tuple(examples), files[split], "own", tuple(notes))
    return splits, known


def _text_notes(file: str, examples: Sequence[Example]) -> list[str]:
    count = sum(text in ("nan", "NaN") for example in examples for text in (example.text, example.pair))
    if not count:
        return []
    return [f"{file}: the word nan is the text of {quantity(count, 'row')}; remove them if it marks a missing text"]


def _example(
    kind: Head,
    row: Row,
    number: int,
    texts: Sequence[str],
    label: str,
    answers: Counter[str],
    changes: Counter[str],
) -> Example:
    value = parse_table_cell(row.cells.get(label), row.place)
    identity = row_name(row.cells, ("id",), number)
    if kind == "tagging":
        tokens = parse_tokens(as_list(parse_table_cell(row.cells[texts[0]], row.place), row.place), texts[0], row.place)
        if not tokens:
            raise DataError(f"{row.place}: the list in {texts[0]!r} is empty; fill it or remove the row.")
        tags = None if is_missing(value) else read_tags(as_list(value, row.place), label, row.place, changes)
        if tags is not None and len(tags) != len(tokens):
            raise DataError(f"{row.place}: {len(tokens)} tokens but {len(tags)} tags; every token needs one.")
        return Example(identity, " ".join(tokens), label=tags, tokens=tokens)
    words = [_text(row, name) for name in texts]
    if kind == "span":
        if len(words) != 2:
            raise ConfigError("a span task needs two texts, question and context: --text question,context.")
        parsed = parse_question(row.place, identity, words[0], words[1], value, row.cells.get("is_impossible"))
        return build_example(parsed, answers)
    read = read_label(kind, value, label, row.place, changes)
    return Example(identity, words[0], words[1] if len(words) == 2 else None, read)


def _text(row: Row, name: str) -> str:
    text = parse_text(row.cells[name], name, row.place)
    if text is None:
        raise DataError(f"{row.place}: the text in {name!r} is empty; fill it or remove the row.")
    return text


def _check_rows(split: str, path: str, rows: Sequence[Row], texts: Sequence[str], label: str) -> None:
    if not rows:
        raise DataError(f"{path}: the file has no rows; the {split} file needs examples.")
    for row in rows:
        for name in texts:
            if not isinstance(row.cells[column(row, (name,), _WHICH_TEXT, rows)], list):
                _text(row, name)
        if split != "test":
            column(row, (label,), _WHICH_LABEL, rows)


def _classes(kind: Head, examples: Sequence[Example]) -> tuple[str, ...]:
    if kind in ("regression", "span"):
        return ()
    names: set[str] = set()
    for example in examples:
        names.update(map(str, example.label) if isinstance(example.label, tuple) else [str(example.label)])
    return tuple(
        sorted(
            names, key=lambda name: (0, number, name) if (number := parse_number(name)) is not None else (1, 0.0, name)
        )
    )


def _metrics(kind: Head, labels: Sequence[str], scheme: Scheme | None) -> tuple[str, ...]:
    """Return the metrics: tags without a scheme are scored by token; with two classes, F1 is that of the second."""
    if kind == "tagging" and scheme is None:
        return ("token_accuracy",)
    if kind == "classification":
        return ("accuracy", "f1", "macro_f1") if len(labels) == 2 else ("accuracy", "macro_f1")
    return METRICS[kind]


def _answer_rules(train: Split) -> str:
    """Return the answer rules: CMRC 2018's for Chinese contexts, else SQuAD's."""
    sample = "".join((example.pair or "")[:200] for example in train.examples[:50])
    chinese = sum("\u4e00" <= char <= "\u9fff" for char in sample)
    return "cmrc2018" if chinese * 4 > len(sample) else "squad"
