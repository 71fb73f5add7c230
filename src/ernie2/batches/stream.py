"""The stream: shards and tasks → packs, from a position of a few integers.

Pack j of every step is filled by lane j. A lane walks every M-th document of each corpus' endless stream of epochs (an
epoch is a permutation named by seed, task, corpus and epoch number) with a cursor of its own; an instance that does not
fit opens the lane's next pack. Corpora are mixed by tokens: the cursor counts what each corpus has given. What a lane
yields depends on its number, M and its cursors alone: any rank or worker may own any lane, and a stored position
resumes in O(1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any

import numpy as np
from numpy.random import Generator

from ernie2.batches.batch import PackedBatch
from ernie2.batches.order import generator, permuted, seed_of
from ernie2.batches.packing import Caps, Packer, pack_block
from ernie2.errors import TaskError
from ernie2.shards.store import AnnotatedDocument, ShardedCorpus
from ernie2.tasks.base import Arrangement, Labels, SentenceTask, Source, Task, TokenTask, Vocabulary
from ernie2.tasks.blocks import label_block, lay_out_block
from ernie2.tasks.instances import Instance, arrange, build_instance
from ernie2.tasks.usable_data import MAX_ATTEMPTS, draw_other_document


@dataclass
class Cursor:
    """Where one host task stands in one lane.

    `drawn`: instances packed; by corpus, `corpora`: (document of the walk, sentence), and `tokens`: tokens of the
    instances packed, special tokens not counted.
    """

    drawn: int
    corpora: dict[str, tuple[int, int]]
    tokens: dict[str, int]


Lane = dict[str, Cursor]
"""The cursors of one lane, by host task; a plain value going in and out of checkpoints."""


@dataclass(slots=True)
class _Drawn:
    """An arranged instance: its generator and corpus, where the walk goes on there, and the attempts it took."""

    arranged: Arrangement
    rng: Generator
    corpus: str
    place: tuple[int, int]
    attempts: int

    @property
    def text(self) -> int:
        return sum([segment.end - segment.start for segment in self.arranged.segments])

    def after(self, cursor: Cursor) -> Cursor:
        tokens = cursor.tokens.get(self.corpus, 0) + self.text
        corpora = {**cursor.corpora, self.corpus: self.place}
        return Cursor(cursor.drawn + 1, corpora, {**cursor.tokens, self.corpus: tokens})


@dataclass(frozen=True)
class Feed:
    """The corpora a task reads, with the weight of each: its share of the tokens in instances of the task."""

    corpora: Sequence[ShardedCorpus]
    shares: Sequence[float]

    @property
    def fractions(self) -> list[float]:
        """The shares, summing to 1."""
        return [share / sum(self.shares) for share in self.shares]


_epoch_seed = lru_cache(maxsize=256)(seed_of)


class Stream:
    """Makes packs of one split. `lanes` is M, the packs of a step; `ids` gives each task its row of the task table.

    `in_turn`: classes the caller draws take turns, in blocks that hold each class once in random order.
    """

    def __init__(
        self,
        feeds: Mapping[str, Feed],
        tasks: Sequence[Task],
        vocabulary: Vocabulary,
        caps: Caps,
        ids: Mapping[str, int],
        *,
        seed: int,
        lanes: int = 1,
        split: str = "train",
        in_turn: bool = False,
    ) -> None:
        self._in_turn = in_turn
        self.tasks = {task.name: task for task in tasks}
        self.caps = caps
        self.lanes = lanes
        self.feeds = feeds
        self.vocabulary = vocabulary
        self.ids = ids
        self._seed = seed
        self._split = split
        self._shares = {name: feed.fractions for name, feed in feeds.items()}
        self._reads = {name: frozenset(c.name for c in feed.corpora) for name, feed in feeds.items()}
        self._last: dict[str, tuple[tuple[str, int, int], AnnotatedDocument]] = {}
        """By corpus, the document walked last: corpora take turns, and most documents give several instances."""

    def __getstate__(self) -> dict[str, Any]:
        """All but the documents at hand, whose columns lie in files: another process reads its own."""
        return {**vars(self), "_last": {}}

    def like(self, feeds: Mapping[str, Feed], tasks: Sequence[Task], *, seed: int, split: str) -> Stream:
        """A stream for evaluation: the same sizes and ids, other feeds, tasks and split; one lane, classes in turn."""
        return Stream(feeds, tasks, self.vocabulary, self.caps, self.ids, seed=seed, split=split, in_turn=True)

    def pack(self, lane_number: int, lane: Lane, host: str, active: Sequence[str]) -> tuple[PackedBatch, Lane]:
        """Fills one pack of lane `lane_number` with instances of `host`, labelled by all of `active`.

        Returns the pack and the lane after it; `lane` itself is not changed.
        """
        after = dict(lane)
        if (riders := self._riders_of_all(host, tuple(active))) is not None:
            pack, after[host] = self._pack_block(lane_number, lane.get(host), host, riders)
            return pack, after
        packer = Packer(self.caps, self.vocabulary.pad)
        while True:
            instance, cursor, task_id = self.instance(lane_number, after.get(host), host, active)
            if not packer.add(instance, task_id):
                return packer.pack(), after
            after[host] = cursor

    def instance(
        self, lane_number: int, cursor: Cursor | None, host: str, active: Sequence[str]
    ) -> tuple[Instance, Cursor, int]:
        """The next instance of `host` at `cursor` (None: the beginning), the cursor after it, and its task id.

        `active` includes the host. An instance in which the host itself scores nothing is passed over; raises
        `TaskError` where no other comes.
        """
        cursor = cursor or Cursor(0, {}, {})
        task = self.tasks[host]
        sentence_task = task if isinstance(task, SentenceTask) else None
        corpus, label = self._draw(host, task, lane_number, cursor)
        labellers = self._labellers(host, active, corpus.name)
        place, attempts = cursor.corpora.get(corpus.name, (0, 0)), 0
        while True:
            drawn = self._arrange(host, corpus, label, lane_number, place, attempts)
            instance = build_instance(drawn.arranged, sentence_task, labellers, self.vocabulary, drawn.rng)
            if len(instance.labels[host].positions):
                identity = host if sentence_task is not None else labellers[0].name
                return instance, drawn.after(cursor), self.ids[identity]
            if drawn.attempts == MAX_ATTEMPTS:
                raise self._nothing_found(host, corpus, label, drawn.arranged.segments[0].document)
            place, attempts = drawn.place, drawn.attempts

    def _pack_block(
        self, lane_number: int, cursor: Cursor | None, host: str, riders: Sequence[TokenTask]
    ) -> tuple[PackedBatch, Cursor]:
        """A pack of a sentence task and the cursor after it: every instance counts, so all are labelled at once."""
        task, cursor = self.tasks[host], cursor or Cursor(0, {}, {})
        ahead, tokens = cursor, 0
        block: list[_Drawn] = []
        while len(block) < self.caps.sequences:
            corpus, label = self._draw(host, task, lane_number, ahead)
            place = ahead.corpora.get(corpus.name, (0, 0))
            drawn = self._arrange(host, corpus, label, lane_number, place, 0)
            tokens += 1 + len(drawn.arranged.segments) + drawn.text
            if tokens > self.caps.tokens:
                break
            ahead = drawn.after(ahead)
            block.append(drawn)
        laid = lay_out_block([drawn.arranged for drawn in block], self.vocabulary)
        inputs, labels = label_block(laid, riders, [drawn.rng for drawn in block])
        classes = np.array([drawn.arranged.label for drawn in block], np.int64)
        labels[host] = Labels(laid.starts[:-1], classes)
        pack = pack_block(self.caps, self.vocabulary.pad, laid, inputs, labels, self.ids[host])
        packed = len(pack.starts) - 1
        if packed < len(block):  # a cap on scored positions closed it
            ahead = reduce(lambda at, drawn: drawn.after(at), block[:packed], cursor)
        return pack, ahead

    def _riders_of_all(self, host: str, active: tuple[str, ...]) -> list[TokenTask] | None:
        """The token tasks of `active` that label what the sentence task `host` arranges.

        None where they differ from corpus to corpus, or the host is a token task.
        """
        if isinstance(self.tasks[host], TokenTask):
            return None
        riders = [self._labellers(host, active, name) for name in self._reads[host]]
        return riders[0] if all(each == riders[0] for each in riders) else None

    def _labellers(self, host: str, active: Sequence[str], corpus: str) -> list[TokenTask]:
        """The token tasks of `active` that label an instance of `host` from `corpus`."""
        tasks = [self.tasks[name] for name in active if name == host or corpus in self._reads[name]]
        return [task for task in tasks if isinstance(task, TokenTask)]

    def _arrange(
        self,
        host: str,
        corpus: ShardedCorpus,
        label: str | None,
        lane_number: int,
        place: tuple[int, int],
        attempts: int,
    ) -> _Drawn:
        """What `host` arranges from `place` in `corpus` on, passing over what it cannot use.

        `attempts`: those made for this instance before. Raises `TaskError` after `MAX_ATTEMPTS` of them.
        """
        task = self.tasks[host]
        sentence_task = task if isinstance(task, SentenceTask) else None
        k, sentence = place
        for attempt in range(attempts, MAX_ATTEMPTS):
            document = self._document(host, corpus, lane_number, k)
            rng = generator(self._seed, self._split, host, corpus.name, lane_number, k, sentence)
            source = Source(document, sentence, lambda d=document, g=rng: self._other(host, corpus, d, g))  # type: ignore[misc]
            arranged = arrange(sentence_task, source, label, self.caps.longest, rng)
            on = arranged.next_sentence if arranged is not None else None
            k, sentence = (k, on) if on is not None and on < document.sentence_count else (k + 1, 0)
            if arranged is not None:
                return _Drawn(arranged, rng, corpus.name, (k, sentence), attempt + 1)
        raise self._nothing_found(host, corpus, label, document)

    def _nothing_found(self, host: str, corpus: ShardedCorpus, label: str | None, last: AnnotatedDocument) -> TaskError:
        return TaskError(
            f"task {host!r} found nothing to score in {MAX_ATTEMPTS:,} attempts in a row on the {self._split} "
            f"documents of corpus {corpus.name!r}"
            + (f" for label {label!r}" if label else "")
            + f"; the last was {last.name!r}. It needs {self.tasks[host].needs}. Leave the task out, or "
            f"{corpus.name!r} out of tasks.{host}.corpora."
        )

    def epoch(self, host: str, lane: Lane) -> int:
        """How many times this lane has been through its smallest corpus."""
        cursor = lane.get(host)
        if cursor is None:
            return 0
        sizes = {corpus.name: corpus.num_documents(self._split) for corpus in self.feeds[host].corpora}
        return max(k * self.lanes // sizes[name] for name, (k, _) in cursor.corpora.items())

    def walked(self, host: str, lane_number: int, corpus: ShardedCorpus, before: Cursor | None, after: Cursor) -> int:
        """Tokens of `corpus` this lane has walked over for `host` between two cursors, used or passed over."""
        (k, sentence), (end, end_sentence) = (
            (cursor.corpora if cursor else {}).get(corpus.name, (0, 0)) for cursor in (before, after)
        )
        tokens = 0
        while (k, sentence) < (end, end_sentence):
            document = self._document(host, corpus, lane_number, k)
            stop = int(document.sentences[end_sentence]) if k == end else len(document)
            tokens += stop - int(document.sentences[sentence])
            if k == end:
                break
            k, sentence = k + 1, 0
        return tokens

    def _draw(self, host: str, task: Task, lane_number: int, cursor: Cursor) -> tuple[ShardedCorpus, str | None]:
        """The corpus of the next instance, and the label it is to show, where the caller draws it.

        A lane begins with a random corpus, so that lanes do not all turn to the same one in the same step.
        """
        corpora = self.feeds[host].corpora
        labels = task.labels or () if isinstance(task, SentenceTask) and task.balanced else ()
        given = [cursor.tokens.get(corpus.name, 0) for corpus in corpora] if len(corpora) > 1 else [1]
        if any(given) and not labels:  # nothing to draw
            return corpora[next_corpus(given, self._shares[host], self.caps.longest)], None
        draw = generator(self._seed, self._split, host, "draw", lane_number, cursor.drawn)
        chosen = int(draw.random() * len(corpora))
        if any(given):
            chosen = next_corpus(given, self._shares[host], self.caps.longest)
        if not labels:
            return corpora[chosen], None
        if self._in_turn:
            return corpora[chosen], self._label_in_turn(host, labels, lane_number, cursor.drawn)
        return corpora[chosen], labels[int(draw.integers(len(labels)))]

    def _label_in_turn(self, host: str, labels: Sequence[str], lane_number: int, drawn: int) -> str:
        block, place = divmod(drawn, len(labels))
        order = generator(self._seed, self._split, host, "turn", lane_number, block).permutation(len(labels))
        return labels[int(order[place])]

    def _document(self, host: str, corpus: ShardedCorpus, lane_number: int, k: int) -> AnnotatedDocument:
        """Document k of the lane's walk: number lane + k M of the endless stream of epochs."""
        wanted = (host, lane_number, k)
        last = self._last.get(corpus.name)
        if last is None or last[0] != wanted:
            size = corpus.num_documents(self._split)
            epoch, index = divmod(lane_number + k * self.lanes, size)
            number = permuted(index, size, _epoch_seed(self._seed, self._split, host, corpus.name, epoch))
            last = self._last[corpus.name] = wanted, corpus.document(self._split, number)
        return last[1]

    def _other(
        self, host: str, corpus: ShardedCorpus, document: AnnotatedDocument, rng: Generator
    ) -> AnnotatedDocument:
        if (other := draw_other_document(corpus, self._split, document, rng)) is not None:
            return other
        raise TaskError(
            f"task {host!r} needs a document of another group, but all {self._split} documents of corpus "
            f"{corpus.name!r} are of the group of {document.name!r}. Leave the task out, or {corpus.name!r} out of "
            f"tasks.{host}.corpora."
        )


def next_corpus(tokens: Sequence[int], shares: Sequence[float], longest: int) -> int:
    """Return the index of the corpus that gives the next instance of at most `longest` tokens.

    `tokens`: what each corpus has given so far; `shares`: what each is to give, summing to 1. Of the corpora that are
    not ahead of their share, the one that would first fall a whole instance behind it is chosen (as WF2Q schedules
    packets of unequal length). No corpus is then ever more than `longest` tokens ahead of its share or behind it.
    Example: next_corpus([40, 10], [0.5, 0.5], 64) == 1.
    """
    if len(tokens) == 1:
        return 0
    total = sum(tokens)
    behind = [share * total - given for share, given in zip(shares, tokens, strict=True)]
    least = min(0.0, max(behind))  # 0, but for rounding
    waiting = [(longest - lag) / share for lag, share in zip(behind, shares, strict=True)]
    return min((c for c, lag in enumerate(behind) if lag >= least), key=waiting.__getitem__)
