"""Epochs: how often the planned stages read each corpus for each task, estimated before the first step.

A model memorises a corpus that it reads too often, so plans beyond `stages.max_epochs` are refused. The tokens a main
task reads from a corpus are measured on its first instances there, drawn as in training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

from ernie2.batches.packing import Caps
from ernie2.batches.stages import StagePlan
from ernie2.batches.streams import Cursor, DataStreams, Feed, next_corpus
from ernie2.errors import ConfigError
from ernie2.shards.store import ShardedCorpus
from ernie2.tasks.base import Task

Epochs = Mapping[str, Mapping[str, float]]
"""Epochs by main task, then by corpus."""

SAMPLE_INSTANCES = 96
"""Instances measured per task and corpus; fewer if they read all of it or have SAMPLE_TOKENS tokens."""
SAMPLE_TOKENS = 65_536
SAMPLE_PACKS = 8
"""Least number of packs filled with the lengths of these instances, to measure the text in one."""


def steps_by_main_task(plans: Sequence[StagePlan]) -> dict[str, int]:
    """Count the steps of each main task over all stages. Attached tasks read no data."""
    counts: Counter[str] = Counter()
    for plan in plans:
        counts.update(plan.tasks[index] for index in plan.main_tasks.tolist())
    return {name: count for plan in plans for name in plan.tasks if (count := counts[name])}


def expected_epochs(streams: DataStreams, plans: Sequence[StagePlan]) -> dict[str, dict[str, float]]:
    """Estimate how often each main task reads each of its corpora over all `plans`, from under 100 instances each.

    A step draws instances until its packs are full, from each corpus by its share of the tokens. Skipped documents
    count as read. Raises `TaskError` if a task finds nothing in a corpus.
    """
    return {
        main_task: _epochs(streams, main_task, steps * streams.count)
        for main_task, steps in steps_by_main_task(plans).items()
    }


def format_epochs(count: float) -> str:
    """Format a number of epochs: 0.14, 13.2, 1,071."""
    return f"{count:,.0f}" if count >= 100 else f"{count:.3g}"


def check_epochs(epochs: Epochs, limit: float) -> None:
    """Raise `ConfigError` with every task and corpus of more than `limit` epochs."""
    beyond = [
        f"  - {task} would read corpus {corpus!r} {format_epochs(count)} times"
        for task, counts in epochs.items()
        for corpus, count in counts.items()
        if count > limit
    ]
    if beyond:
        worst = max(count for counts in epochs.values() for count in counts.values())
        listed = "\n".join(beyond)
        raise ConfigError(
            f"this plan repeats text more often than stages.max_epochs={limit:g} allows:\n{listed}\n"
            "Lower the iterations (stages.steps, one number or one per task), add more text, or allow it: "
            f"stages.max_epochs={int(1.1 * worst) + 1}."
        )


def _epochs(streams: DataStreams, main_task: str, packs: int) -> dict[str, float]:
    feed = streams.feeds[main_task]
    samples = [_sample(streams, streams.tasks[main_task], corpus) for corpus in feed.corpora]
    tokens = packs * _text_per_pack(samples, feed.fractions, streams.caps)
    return {
        corpus.name: tokens * share / sum(sample.texts) * sample.tokens_read / max(1, corpus.num_tokens("train"))
        for corpus, share, sample in zip(feed.corpora, feed.fractions, samples, strict=True)
    }


@dataclass(frozen=True)
class _Sample:
    """First instances of a task in a corpus: their lengths, their tokens of text, and all tokens read for them."""

    lengths: Sequence[int]
    texts: Sequence[int]
    tokens_read: int


def _sample(streams: DataStreams, task: Task, corpus: ShardedCorpus) -> _Sample:
    single = streams.with_feeds({task.name: Feed([corpus], [1.0])}, [task], seed=0, split="train")
    lengths: list[int] = []
    texts: list[int] = []
    cursor: Cursor | None = None
    tokens_read, all_tokens = 0, corpus.num_tokens("train")
    while len(lengths) < SAMPLE_INSTANCES and sum(lengths) < SAMPLE_TOKENS and tokens_read < all_tokens:
        instance, after, _ = single.instance(0, cursor, task.name, (task.name,))
        tokens_read += single.tokens_read(task.name, 0, corpus, cursor, after)
        lengths.append(len(instance))
        texts.append(after.tokens[corpus.name] - sum(texts))
        cursor = after
    return _Sample(lengths, texts, tokens_read)


def _text_per_pack(samples: Sequence[_Sample], shares: Sequence[float], caps: Caps) -> float:
    """Return the mean tokens of text in a full pack, without special tokens, when the samples are mixed and repeated.

    One sample with lengths [4, 4] and texts [2, 2], in packs of 9 tokens: 4.0.
    """
    instances_of = [cycle(zip(sample.lengths, sample.texts, strict=True)) for sample in samples]
    totals = [0] * len(samples)
    packs = tokens = sequences = instances = 0
    while True:
        chosen = next_corpus(totals, shares, caps.longest) if len(totals) > 1 else 0
        length, text = next(instances_of[chosen])
        if tokens + length > caps.tokens or sequences == caps.sequences:
            packs, tokens, sequences = packs + 1, 0, 0
            if packs >= SAMPLE_PACKS and instances >= SAMPLE_INSTANCES:
                return sum(totals) / packs
        totals[chosen] += text
        instances, tokens, sequences = instances + 1, tokens + length, sequences + 1
