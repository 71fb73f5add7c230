"""Epochs: how often a plan walks each corpus for each task, told before any step is taken.

A corpus that is walked too often is learned by heart rather than learned from, so a plan beyond `stages.max_epochs` is
refused. What a host task takes from a corpus is measured on its first instances there, drawn as training draws them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

from ernie2.batches.packing import Caps
from ernie2.batches.stages import Plan
from ernie2.batches.stream import Cursor, Feed, Stream, next_corpus
from ernie2.errors import ConfigError
from ernie2.shards.store import ShardedCorpus
from ernie2.tasks.base import Task

Epochs = Mapping[str, Mapping[str, float]]
"""By host task, then by corpus: how often the corpus is walked."""

SAMPLE_INSTANCES = 96
"""Instances that show what a task takes from a corpus; fewer where they walk all of it, or hold SAMPLE_TOKENS."""
SAMPLE_TOKENS = 65_536
SAMPLE_PACKS = 8
"""Packs filled with the lengths of these instances, at least, to see how much text goes into one."""


def hosted_steps(plans: Sequence[Plan]) -> dict[str, int]:
    """Steps of all stages in which each task is the host: its data are walked, riders walk nothing."""
    counts: Counter[str] = Counter()
    for plan in plans:
        counts.update(plan.tasks[host] for host in plan.host.tolist())
    return {name: count for plan in plans for name in plan.tasks if (count := counts[name])}


def expected_epochs(stream: Stream, plans: Sequence[Plan]) -> dict[str, dict[str, float]]:
    """How often each host task walks each of its corpora over all `plans`, from a sample of under 100 instances each.

    A step draws instances until its packs are full, of each corpus by its share of the tokens; an instance walks over
    the text it shows and the documents passed over to find it. Raises `TaskError` where a task finds nothing in a
    corpus.
    """
    return {host: _epochs(stream, host, steps * stream.lanes) for host, steps in hosted_steps(plans).items()}


def written(count: float) -> str:
    """A number of epochs as a person reads it: 0.14, 13.2, 1,071."""
    return f"{count:,.0f}" if count >= 100 else f"{count:.3g}"


def check_epochs(epochs: Epochs, most: float) -> None:
    """Raises `ConfigError` naming every task and corpus walked more than `most` times, and what to do."""
    beyond = [
        f"  - {task} would walk corpus {corpus!r} {written(count)} times"
        for task, counts in epochs.items()
        for corpus, count in counts.items()
        if count > most
    ]
    if beyond:
        worst = max(count for counts in epochs.values() for count in counts.values())
        listed = "\n".join(beyond)
        raise ConfigError(
            f"this plan repeats text more often than stages.max_epochs={most:g} allows:\n{listed}\n"
            "Take fewer iterations (stages.steps, one number or one a task), bring more text, or allow it: "
            f"stages.max_epochs={int(1.1 * worst) + 1}."
        )


def _epochs(stream: Stream, host: str, packs: int) -> dict[str, float]:
    feed = stream.feeds[host]
    samples = [_sample(stream, stream.tasks[host], corpus) for corpus in feed.corpora]
    tokens = packs * _text_in_a_pack(samples, feed.fractions, stream.caps)
    return {
        corpus.name: tokens * share / sum(sample.texts) * sample.walked / max(1, corpus.num_tokens("train"))
        for corpus, share, sample in zip(feed.corpora, feed.fractions, samples, strict=True)
    }


@dataclass(frozen=True)
class _Sample:
    """First instances of a task in a corpus: the length of each, its tokens of text, and tokens walked over for all."""

    lengths: Sequence[int]
    texts: Sequence[int]
    walked: int


def _sample(stream: Stream, task: Task, corpus: ShardedCorpus) -> _Sample:
    alone = stream.like({task.name: Feed([corpus], [1.0])}, [task], seed=0, split="train")
    lengths: list[int] = []
    texts: list[int] = []
    cursor: Cursor | None = None
    walked, everything = 0, corpus.num_tokens("train")
    while len(lengths) < SAMPLE_INSTANCES and sum(lengths) < SAMPLE_TOKENS and walked < everything:
        instance, after, _ = alone.instance(0, cursor, task.name, (task.name,))
        walked += alone.walked(task.name, 0, corpus, cursor, after)
        lengths.append(len(instance))
        texts.append(after.tokens[corpus.name] - sum(texts))
        cursor = after
    return _Sample(lengths, texts, walked)


def _text_in_a_pack(samples: Sequence[_Sample], shares: Sequence[float], caps: Caps) -> float:
    """Tokens of text in a full pack, special tokens not counted, when these instances come round and round, mixed.

    One sample with lengths [4, 4] and texts [2, 2], in packs of 9 tokens: 4.0.
    """
    coming = [cycle(zip(sample.lengths, sample.texts, strict=True)) for sample in samples]
    given = [0] * len(samples)
    packs = tokens = sequences = instances = 0
    while True:
        chosen = next_corpus(given, shares, caps.longest) if len(given) > 1 else 0
        length, text = next(coming[chosen])
        if tokens + length > caps.tokens or sequences == caps.sequences:
            packs, tokens, sequences = packs + 1, 0, 0
            if packs >= SAMPLE_PACKS and instances >= SAMPLE_INSTANCES:
                return sum(given) / packs
        given[chosen] += text
        instances, tokens, sequences = instances + 1, tokens + length, sequences + 1
