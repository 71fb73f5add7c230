"""What of a corpus a task can use: documents, and tokens it scores. `prepare` prints it; a task is refused by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict

from ernie2.shards.store import ShardedCorpus
from ernie2.tasks.base import Task, TokenTask
from ernie2.tasks.reading import corpora_for
from ernie2.tasks.survey import survey
from ernie2.tasks.trying import why_never

LEAST_USABLE = 0.01
"""Share of its documents a corpus must offer a task: below it the walk would mostly pass documents over (ours)."""


class Usable(TypedDict):
    """`usable` documents of the `of` that were looked at; plain JSON.

    `why`: why nothing of them can be shown. Of a token task also, from a sample: `scored`, the share of tokens it
    scores, and `notes`, what to warn of.
    """

    usable: int
    of: int
    why: NotRequired[str]
    scored: NotRequired[float]
    notes: NotRequired[list[str]]


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


def serves(task: Task, counts: Usable) -> bool:
    """Whether a corpus offers enough: 1 % of its documents, and the share of tokens scored that the task asks for."""
    enough = counts["usable"] > 0 and counts["usable"] >= LEAST_USABLE * counts["of"]
    return enough and counts.get("scored", 1.0) >= task.least_scored


def describe(task: Task, counts: Usable) -> str:
    """ "901 of 1,548 documents", why it is none, and the share of tokens scored where the task asks for one."""
    documents = f"{counts['usable']:,} of {counts['of']:,} documents"
    if "why" in counts:
        return f"{documents} ({counts['why']})"
    scored = counts.get("scored")
    return documents if scored is None or not task.least_scored else f"{documents} ({scored:.1%} of tokens scored)"


def notes_of(usable: Mapping[str, Usable]) -> dict[str, list[str]]:
    """Return what to warn of in the corpora of a task: note -> the corpora it holds for, so that each is said once."""
    corpora: dict[str, list[str]] = {}
    for name, counts in usable.items():
        for note in counts.get("notes", ()):
            corpora.setdefault(note, []).append(name)
    return corpora


def usable_table(
    corpora: Mapping[str, ShardedCorpus], tasks: Sequence[Task], split: str = "train", sequence_tokens: int = 512
) -> Table:
    """Returns what every task can use of every corpus it may read, in sequences of up to `sequence_tokens`.

    Raises `TaskError` like `corpora_for`.
    """
    table: dict[str, dict[str, Usable]] = {task.name: {} for task in tasks}
    for task in tasks:
        for name, corpus in corpora_for(task, corpora).items():
            usable, of = count_usable(corpus, task, split)
            table[task.name][name] = Usable(usable=usable, of=of)
            if usable and (why := why_never(task, corpus, split, sequence_tokens)) is not None:
                table[task.name][name] = Usable(usable=0, of=of, why=why)
                continue
            found = survey(corpus, task, split, sequence_tokens) if usable and isinstance(task, TokenTask) else None
            if found is not None:
                table[task.name][name] |= Usable(usable=usable, of=of, scored=found.scored, notes=list(found.notes))
    return table
