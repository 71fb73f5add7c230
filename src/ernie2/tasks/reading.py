"""Which corpora a task may read: those of its kind, or those its options name."""

from __future__ import annotations

from collections.abc import Mapping

from ernie2.annotate.shards import ShardedCorpus
from ernie2.errors import TaskError, did_you_mean
from ernie2.tasks.base import Task

KINDS = {"documents": "documents", "pairs": "labelled pairs"}
"""How messages call the kinds of corpora."""


def corpora_for(task: Task, corpora: Mapping[str, ShardedCorpus]) -> dict[str, ShardedCorpus]:
    """The corpora `task` may read, by name: those its options name, else all of the kind it reads.

    A token task may name a corpus of labelled pairs: it labels whatever is arranged. Raises `TaskError` where a named
    corpus is unknown, or of a kind the task cannot read.
    """
    if task.options.corpora is None:
        return {name: corpus for name, corpus in corpora.items() if kind_of(corpus) == task.reads}
    for name in task.options.corpora:
        if name not in corpora:
            raise TaskError(
                f"task {task.name!r} is to read corpus {name!r}, but the shards have none of that name."
                f"{did_you_mean(name, corpora)} They have: {', '.join(corpora)}."
            )
        kind = kind_of(corpora[name])
        if kind == task.reads or (kind == "pairs" and task.level == "token"):
            continue
        raise TaskError(
            f"task {task.name!r} is to read corpus {name!r}, which holds {KINDS[kind]}, but it reads "
            f"{KINDS[task.reads]}. Take {name!r} off tasks.{task.name}.corpora, or leave the task out."
        )
    return {name: corpora[name] for name in task.options.corpora}


def kind_of(corpus: ShardedCorpus) -> str:
    """ "pairs" where the documents of a corpus are labelled pairs, else "documents"."""
    return "pairs" if corpus.labels else "documents"


def check_labels(task: Task, corpora: Mapping[str, ShardedCorpus]) -> None:
    """Raises `TaskError` where a corpus that `task` reads has a label that is none of the classes the task has."""
    if not task.labels_from_data:
        return
    for name, corpus in corpora.items():
        unknown = [label for label in corpus.labels if label not in (task.labels or ())]
        if unknown:
            raise TaskError(
                f"task {task.name!r} reads corpus {name!r}, whose label {listed(unknown)} is none of its classes "
                f"({listed(task.labels or ())}). Add it to tasks.{task.name}.labels, take {name!r} off "
                f"tasks.{task.name}.corpora, or leave `labels` out to have those of the data."
            )


def listed(names: tuple[str, ...] | list[str], most: int = 10) -> str:
    """The first `most` names, and how many others there are."""
    left = len(names) - most
    more = f" and {left} other{'s' * (left > 1)}" if left > 0 else ""
    return ", ".join(map(repr, names[:most])) + more
