"""What of a corpus a task can use: documents, and tokens it scores. `prepare` prints it; a task is refused by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NotRequired, TypedDict

import numpy as np
from numpy.random import Generator

from ernie2.errors import TaskError
from ernie2.shards.store import AnnotatedDocument, ShardedCorpus
from ernie2.tasks.base import SentenceTask, Source, Task, TokenTask
from ernie2.tasks.building import corpora_for
from ernie2.tasks.instances import arrange, arrange_unlabelled, build_instance

MIN_USABLE_SHARE = 0.01
"""Share of its documents a corpus must offer a task: below it the walk would mostly pass documents over (ours)."""
LOW_SCORED_SHARE = 0.01
"""Share of tokens scored below which a task is warned of: each step costs as much as one that scores all (ours)."""
SAMPLED_DOCUMENTS, SAMPLED_SEQUENCES = 200, 2
"""Documents of a corpus a token task is tried on, evenly spaced, and sequences from the beginning of each."""

MAX_ATTEMPTS = 2_000
"""Attempts in a row that may show no label of a task before it is stopped by name."""

_MAX_DRAWS = 100


class _NoOtherGroupError(TaskError):
    """All documents of a split are of one origin."""


class UsableData(TypedDict):
    """`usable` documents of the `of` that were looked at; plain JSON.

    `why`: why nothing of them can be shown. Of a token task also, from a sample: `scored`, the share of tokens it
    scores, and `notes`, what to warn of.
    """

    usable: int
    of: int
    why: NotRequired[str]
    scored: NotRequired[float]
    notes: NotRequired[list[str]]


UsableTable = Mapping[str, Mapping[str, UsableData]]
"""By task, then by corpus it may read."""


def count_usable(corpus: ShardedCorpus, task: Task, split: str = "train", most: int = 5_000) -> tuple[int, int]:
    """Returns (usable documents, documents looked at): all of the split, or `most` evenly spaced where it has more.

    A task that `unsupported_reason()` the tokeniser can use none.
    """
    size = corpus.num_documents(split)
    looked_at = min(size, most)
    if task.unsupported_reason() is not None:
        return 0, looked_at
    numbers = (i * size // looked_at for i in range(looked_at))
    return sum(task.can_use(corpus.document(split, number)) for number in numbers), looked_at


def is_sufficient(task: Task, counts: UsableData) -> bool:
    """Whether a corpus offers enough: 1 % of its documents, and the share of tokens scored that the task asks for."""
    enough = counts["usable"] > 0 and counts["usable"] >= MIN_USABLE_SHARE * counts["of"]
    return enough and counts.get("scored", 1.0) >= task.min_scored_share


def describe_usable(task: Task, counts: UsableData) -> str:
    """ "901 of 1,548 documents", why it is none, and the share of tokens scored where the task asks for one."""
    documents = f"{counts['usable']:,} of {counts['of']:,} documents"
    if "why" in counts:
        return f"{documents} ({counts['why']})"
    scored = counts.get("scored")
    return documents if scored is None or not task.min_scored_share else f"{documents} ({scored:.1%} of tokens scored)"


def corpora_by_note(usable: Mapping[str, UsableData]) -> dict[str, list[str]]:
    """Return what to warn of in the corpora of a task: note -> the corpora it holds for, so that each is said once."""
    corpora: dict[str, list[str]] = {}
    for name, counts in usable.items():
        for note in counts.get("notes", ()):
            corpora.setdefault(note, []).append(name)
    return corpora


def usable_table(
    corpora: Mapping[str, ShardedCorpus], tasks: Sequence[Task], split: str = "train", sequence_tokens: int = 512
) -> UsableTable:
    """Returns what every task can use of every corpus it may read, in sequences of up to `sequence_tokens`.

    Raises `TaskError` like `corpora_for`.
    """
    table: dict[str, dict[str, UsableData]] = {task.name: {} for task in tasks}
    for task in tasks:
        for name, corpus in corpora_for(task, corpora).items():
            usable, of = count_usable(corpus, task, split)
            counts: UsableData = {"usable": usable, "of": of}
            if usable and (why := unusable_reason(task, corpus, split, sequence_tokens)) is not None:
                counts = {"usable": 0, "of": of, "why": why}
            elif (
                usable
                and isinstance(task, TokenTask)
                and (found := _measure_sample(corpus, task, split, sequence_tokens))
            ):
                counts["scored"], counts["notes"] = found
            table[task.name][name] = counts
    return table


def _measure_sample(
    corpus: ShardedCorpus, task: TokenTask, split: str, sequence_tokens: int
) -> tuple[float, list[str]] | None:
    """Arrange and label a sample of a corpus as training would.

    Return the share of tokens the task scores, and what to warn of; None where there is no text.
    """
    size = corpus.num_documents(split)
    sampled = min(size, SAMPLED_DOCUMENTS)
    rng = np.random.default_rng(0)
    sequences, scored, tokens = [], 0, 0
    for number in (i * size // sampled for i in range(sampled)):
        document, start = corpus.document(split, number), 0
        for _ in range(SAMPLED_SEQUENCES):
            arranged = arrange_unlabelled(Source(document, start), sequence_tokens - 2)
            if arranged is None:
                break
            instance = build_instance(arranged, None, [task], task.vocabulary, rng)
            sequences.append(instance.sequence)
            scored += len(instance.labels[task.name].positions)
            tokens += int((instance.sequence.document >= 0).sum())
            if arranged.next_sentence is None or arranged.next_sentence >= document.sentence_count:
                break
            start = arranged.next_sentence
    if not tokens:
        return None
    share, little = scored / tokens, max(LOW_SCORED_SHARE, 2 * task.min_scored_share)
    few = f"it scores {share:.1%} of the tokens, less than {little:.0%}: few labels for the steps it takes."
    return share, [*([few] if share < little else []), *task.notes(sequences)]


def draw_other_document(
    corpus: ShardedCorpus, split: str, document: AnnotatedDocument, rng: Generator
) -> AnnotatedDocument | None:
    """Return a random document of another group than `document`, None where there is none."""
    size = corpus.num_documents(split)
    for _ in range(_MAX_DRAWS):
        other = corpus.document(split, int(rng.integers(size)))
        if other.group != document.group:
            return other
    others = corpus.documents_outside_group(split, document.group)  # one group has nearly all of the documents
    return corpus.document(split, int(others[rng.integers(len(others))])) if len(others) else None


def unusable_reason(task: Task, corpus: ShardedCorpus, split: str, sequence_tokens: int) -> str | None:
    """Return why a corpus shows nothing of a task in sequences of up to `sequence_tokens`, None where it does.

    A task whose classes the caller draws must show each of them. Documents are walked over as in training, evenly
    spaced where there are more than `MAX_ATTEMPTS`. Raises `TaskError` where the task breaks its contract.
    """
    labels = task.labels if isinstance(task, SentenceTask) and task.balanced else (None,)
    try:
        for label in labels or ():
            if not _shows(task, corpus, split, sequence_tokens, label):
                what = f"showed the label {label!r}" if label else "had anything to score"
                return f"none of {MAX_ATTEMPTS:,} attempts {what}"
    except _NoOtherGroupError:
        return "all are of one origin"
    return None


def _shows(task: Task, corpus: ShardedCorpus, split: str, sequence_tokens: int, label: str | None) -> bool:
    """Whether one of `MAX_ATTEMPTS` attempts shows `label`, or, where it is None, anything to score."""
    rng = np.random.default_rng(0)
    size = corpus.num_documents(split)
    looked_at = min(size, MAX_ATTEMPTS)
    sentence_task = task if isinstance(task, SentenceTask) else None
    labellers = [task] if isinstance(task, TokenTask) else []
    turn = sentence = 0
    for _ in range(MAX_ATTEMPTS if size else 0):
        document = corpus.document(split, turn % looked_at * size // looked_at)
        if not task.can_use(document):
            turn, sentence = turn + 1, 0
            continue
        source = Source(document, sentence, partial(_draw_other_or_raise, corpus, split, document, rng))
        arranged = arrange(sentence_task, source, label, sequence_tokens, rng)
        if arranged is not None:
            instance = build_instance(arranged, sentence_task, labellers, task.vocabulary, rng)
            if len(instance.labels[task.name].positions):
                return True
        on = arranged.next_sentence if arranged is not None else None
        turn, sentence = (turn, on) if on is not None and on < document.sentence_count else (turn + 1, 0)
    return False


def _draw_other_or_raise(
    corpus: ShardedCorpus, split: str, document: AnnotatedDocument, rng: Generator
) -> AnnotatedDocument:
    if (other := draw_other_document(corpus, split, document, rng)) is None:
        raise _NoOtherGroupError
    return other
