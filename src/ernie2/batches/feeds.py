"""Feeds: which corpora each task reads, and what share of its tokens comes from each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ernie2.batches.stream import Feed
from ernie2.errors import TaskError
from ernie2.shards.store import ShardedCorpus, Shards
from ernie2.tasks.base import Task
from ernie2.tasks.building import CORPUS_KINDS, check_labels, corpora_for
from ernie2.tasks.usable_data import (
    MIN_USABLE_SHARE,
    UsableData,
    UsableTable,
    count_usable,
    describe_usable,
    is_sufficient,
    unusable_reason,
    usable_table,
)


def feeds(
    shards: Shards,
    tasks: Sequence[Task],
    split: str = "train",
    weights: Mapping[str, float | None] | None = None,
    sequence_tokens: int = 512,
) -> tuple[dict[str, Feed], UsableTable]:
    """Returns, by task name, the corpora it reads in `split` with their shares, and the table of usable documents.

    A task reads the corpora its options name, else every corpus of its kind (documents or labelled pairs) of which it
    can use enough (`usable.serves`); shares are those of its tokens: the corpora's `weights`, else those the shards
    name, else their train tokens. Corpora without documents in `split` are left out.

    Raises `TaskError` where a task refuses the tokeniser, a corpus it names is unknown, of the wrong kind or offers it
    too little, its data has a label that is none of its classes, or no corpus is left.
    """
    for task in tasks:
        if (reason := task.unsupported_reason()) is not None:
            raise TaskError(f"task {task.name!r} cannot run on {shards.folder}: {reason}.")
    table = usable_table(shards.corpora, tasks, split, sequence_tokens)
    made = {}
    for task in tasks:
        corpora = _corpora(task, shards, table[task.name], split)
        made[task.name] = Feed(corpora, [weight_of(corpus, weights or {})[0] for corpus in corpora])
    return made, table


def heldout_feed(feed: Feed, task: Task, sequence_tokens: int) -> Feed:
    """Return those corpora of `feed` with a held-out document that shows something of `task`; there may be none."""
    kept = [
        (corpus, share)
        for corpus, share in zip(feed.corpora, feed.shares, strict=True)
        if count_usable(corpus, task, "heldout")[0]
        and unusable_reason(task, corpus, "heldout", sequence_tokens) is None
    ]
    return Feed([corpus for corpus, _ in kept], [share for _, share in kept])


def apart(feeds: Mapping[str, Feed]) -> frozenset[tuple[str, str]]:
    """Returns the pairs (host, rider) that share no corpus, for `stages.Plan`: such a ride would score nothing."""
    reads = {name: {corpus.name for corpus in feed.corpora} for name, feed in feeds.items()}
    return frozenset((a, b) for a in reads for b in reads if reads[a].isdisjoint(reads[b]))


def _corpora(task: Task, shards: Shards, usable: Mapping[str, UsableData], split: str) -> list[ShardedCorpus]:
    offered = corpora_for(task, shards.corpora)
    check_labels(task, offered)
    for name in task.options.corpora or ():
        if is_sufficient(task, usable[name]) or not usable[name]["of"]:
            continue
        raise TaskError(
            f"task {task.name!r} can use {describe_usable(task, usable[name])} of corpus {name!r}, less than "
            f"{_wanted(task)}. It needs {task.needs}. Take {name!r} off tasks.{task.name}.corpora, or leave the task "
            "out."
        )
    chosen = [name for name in offered if is_sufficient(task, usable[name])]
    if not chosen:
        counts = "; ".join(f"{describe_usable(task, usable[name])} of {name!r}" for name in offered)
        can_use = f"{counts}; at least {_wanted(task)} are needed"
        none = f"no corpus, since none holds {CORPUS_KINDS[task.corpus_kind]}"
        raise TaskError(
            f"task {task.name!r} has nothing to read in {shards.folder} ({split}): it can use "
            f"{can_use if counts else none}. It needs {task.needs}. "
            "Leave the task out, or add a corpus that has it."
        )
    return [shards.corpora[name] for name in chosen]


def weight_of(corpus: ShardedCorpus, weights: Mapping[str, float | None]) -> tuple[float, bool]:
    """Return the weight of a corpus, by `weights` or its shards, else its train tokens; and whether it is these."""
    weight = weights.get(corpus.name) or corpus.facts.get("weight")
    return (float(weight), False) if weight is not None else (float(corpus.num_tokens("train")), True)


def _wanted(task: Task) -> str:
    tokens = f" and {task.min_scored_share:.0%} of tokens scored" if task.min_scored_share else ""
    return f"{MIN_USABLE_SHARE:.0%} of documents{tokens}"
