"""How many documents of a corpus a task can use: what `prepare` prints, and what a task is refused by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from ernie2.annotate.shards import ShardedCorpus
from ernie2.tasks.base import Task
from ernie2.tasks.reading import corpora_for


class Usable(TypedDict):
    """`usable` documents of the `of` that were looked at; plain JSON."""

    usable: int
    of: int


Table = Mapping[str, Mapping[str, Usable]]
"""By task, then by corpus it may read."""


def count_usable(corpus: ShardedCorpus, task: Task, split: str = "train", most: int = 5_000) -> tuple[int, int]:
    """Returns (usable documents, documents looked at): all of the split, or `most` evenly spaced where it has more.

    A task that `refuses()` the tokeniser can use none.
    """
    size = corpus.documents(split)
    looked_at = min(size, most)
    if task.refuses() is not None:
        return 0, looked_at
    numbers = (i * size // looked_at for i in range(looked_at))
    return sum(task.usable(corpus.document(split, number)) for number in numbers), looked_at


def usable_table(corpora: Mapping[str, ShardedCorpus], tasks: Sequence[Task], split: str = "train") -> Table:
    """Returns `count_usable` for every task and every corpus it may read; raises `TaskError` like `corpora_for`."""
    table: dict[str, dict[str, Usable]] = {task.name: {} for task in tasks}
    for task in tasks:
        for name, corpus in corpora_for(task, corpora).items():
            usable, of = count_usable(corpus, task, split)
            table[task.name][name] = Usable(usable=usable, of=of)
    return table
