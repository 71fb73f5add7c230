"""Which documents and tokens of a corpus a task can use; `prepare` prints it, and unusable corpora are refused."""

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
"""Least share of usable documents in a corpus; below it, reading would mostly skip documents (ours)."""
LOW_SCORED_SHARE = 0.01
"""Share of scored tokens below which a warning is given: a step costs the same as if all were scored (ours)."""
SAMPLED_DOCUMENTS, SAMPLED_SEQUENCES = 200, 2
"""Documents, evenly spaced, on which a token task is tried, and sequences from the start of each."""

MAX_ATTEMPTS = 2_000
"""Consecutive attempts without a label after which a task is refused or a run stops."""

_MAX_DRAWS = 100


class _NoOtherGroupError(TaskError):
    """All documents of a split belong to one group."""


class UsableData(TypedDict):
    """Usability of one corpus for one task, as plain JSON: `usable` of `of` checked documents.

    `why`: the reason if no document can give a label. For token tasks, from a sample: `scored`, the share of scored
    tokens, and `notes`, warnings.
    """

    usable: int
    of: int
    why: NotRequired[str]
    scored: NotRequired[float]
    notes: NotRequired[list[str]]


UsableTable = Mapping[str, Mapping[str, UsableData]]
"""By task, then by corpus."""


def count_usable(corpus: ShardedCorpus, task: Task, split: str = "train", most: int = 5_000) -> tuple[int, int]:
    """Return (usable documents, checked documents): all of the split, or at most `most`, evenly spaced.

    If the task does not support the tokeniser, no document is usable.
    """
    size = corpus.num_documents(split)
    looked_at = min(size, most)
    if task.unsupported_reason() is not None:
        return 0, looked_at
    numbers = (i * size // looked_at for i in range(looked_at))
    return sum(task.can_use(corpus.document(split, number)) for number in numbers), looked_at


def is_sufficient(task: Task, counts: UsableData) -> bool:
    """Return whether 1 % of the documents are usable, and at least `min_scored_share` of the tokens are scored."""
    enough = counts["usable"] > 0 and counts["usable"] >= MIN_USABLE_SHARE * counts["of"]
    return enough and counts.get("scored", 1.0) >= task.min_scored_share


def describe_usable(task: Task, counts: UsableData) -> str:
    """Return "901 of 1,548 documents", with the reason if unusable, or the scored share if the task has a minimum."""
    documents = f"{counts['usable']:,} of {counts['of']:,} documents"
    if "why" in counts:
        return f"{documents} ({counts['why']})"
    scored = counts.get("scored")
    return documents if scored is None or not task.min_scored_share else f"{documents} ({scored:.1%} of tokens scored)"


def corpora_by_note(usable: Mapping[str, UsableData]) -> dict[str, list[str]]:
    """Return the warnings of a task: note → corpora to which it applies, so that each is printed once."""
    corpora: dict[str, list[str]] = {}
    for name, counts in usable.items():
        for note in counts.get("notes", ()):
            corpora.setdefault(note, []).append(name)
    return corpora


def usable_table(
    corpora: Mapping[str, ShardedCorpus], tasks: Sequence[Task], split: str = "train", sequence_tokens: int = 512
) -> UsableTable:
    """Return the usable data of every task in each of its corpora, in sequences of up to `sequence_tokens`.

    Raises `TaskError` as `corpora_for` does.
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
                and (sample := _measure_sample(corpus, task, split, sequence_tokens))
            ):
                counts["scored"], counts["notes"] = sample
            table[task.name][name] = counts
    return table


def _measure_sample(
    corpus: ShardedCorpus, task: TokenTask, split: str, sequence_tokens: int
) -> tuple[float, list[str]] | None:
    """Label a sample of a corpus as in training; return the scored share and warnings, or None without text."""
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
    share, low = scored / tokens, max(LOW_SCORED_SHARE, 2 * task.min_scored_share)
    few = f"it scores {share:.1%} of the tokens, less than {low:.0%}: few labels for the steps it takes."
    return share, [*([few] if share < low else []), *task.notes(sequences)]


def draw_other_document(
    corpus: ShardedCorpus, split: str, document: AnnotatedDocument, rng: Generator
) -> AnnotatedDocument | None:
    """Return a random document of another group than `document`, or None if there is none."""
    size = corpus.num_documents(split)
    for _ in range(_MAX_DRAWS):
        other = corpus.document(split, int(rng.integers(size)))
        if other.group != document.group:
            return other
    others = corpus.documents_outside_group(split, document.group)  # nearly all documents are of one group
    return corpus.document(split, int(others[rng.integers(len(others))])) if len(others) else None


def unusable_reason(task: Task, corpus: ShardedCorpus, split: str, sequence_tokens: int) -> str | None:
    """Return why a corpus gives a task no labels in sequences of up to `sequence_tokens`, or None if it does.

    A balanced task must be able to give every class. Documents are read as in training, evenly spaced if there are more
    than `MAX_ATTEMPTS`. Raises `TaskError` if the task fails or returns an invalid result.
    """
    labels = task.labels if isinstance(task, SentenceTask) and task.balanced else (None,)
    try:
        for label in labels or ():
            if not _can_show(task, corpus, split, sequence_tokens, label):
                what = f"showed the label {label!r}" if label else "had anything to score"
                return f"none of {MAX_ATTEMPTS:,} attempts {what}"
    except _NoOtherGroupError:
        return "all are of one group"
    return None


def _can_show(task: Task, corpus: ShardedCorpus, split: str, sequence_tokens: int, label: str | None) -> bool:
    """Return whether one of `MAX_ATTEMPTS` attempts gives `label`, or anything to score if `label` is None."""
    rng = np.random.default_rng(0)
    size = corpus.num_documents(split)
    looked_at = min(size, MAX_ATTEMPTS)
    sentence_task = task if isinstance(task, SentenceTask) else None
    token_tasks = [task] if isinstance(task, TokenTask) else []
    number = sentence = 0
    for _ in range(MAX_ATTEMPTS if size else 0):
        document = corpus.document(split, number % looked_at * size // looked_at)
        if not task.can_use(document):
            number, sentence = number + 1, 0
            continue
        source = Source(document, sentence, partial(_draw_other_or_raise, corpus, split, document, rng))
        arranged = arrange(sentence_task, source, label, sequence_tokens, rng)
        if arranged is not None:
            instance = build_instance(arranged, sentence_task, token_tasks, task.vocabulary, rng)
            if len(instance.labels[task.name].positions):
                return True
        following = arranged.next_sentence if arranged is not None else None
        if following is not None and following < document.sentence_count:
            sentence = following
        else:
            number, sentence = number + 1, 0
    return False


def _draw_other_or_raise(
    corpus: ShardedCorpus, split: str, document: AnnotatedDocument, rng: Generator
) -> AnnotatedDocument:
    if (other := draw_other_document(corpus, split, document, rng)) is None:
        raise _NoOtherGroupError
    return other
