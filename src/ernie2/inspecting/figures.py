"""What is in a folder of shards: figures per corpus, label statistics and examples per task, as plain values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ernie2.annotate.shards import CAPITALISED, CASED, SPAN_KINDS, WORD_START, Shard, ShardedCorpus, Shards
from ernie2.annotate.wordpieces import WordPieces, load_wordpieces
from ernie2.batches.feeds import feeds
from ernie2.batches.packing import Caps
from ernie2.batches.stream import Cursor, Feed, Lane, Stream
from ernie2.errors import TaskError
from ernie2.inspecting.examples import write_example
from ernie2.tasks.base import Task, Vocabulary, find, known
from ernie2.tasks.building import build_tasks
from ernie2.tasks.instances import Instance
from ernie2.tasks.usable import Usable, usable_table
from ernie2.tasks.vocabulary import vocabulary_of

INSTANCES = 300
"""Instances behind the statistics of a task."""
LANES = 30
"""They are taken from this many places of a corpus."""
EXAMPLE_TOKENS = 96
"""Longest example; statistics are taken over sequences as long as in training."""
SAMPLED_TOKENS = 20_000_000
"""Share of cased words is counted over whole shards, evenly spaced, up to about this many tokens."""


@dataclass(frozen=True, slots=True)
class CorpusFigures:
    """One corpus. Shares are of words (cased) and of cased words (capitals); means are of tokens and of sentences.

    `labels`: class → pairs of a corpus of labelled pairs, empty for documents.
    """

    name: str
    language: str
    licence: str
    documents: int
    heldout_documents: int
    tokens: int
    cased_share: float
    capital_share: float
    tokens_a_sentence: float
    sentences_a_paragraph: float
    spans: Mapping[str, int]
    unknown_share: float
    dropped: Mapping[str, int]
    dropped_spans: Mapping[str, int]
    labels: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class TaskFigures:
    """One task. `why_not` says why it has no statistics, None where it has. `tally` counts what `tallies` names.

    `tokens` and `scored` are sums over `instances`; `examples` are texts in which the labels are written.
    """

    name: str
    title: str
    about: str
    needs: str
    legend: str
    tallies: str
    usable: Mapping[str, Usable]
    why_not: str | None
    instances: int = 0
    tokens: int = 0
    scored: int = 0
    tally: Mapping[str, int] | None = None
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is in a folder of shards, as plain values."""

    folder: str
    vocab_size: int
    cased: bool
    sequence_tokens: int
    corpora: tuple[CorpusFigures, ...]
    tasks: tuple[TaskFigures, ...]


def inspect(
    shards: Path,
    task: str | None = None,
    examples: int = 5,
    seed: int = 0,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    sequence_tokens: int = 512,
) -> Inspection:
    """Looks at the shards in folder `shards` through `task`, or through every known task where it is None.

    `options`: task name → its options. Raises `ShardError`, `UnknownTask` or `ConfigError`; a task that cannot work on
    these shards is no error but told in its figures.
    """
    opened = Shards(shards)
    pieces = load_wordpieces(opened.folder / "tokenizer.json")
    vocabulary = vocabulary_of(pieces)
    names = [task] if task is not None else [entry.name for entry in known()]
    asked = [(find(name), given) for name in names for given in _looks(name, (options or {}).get(name, {}), opened)]
    return Inspection(
        folder=str(opened.folder),
        vocab_size=pieces.vocab_size,
        cased=pieces.cased,
        sequence_tokens=sequence_tokens,
        corpora=tuple(_look_at_corpus(corpus) for corpus in opened.corpora.values()),
        tasks=tuple(
            _look_through(kind, given, opened, pieces, vocabulary, examples, seed, sequence_tokens)
            for kind, given in asked
        ),
    )


def _looks(name: str, options: Mapping[str, Any], shards: Shards) -> list[dict[str, Any]]:
    """Options to look with: labelled pairs are looked at corpus by corpus, since each has labels of its own."""
    pairs = [corpus.name for corpus in shards.corpora.values() if corpus.labels]
    if not find(name).labels_from_data or options.get("corpora") or not pairs:
        return [dict(options)]
    return [{**options, "corpora": [corpus]} for corpus in pairs]


# ---- figures


