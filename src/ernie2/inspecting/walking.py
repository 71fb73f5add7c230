"""Instances to look at: a few each from many places of the corpora, all of them or those that contain something."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ernie2.batches.packing import Caps
from ernie2.batches.stream import Cursor, Feed, Stream
from ernie2.shards.store import SPAN_KINDS
from ernie2.tasks.base import Task, Vocabulary
from ernie2.tasks.instances import Instance

LANES = 30
"""Instances are taken from this many places of a corpus."""
SEARCHED = 6_000
"""Most instances that are searched for those that contain something."""


def walk(
    task: Task,
    feed: Mapping[str, Feed],
    vocabulary: Vocabulary,
    sequence_tokens: int,
    most: int,
    seed: int,
    wanted: Callable[[Instance], bool] | None = None,
) -> list[Instance]:
    """At most `most` instances, those `wanted`, from one pass over the documents, a few each from many of them."""
    caps = Caps.of(sequence_tokens, sequence_tokens, [task])
    lanes = max(1, min(most, LANES, *(corpus.documents("train") for corpus in feed[task.name].corpora)))
    stream = Stream(feed, [task], vocabulary, caps, {task.name: 0}, seed=seed, lanes=lanes)
    found: list[Instance] = []
    for lane in range(lanes):
        cursor: Cursor | None = None
        searched = 0
        while len(found) < most * (lane + 1) // lanes and searched < SEARCHED // lanes:
            instance, cursor, _ = stream.instance(lane, cursor, task.name, (task.name,))
            searched += 1
            if wanted is None or wanted(instance):
                found.append(instance)
            if stream.epoch(task.name, {task.name: cursor}):
                break
    return found


def wanted_by(task: Task, what: str) -> Callable[[Instance], bool] | None:
    """Whether an instance of `task` contains `what`, a class of the task or a kind of spans; None where it is neither.

    Where the task hides tokens, a span of that kind must be hidden as a whole.
    """
    if task.labels is not None and what in task.labels:
        target = task.labels.index(what)
        return lambda instance: bool((instance.labels[task.name].targets == target).any())
    if what not in SPAN_KINDS:
        return None

    def contains(instance: Instance) -> bool:
        runs = instance.sequence.spans.get(what, np.zeros((0, 2), np.int64))
        if not getattr(task, "changes_input", False):
            return len(runs) > 0
        hidden = np.zeros(len(instance) + 1, np.int64)
        hidden[1:][instance.labels[task.name].positions] = 1
        before = hidden.cumsum()  # hidden tokens before each position
        return bool((before[runs[:, 1]] - before[runs[:, 0]] == runs[:, 1] - runs[:, 0]).any())

    return contains
