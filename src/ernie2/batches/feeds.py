"""Feeds: the corpora each task reads, and the share of its tokens that comes from each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ernie2.batches.streams import Feed
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


def build_feeds(
    shards: Shards,
    tasks: Sequence[Task],
    split: str = "train",
    weights: Mapping[str, float | None] | None = None,
    sequence_tokens: int = 512,
) -> tuple[dict[str, Feed], UsableTable]:
    """Return the feed of each task in `split`, by name, and the table of usable documents.

    A task reads the corpora its options name, else every corpus of its kind (documents or labelled pairs) with enough
    usable documents (`is_sufficient`). Shares of tokens are the corpora's `weights`, else those in the shards, else
    their training tokens. Corpora without documents in `split` are skipped.

    Raises `TaskError` if a task refuses the tokeniser, if a corpus it names is unknown, of the wrong kind or has too
    few usable documents, if its data has a label outside its classes, or if no corpus remains.
    """
    for task in tasks:
        if (reason := task.unsupported_reason()) is not None:
            raise TaskError(f"task {task.name!r} cannot run on {shards.folder}: {reason}.")
    table = usable_table(shards.corpora, tasks, split, sequence_tokens)
    feeds = {}
    for task in tasks:
        corpora = _corpora(task, shards, table[task.name], split)
        feeds[task.name] = Feed(corpora, [corpus_weight(corpus, weights or {})[0] for corpus in corpora])
    return feeds, table


def heldout_feed(feed: Feed, task: Task, sequence_tokens: int) -> Feed:
    """Return the corpora of `feed` with a held-out document that `task` can use; there may be none."""
    usable = [
        (corpus, share)
        for corpus, share in zip(feed.corpora, feed.shares, strict=True)
        if count_usable(corpus, task, "heldout")[0]
        and unusable_reason(task, corpus, "heldout", sequence_tokens) is None
    ]
    return Feed([corpus for corpus, _ in usable], [share for _, share in usable])


def disjoint_pairs(feeds: Mapping[str, Feed]) -> frozenset[tuple[str, str]]:
    """Return the pairs of tasks without a common corpus: attached to each other, they would score nothing."""
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
            f"{_threshold(task)}. It needs {task.needs}. Remove {name!r} from tasks.{task.name}.corpora, or remove the "
            "task."
        )
    chosen = [name for name in offered if is_sufficient(task, usable[name])]
    if not chosen:
        counts = "; ".join(f"{describe_usable(task, usable[name])} of {name!r}" for name in offered)
        can_use = f"{counts}; at least {_threshold(task)} are needed"
        nothing = f"no corpus, since none contains {CORPUS_KINDS[task.corpus_kind]}"
        raise TaskError(
            f"task {task.name!r} has nothing to read in {shards.folder} ({split}): it can use "
            f"{can_use if counts else nothing}. It needs {task.needs}. "
            "Remove the task, or add such a corpus."
        )
    return [shards.corpora[name] for name in chosen]


def corpus_weight(corpus: ShardedCorpus, weights: Mapping[str, float | None]) -> tuple[float, bool]:
    """Return the weight of a corpus, by `weights`, its shards or its training tokens; and whether it is the last."""
    weight = weights.get(corpus.name) or corpus.facts.get("weight")
    return (float(weight), False) if weight is not None else (float(corpus.num_tokens("train")), True)


def _threshold(task: Task) -> str:
    tokens = f" and {task.min_scored_share:.0%} of tokens scored" if task.min_scored_share else ""
    return f"{MIN_USABLE_SHARE:.0%} of documents{tokens}"
