"""Build tasks from recipe options: validated options, the corpora to read, and classes from the data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import ValidationError

from ernie2.config.problems import explain
from ernie2.corpora.pairs import sort_labels
from ernie2.errors import USER_CODE_ERRORS, ConfigError, Ernie2Error, TaskError, did_you_mean, user_code_location
from ernie2.shards.store import ShardedCorpus
from ernie2.shards.tokenizer import SubwordTokenizer
from ernie2.tasks.base import TASK_WITH_ID_ZERO, Task, Vocabulary, find_task

CORPUS_KINDS = {"documents": "documents", "pairs": "labelled pairs"}
"""Kinds of corpora → their names in messages."""


def build_tasks(
    options: Mapping[str, Mapping[str, Any] | None], vocabulary: Vocabulary, corpora: Mapping[str, ShardedCorpus]
) -> list[Task]:
    """Build the tasks of a recipe (name → options) in its order.

    A task with `labels_from_data` gets the labels of all its corpora as its option `labels`: integers sorted by value,
    others by name. Labels already set in the options (resumed runs, checkpoints) stay.

    Raises `ConfigError` for invalid options. Raises `TaskError` if a task names a corpus it cannot read, if its labels
    are ambiguous, or if the data has a label missing from its options.
    """
    tasks = [build_task(name, given, vocabulary) for name, given in options.items()]
    return [_with_labels(task, tasks, corpora) if task.labels_from_data else task for task in tasks]


def task_options(tasks: list[Task]) -> dict[str, dict[str, Any]]:
    """Return the options of `tasks` with all defaults and labels, as plain JSON for checkpoints."""
    return {task.name: task.options.model_dump(mode="json") for task in tasks}


def task_ids(names: Sequence[str], rows: int) -> dict[str, int]:
    """Assign task ids: knowledge masking is row 0, others follow in recipe order; all 0 without a task embedding."""
    if not rows:
        return dict.fromkeys(names, 0)
    ordered = [TASK_WITH_ID_ZERO, *(name for name in names if name != TASK_WITH_ID_ZERO)]
    if len(ordered) > rows:
        raise ConfigError(f"{len(names)} tasks need {len(ordered)} task ids, but encoder.task_ids={rows}; raise it.")
    return {name: row for row, name in enumerate(ordered) if name in names}


def build_task(name: str, options: Mapping[str, Any] | None, vocabulary: Vocabulary) -> Task:
    """Build the task called `name`, without labels from the data.

    Raises `ConfigError` for invalid options, and `TaskError` if the constructor fails.
    """
    task = find_task(name)
    try:
        checked = task.Options.model_validate(dict(options or {}))
    except ValidationError as error:
        problems = "; ".join(explain(error, task.Options, dict(options or {})))
        raise ConfigError(f"options of task {name!r}: {problems}.") from error
    try:
        return task(checked, vocabulary)
    except Ernie2Error:
        raise
    except USER_CODE_ERRORS as error:
        raise TaskError(
            f"task {name!r} of {task.__module__} cannot be built: {error!r}{user_code_location(error)}."
        ) from error


def _with_labels(task: Task, tasks: list[Task], corpora: Mapping[str, ShardedCorpus]) -> Task:
    read = corpora_for(task, corpora)
    if task.options.labels is not None:
        check_labels(task, read)
        return task
    labels = sort_labels(label for corpus in read.values() for label in corpus.labels)
    if not labels:
        raise TaskError(
            f"task {task.name!r} needs {task.needs}, but none of these corpora holds any: {', '.join(corpora)}. Add "
            "one, or remove the task."
        )
    for reason in _label_problems(task, tasks, read, labels):
        raise TaskError(f"task {task.name!r}: {reason}")
    return type(task)(task.options.model_copy(update={"labels": tuple(labels)}), task.vocabulary)


def _label_problems(
    task: Task, tasks: list[Task], read: Mapping[str, ShardedCorpus], labels: list[str]
) -> Iterator[str]:
    names = ", ".join(read)
    if len(labels) == 1:
        yield f"every pair of {names} has the label {labels[0]!r}; with one class there is nothing to learn."
    if task.options.corpora is not None:
        return
    key = f"tasks.{task.name}.corpora"
    others = [other.name for other in tasks if other.labels_from_data and other.name != task.name]
    if others:
        yield f"{', '.join(others)} reads labelled pairs too. Name the corpora of each task ({names}) under {key}."
    if len({frozenset(corpus.labels) for corpus in read.values()}) > 1:
        labels_of = "; ".join(f"{name}: {quote_names(corpus.labels, 3)}" for name, corpus in read.items())
        yield f"its corpora have different labels ({labels_of}). Name those it should read under {key}."


def vocabulary_of(tokenizer: SubwordTokenizer) -> Vocabulary:
    """Return the vocabulary of a tokeniser for tasks."""
    return Vocabulary(
        size=tokenizer.vocab_size,
        cls=tokenizer.cls_id,
        sep=tokenizer.sep_id,
        mask=tokenizer.mask_id,
        pad=tokenizer.pad_id,
        unk=tokenizer.unk_id,
        ordinary=np.asarray(tokenizer.ordinary_ids, np.int64),
        cased=tokenizer.cased,
        tokens=tokenizer.tokens,
    )


def special_tokens_vocabulary() -> Vocabulary:
    """Return a vocabulary of the five special tokens, to build a task before there is a tokeniser."""
    names = ("[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]")
    return Vocabulary(size=5, cls=0, sep=1, mask=2, pad=3, unk=4, ordinary=np.zeros(0, np.int64), tokens=names)


def corpora_for(task: Task, corpora: Mapping[str, ShardedCorpus]) -> dict[str, ShardedCorpus]:
    """Return the corpora `task` reads, by name: those of its option `corpora`, else all of its kind.

    A token task may also name corpora of labelled pairs. Raises `TaskError` if a named corpus is unknown, or of a kind
    that the task cannot read.
    """
    if task.options.corpora is None:
        return {name: corpus for name, corpus in corpora.items() if kind_of_corpus(corpus) == task.corpus_kind}
    for name in task.options.corpora:
        if name not in corpora:
            raise TaskError(
                f"task {task.name!r} reads corpus {name!r}, but the shards have no corpus of that name."
                f"{did_you_mean(name, corpora)} They have: {', '.join(corpora)}."
            )
        if (wrong := _wrong_kind(task, name, kind_of_corpus(corpora[name]))) is not None:
            raise TaskError(wrong)
    return {name: corpora[name] for name in task.options.corpora}


def corpus_problems(tasks: Mapping[type[Task], Sequence[str] | None], kinds: Mapping[str, str]) -> Iterator[str]:
    """Yield an error message for each task of a recipe that cannot read its corpora; needs no shards.

    `tasks`: class → corpora named in its options, None for all; `kinds`: corpus → "documents" or "pairs".
    """
    pairs = ", ".join(name for name, kind in kinds.items() if kind == "pairs")
    readers = [task.name for task in tasks if task.labels_from_data]
    for task, named in tasks.items():
        for name in named or ():
            if name in kinds and (wrong := _wrong_kind(task, name, kinds[name])) is not None:
                yield wrong
        if named is not None:
            continue
        if task.corpus_kind not in kinds.values():
            yield (
                f"task {task.name!r} reads {CORPUS_KINDS[task.corpus_kind]}, and no corpus of the recipe holds any. "
                f"Add one{' (a corpus with `pairs`)' if task.corpus_kind == 'pairs' else ''}, or remove the task."
            )
        elif task.labels_from_data and len(readers) > 1:
            others = ", ".join(name for name in readers if name != task.name)
            yield (
                f"task {task.name!r}: {others} reads labelled pairs too. Name the corpora of each task ({pairs}) "
                f"under tasks.{task.name}.corpora."
            )


def _wrong_kind(task: Task | type[Task], corpus: str, kind: str) -> str | None:
    """Return why `task` cannot read `corpus` of this kind, or None; token tasks can read both kinds."""
    if kind == task.corpus_kind or (kind == "pairs" and task.level == "token"):
        return None
    return (
        f"task {task.name!r} reads {CORPUS_KINDS[task.corpus_kind]}, but corpus {corpus!r} holds {CORPUS_KINDS[kind]}. "
        f"Remove {corpus!r} from tasks.{task.name}.corpora, or remove the task."
    )


def kind_of_corpus(corpus: ShardedCorpus) -> str:
    """Return "pairs" for a corpus of labelled pairs, else "documents"."""
    return "pairs" if corpus.labels else "documents"


def check_labels(task: Task, corpora: Mapping[str, ShardedCorpus]) -> None:
    """Raise `TaskError` if a corpus has a label that is not a class of `task`."""
    if not task.labels_from_data:
        return
    for name, corpus in corpora.items():
        unknown = [label for label in corpus.labels if label not in (task.labels or ())]
        if unknown:
            raise TaskError(
                f"task {task.name!r} reads corpus {name!r}, whose label {quote_names(unknown)} is none of its classes "
                f"({quote_names(task.labels or ())}). Add it to tasks.{task.name}.labels, remove {name!r} from "
                f"tasks.{task.name}.corpora, or remove `labels` to use those of the data."
            )


def quote_names(names: tuple[str, ...] | list[str], most: int = 10) -> str:
    """Return the first `most` names in quotes, and the number of others."""
    left = len(names) - most
    more = f" and {left} other{'s' * (left > 1)}" if left > 0 else ""
    return ", ".join(map(repr, names[:most])) + more