def _look_at_corpus(corpus: ShardedCorpus) -> CorpusFigures:
    columns = [shard.facts["columns"] for shard in corpus.shards]

    def rows(name: str, offsets: int = 1) -> int:
        return sum(column[name]["shape"][0] - offsets for column in columns if name in column)

    words = cased = capitals = 0
    for shard in _some(corpus.shards):
        flags = np.bincount(shard.flags, minlength=8)
        of_words = flags * ((np.arange(len(flags)) & WORD_START) != 0)
        words += int(of_words.sum())
        cased += int(of_words[(np.arange(len(flags)) & CASED) != 0].sum())
        capitals += int(of_words[(np.arange(len(flags)) & (CASED | CAPITALISED)) == (CASED | CAPITALISED)].sum())
    sentences, paragraphs = rows("sentences"), rows("paragraphs")
    tokens = corpus.tokens("train") + corpus.tokens("heldout")
    return CorpusFigures(
        name=corpus.name,
        language=corpus.language,
        licence=corpus.licence,
        documents=corpus.documents("train") + corpus.documents("heldout"),
        heldout_documents=corpus.documents("heldout"),
        tokens=tokens,
        cased_share=cased / max(words, 1),
        capital_share=capitals / max(cased, 1),
        tokens_a_sentence=tokens / max(sentences, 1),
        sentences_a_paragraph=sentences / max(paragraphs, 1),
        spans={kind: count for kind in SPAN_KINDS if (count := rows(f"spans_{kind}", 0))},
        unknown_share=float(corpus.facts.get("unknown_share", 0.0)),
        dropped=dict(corpus.facts.get("dropped", {})),
        dropped_spans=dict(corpus.facts.get("dropped_spans", {})),
        labels=dict(corpus.facts.get("label_counts", {})),
    )


def _some(shards: Any) -> Iterator[Shard]:
    tokens = sum(len(shard.tokens) for shard in shards)
    step = max(1, -(-tokens // SAMPLED_TOKENS))
    yield from shards[::step]


def _look_through(
    kind: type[Task],
    options: Mapping[str, Any],
    shards: Shards,
    pieces: WordPieces,
    vocabulary: Vocabulary,
    examples: int,
    seed: int,
    sequence_tokens: int,
) -> TaskFigures:
    figures = TaskFigures(
        name=kind.name,
        title=kind.title,
        about=kind.about,
        needs=kind.needs,
        legend=kind.legend,
        tallies=kind.tallies,
        usable={},
        why_not=None,
    )
    try:
        (task,) = build_tasks({kind.name: options}, vocabulary, shards.corpora)
        figures = replace(
            figures, usable=usable_table(shards.corpora, [task], sequence_tokens=sequence_tokens)[task.name]
        )
        feed, _ = feeds(shards, [task], sequence_tokens=sequence_tokens)
        tally: Counter[str] = Counter()
        made = _walk(task, feed, vocabulary, sequence_tokens, INSTANCES, seed)
        for instance in made:
            tally.update(task.tally(instance.sequence, instance.labels[task.name]))
        shown = _walk(task, feed, vocabulary, min(EXAMPLE_TOKENS, sequence_tokens), examples, seed)
    except TaskError as error:
        return replace(figures, why_not=str(error))
    return replace(
        figures,
        instances=len(made),
        tokens=sum(len(instance) - 1 - instance.sequence.segments for instance in made),
        scored=sum(len(instance.labels[task.name].positions) for instance in made),
        tally=tally,
        examples=tuple(write_example(task, instance, pieces) for instance in shown),
    )


def _walk(
    task: Task, feed: Mapping[str, Feed], vocabulary: Vocabulary, sequence_tokens: int, most: int, seed: int
) -> list[Instance]:
    """At most `most` instances from one pass over the documents, a few each from many of them."""
    caps = Caps.of(sequence_tokens, sequence_tokens, [task])
    lanes = max(1, min(most, LANES, *(corpus.documents("train") for corpus in feed[task.name].corpora)))
    stream = Stream(feed, [task], vocabulary, caps, {task.name: 0}, seed=seed, lanes=lanes)
    found: list[Instance] = []
    for lane in range(lanes):
        cursor: Cursor | None = None
        while len(found) < most * (lane + 1) // lanes:
            instance, cursor, _ = stream.instance(lane, cursor, task.name, (task.name,))
            found.append(instance)
            if stream.epoch(task.name, Lane({task.name: cursor})):
                break
    return found
