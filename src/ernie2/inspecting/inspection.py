"""Inspection of a shards folder: statistics of corpora, label statistics and examples of tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ernie2.batches.feeds import build_feeds
from ernie2.errors import USER_CODE_ERRORS, ConfigError, Ernie2Error, TaskError, did_you_mean, user_code_location
from ernie2.inspecting.examples import collect_instances, instance_filter, write_example
from ernie2.shards.shard_folders import load_shards_tokenizer
from ernie2.shards.store import CAPITALISED, CASED, SPAN_KINDS, WORD_START, ShardedCorpus, Shards
from ernie2.shards.tokenizer import SubwordTokenizer
from ernie2.tasks.base import BUILT_IN, Task, find_task, known_tasks
from ernie2.tasks.building import build_tasks, vocabulary_of
from ernie2.tasks.usable_data import UsableData, usable_table

INSTANCES = 300
"""Instances used for the statistics of a task."""
EXAMPLE_TOKENS = 96
"""Maximum length of an example; statistics use sequences as long as in training."""
SAMPLED_TOKENS = 20_000_000
"""Approximate number of tokens, in evenly spaced shards, from which shares of cased words are computed."""


@dataclass(frozen=True, slots=True)
class CorpusStatistics:
    """Statistics of one corpus.

    `cased_share` is a share of words, `capital_share` one of cased words. `labels`: class → number of labelled pairs,
    empty for documents.
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
    labels: Mapping[str, int]
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TaskStatistics:
    """Statistics of one task. `unusable_reason`: why there are none, else None; all else is empty if the task fails.

    `tokens` and `scored` are sums over `instances`; `label_counts` are those of `Task.count_labels`; `examples`
    are texts with their labels.
    """

    name: str
    about: str = ""
    needs: str = ""
    legend: str = ""
    counts_heading: str = ""
    usable: Mapping[str, UsableData] = field(default_factory=dict)
    unusable_reason: str | None = None
    instances: int = 0
    tokens: int = 0
    scored: int = 0
    label_counts: Mapping[str, int] | None = None
    examples: tuple[str, ...] = ()
    can_contain: bool = True
    """False: the task has no class or kind of spans called `containing`."""
    has_spans: bool = True
    """False: `containing` is a kind of spans that the corpora of the task do not have."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """Statistics and examples of a shards folder."""

    folder: str
    vocab_size: int
    cased: bool
    sequence_tokens: int
    containing: str | None
    """Class or kind of spans that the examples must contain, or None."""
    corpora: tuple[CorpusStatistics, ...]
    tasks: tuple[TaskStatistics, ...]


def inspect(
    shards: Path,
    task: str | None = None,
    examples: int = 5,
    seed: int = 0,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    sequence_tokens: int = 512,
    containing: str | None = None,
    weights: Mapping[str, float | None] | None = None,
) -> Inspection:
    """Inspect the folder `shards` with `task`; if it is None, with the tasks of `options`, or else with all tasks.

    `options`: task name → its options in a recipe; `weights`: by corpus, as in `build_feeds`. `containing`: a class or
    kind of spans that the examples must contain. Raises `ShardError`, `UnknownTask` or `ConfigError`. A task that
    cannot use these shards is not an error; its statistics give the reason.
    """
    opened = Shards(shards)
    tokenizer = load_shards_tokenizer(opened)
    given = options or {}
    pairs = [corpus.name for corpus in opened.corpora.values() if corpus.labels]
    named = [task] if task is not None else list(given)
    statistics: list[TaskStatistics] = []
    for name in named or known_tasks():
        try:
            kind = find_task(name)
            # without options, labelled pairs are inspected corpus by corpus, because their labels may differ
            default = [{"corpora": [corpus]} for corpus in pairs] if kind.labels_from_data and pairs else [{}]
            statistics += [
                _inspect_task(kind, one, opened, tokenizer, examples, seed, sequence_tokens, containing, weights)
                for one in ([given[name]] if name in given else default)
            ]
        except USER_CODE_ERRORS as error:
            if named or name in BUILT_IN:
                raise
            reason = (
                str(error)
                if isinstance(error, Ernie2Error)
                else f"it failed with {error!r}{user_code_location(error)}."
            )
            statistics.append(TaskStatistics(name, unusable_reason=reason))
    if containing is not None and not any(one.can_contain for one in statistics):
        classes = {label for one in statistics for label in one.label_counts or ()}
        raise ConfigError(
            f"{containing!r} is not a kind of span or a class of these tasks."
            f"{did_you_mean(containing, [*SPAN_KINDS, *classes])} Kinds: {', '.join(SPAN_KINDS)}; classes are "
            "listed by `ernie2 inspect` under each task."
        )
    return Inspection(
        folder=str(opened.folder),
        vocab_size=tokenizer.vocab_size,
        cased=tokenizer.cased,
        sequence_tokens=sequence_tokens,
        containing=containing,
        corpora=tuple(_inspect_corpus(corpus) for corpus in opened.corpora.values()),
        tasks=tuple(statistics),
    )


def _inspect_corpus(corpus: ShardedCorpus) -> CorpusStatistics:
    columns = [shard.facts["columns"] for shard in corpus.shards]

    def rows(name: str) -> int:
        return sum(column[name]["shape"][0] - 1 for column in columns if name in column)

    stride = max(1, -(-sum(len(shard.tokens) for shard in corpus.shards) // SAMPLED_TOKENS))
    flags = sum((np.bincount(shard.flags, minlength=256) for shard in corpus.shards[::stride]), np.zeros(256, np.int64))
    words, cased, capitals = (
        int(flags[np.arange(256) & mask == mask].sum())
        for mask in (WORD_START, WORD_START | CASED, WORD_START | CASED | CAPITALISED)
    )
    sentences, paragraphs = rows("sentences"), rows("paragraphs")
    tokens = corpus.num_tokens("train") + corpus.num_tokens("heldout")
    return CorpusStatistics(
        name=corpus.name,
        language=corpus.language,
        licence=corpus.licence,
        documents=corpus.num_documents("train") + corpus.num_documents("heldout"),
        heldout_documents=corpus.num_documents("heldout"),
        tokens=tokens,
        cased_share=cased / max(words, 1),
        capital_share=capitals / max(cased, 1),
        tokens_a_sentence=tokens / max(sentences, 1),
        sentences_a_paragraph=sentences / max(paragraphs, 1),
        spans=count_spans(corpus),
        labels=dict(corpus.facts.get("label_counts", {})),
        facts=corpus.facts,
    )


def count_spans(corpus: ShardedCorpus) -> dict[str, int]:
    """Return the number of spans of a corpus by kind, without kinds that it does not have."""
    columns = [shard.facts["columns"] for shard in corpus.shards]
    counts = {kind: sum(one.get(f"spans_{kind}", {"shape": [0]})["shape"][0] for one in columns) for kind in SPAN_KINDS}
    return {kind: count for kind, count in counts.items() if count}


def _inspect_task(
    kind: type[Task],
    options: Mapping[str, Any],
    shards: Shards,
    tokenizer: SubwordTokenizer,
    examples: int,
    seed: int,
    sequence_tokens: int,
    containing: str | None,
    weights: Mapping[str, float | None] | None,
) -> TaskStatistics:
    statistics = TaskStatistics(kind.name, kind.about, kind.needs, kind.legend, kind.counts_heading)
    vocabulary = vocabulary_of(tokenizer)
    try:
        (task,) = build_tasks({kind.name: options}, vocabulary, shards.corpora)
        usable = usable_table(shards.corpora, [task], sequence_tokens=sequence_tokens)[task.name]
        statistics = replace(statistics, usable=usable)
        feed, _ = build_feeds(shards, [task], weights=weights, sequence_tokens=sequence_tokens)
        instances = collect_instances(task, feed, vocabulary, sequence_tokens, INSTANCES, seed)
        counts: Counter[str] = Counter()
        for instance in instances:
            counts.update(task.count_labels(instance.sequence, instance.labels[task.name]))
        contains = None if containing is None else instance_filter(task, containing)
        can_contain = containing is None or contains is not None
        is_span_kind = containing in SPAN_KINDS and containing not in (task.labels or ())
        has_spans = not is_span_kind or any(containing in count_spans(corpus) for corpus in feed[kind.name].corpora)
        limit = min(EXAMPLE_TOKENS, sequence_tokens)
        selected = (
            collect_instances(task, feed, vocabulary, limit, examples, seed, contains)
            if can_contain and has_spans
            else []
        )
    except TaskError as error:
        return replace(statistics, unusable_reason=str(error))
    return replace(
        statistics,
        instances=len(instances),
        tokens=sum(len(instance) - 1 - instance.sequence.segment_count for instance in instances),
        scored=sum(len(instance.labels[task.name].positions) for instance in instances),
        label_counts=counts,
        examples=tuple(write_example(task, instance, tokenizer) for instance in selected),
        can_contain=can_contain,
        has_spans=has_spans,
    )
