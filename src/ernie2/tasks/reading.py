"""Which corpora a task may read: those of its kind, or those its options name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ernie2.errors import TaskError, did_you_mean
from ernie2.shards.store import ShardedCorpus
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
        if (wrong := _wrong_kind(task, name, kind_of(corpora[name]))) is not None:
            raise TaskError(wrong)
    return {name: corpora[name] for name in task.options.corpora}


def problems(tasks: Mapping[type[Task], Sequence[str] | None], kinds: Mapping[str, str]) -> Iterator[str]:
    """What no shards are needed for to see: tasks of a recipe that cannot read its corpora, in sentences.

    `tasks`: class → the corpora its options name, None for all; `kinds`: corpus → "documents" or "pairs".
    """
    pairs = ", ".join(name for name, kind in kinds.items() if kind == "pairs")
    readers = [task.name for task in tasks if task.labels_from_data]
    for task, named in tasks.items():
        for name in named or ():
            if name in kinds and (wrong := _wrong_kind(task, name, kinds[name])) is not None:
                yield wrong
        if named is not None:
            continue
        if task.reads not in kinds.values():
            yield (
                f"task {task.name!r} reads {KINDS[task.reads]}, and no corpus of the recipe holds any. Add one"
                f"{' (a corpus with `pairs`)' if task.reads == 'pairs' else ''}, or leave the task out."
            )
        elif task.labels_from_data and len(readers) > 1:
            others = ", ".join(name for name in readers if name != task.name)
            yield (
                f"task {task.name!r}: {others} reads labelled pairs too. Say which are whose: name corpora ({pairs}) "
                f"under tasks.{task.name}.corpora."
            )


def _wrong_kind(task: Task | type[Task], corpus: str, kind: str) -> str | None:
    """Why `task` cannot read `corpus` of this kind, or None; a token task labels whatever is arranged."""
    if kind == task.reads or (kind == "pairs" and task.level == "token"):
        return None
    return (
        f"task {task.name!r} is to read corpus {corpus!r}, which holds {KINDS[kind]}, but it reads "
        f"{KINDS[task.reads]}. Take {corpus!r} off tasks.{task.name}.corpora, or leave the task out."
    )


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
