"""Data streams: build packs from shards and tasks; the position of a stream is a few integers.

A step has M packs; data stream j fills pack j. A data stream reads every M-th document of each corpus' endless
sequence of epochs (an epoch is a permutation derived from seed, task, corpus and epoch number) and has its own cursors.
An instance that does not fit goes into the stream's next pack. Corpora are mixed by tokens: the cursor counts the
tokens of each corpus. The packs of a data stream depend only on its number, M and its cursors: any rank or worker can
build them, and a stored position resumes in O(1).
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
    """Position of one main task in one data stream.

    `drawn`: instances packed; `corpora`: by corpus, the next document (numbered within the stream) and its sentence;
    `tokens`: by corpus, tokens of the packed instances, without special tokens.
    """

    drawn: int
    corpora: dict[str, tuple[int, int]]
    tokens: dict[str, int]


StreamState = dict[str, Cursor]
"""The cursors of one data stream, by main task; checkpoints store it."""


@dataclass(slots=True)
class _ArrangedInstance:
    """An arranged instance: its random generator, corpus, next position in that corpus, and number of attempts."""

    arranged: Arrangement
    rng: Generator
    corpus: str
    next_position: tuple[int, int]
    attempts: int

    @property
    def text_tokens(self) -> int:
        return sum([segment.end - segment.start for segment in self.arranged.segments])

    def advance(self, cursor: Cursor) -> Cursor:
        """Return the cursor after this instance."""
        tokens = cursor.tokens.get(self.corpus, 0) + self.text_tokens
        corpora = {**cursor.corpora, self.corpus: self.next_position}
        return Cursor(cursor.drawn + 1, corpora, {**cursor.tokens, self.corpus: tokens})


@dataclass(frozen=True)
class Feed:
    """The corpora of a task, and the share of its tokens that each provides, not normalised."""

    corpora: Sequence[ShardedCorpus]
    shares: Sequence[float]

    @property
    def fractions(self) -> list[float]:
        """The shares, normalised to sum to 1."""
        return [share / sum(self.shares) for share in self.shares]


_epoch_seed = lru_cache(maxsize=256)(seed_of)


class DataStreams:
    """The data streams of one split. `count` is M, the packs of a step; `ids`: task id by task.

    `rotate_labels`: labels of balanced tasks are drawn in random permutations of all labels, not independently.
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
        count: int = 1,
        split: str = "train",
        rotate_labels: bool = False,
    ) -> None:
        self._rotate_labels = rotate_labels
        self.tasks = {task.name: task for task in tasks}
        self.caps = caps
        self.count = count
        self.feeds = feeds
        self.vocabulary = vocabulary
        self.ids = ids
        self._seed = seed
        self._split = split
        self._shares = {name: feed.fractions for name, feed in feeds.items()}
        self._corpus_names = {name: frozenset(c.name for c in feed.corpora) for name, feed in feeds.items()}
        self._last: dict[str, tuple[tuple[str, int, int], AnnotatedDocument]] = {}
        """By corpus, the document read last: corpora alternate, and most documents give several instances."""

    def __getstate__(self) -> dict[str, Any]:
        """Leave out cached documents, which are views of files: another process opens its own."""
        return {**vars(self), "_last": {}}

    def with_feeds(self, feeds: Mapping[str, Feed], tasks: Sequence[Task], *, seed: int, split: str) -> DataStreams:
        """Return one data stream with the same caps and ids, but other feeds, tasks, seed and split; labels rotate."""
        return DataStreams(
            feeds, tasks, self.vocabulary, self.caps, self.ids, seed=seed, split=split, rotate_labels=True
        )

    def pack(
        self, stream_number: int, state: StreamState, main_task: str, active: Sequence[str]
    ) -> tuple[PackedBatch, StreamState]:
        """Fill one pack of data stream `stream_number` with instances of `main_task`, labelled by all of `active`.

        Return the pack and the state after it; `state` itself is not changed.
        """
        after = dict(state)
        if (labellers := self._common_labellers(main_task, tuple(active))) is not None:
            pack, after[main_task] = self._pack_block(stream_number, state.get(main_task), main_task, labellers)
            return pack, after
        packer = Packer(self.caps, self.vocabulary.pad)
        while True:
            instance, cursor, task_id = self.instance(stream_number, after.get(main_task), main_task, active)
            if not packer.add(instance, task_id):
                return packer.pack(), after
            after[main_task] = cursor

    def instance(
        self, stream_number: int, cursor: Cursor | None, main_task: str, active: Sequence[str]
    ) -> tuple[Instance, Cursor, int]:
        """Return the next instance of `main_task` at `cursor` (None: the start), the cursor after it, and its task id.

        `active` includes the main task. Instances in which the main task scores nothing are skipped. Without a
        sentence-level task, the task id is that of the first task in `active` that labels (ours). Raises `TaskError`
        after `MAX_ATTEMPTS` attempts.
        """
        cursor = cursor or Cursor(0, {}, {})
        task = self.tasks[main_task]
        sentence_task = task if isinstance(task, SentenceTask) else None
        corpus, label = self._draw(main_task, task, stream_number, cursor)
        labellers = self._labellers(main_task, active, corpus.name)
        position, attempts = cursor.corpora.get(corpus.name, (0, 0)), 0
        while True:
            candidate = self._arrange(main_task, corpus, label, stream_number, position, attempts)
            instance = build_instance(candidate.arranged, sentence_task, labellers, self.vocabulary, candidate.rng)
            if len(instance.labels[main_task].positions):
                id_task = main_task if sentence_task is not None else labellers[0].name
                return instance, candidate.advance(cursor), self.ids[id_task]
            if candidate.attempts == MAX_ATTEMPTS:
                raise self._nothing_scored(main_task, corpus, label, candidate.arranged.segments[0].document)
            position, attempts = candidate.next_position, candidate.attempts

    def _pack_block(
        self, stream_number: int, cursor: Cursor | None, main_task: str, labellers: Sequence[TokenTask]
    ) -> tuple[PackedBatch, Cursor]:
        """Return a pack of a sentence-level task and the cursor after it, labelling all its instances at once."""
        task, cursor = self.tasks[main_task], cursor or Cursor(0, {}, {})
        ahead, tokens = cursor, 0
        block: list[_ArrangedInstance] = []
        while len(block) < self.caps.sequences:
            corpus, label = self._draw(main_task, task, stream_number, ahead)
            position = ahead.corpora.get(corpus.name, (0, 0))
            candidate = self._arrange(main_task, corpus, label, stream_number, position, 0)
            tokens += 1 + len(candidate.arranged.segments) + candidate.text_tokens
            if tokens > self.caps.tokens:
                break
            ahead = candidate.advance(ahead)
            block.append(candidate)
        laid = lay_out_block([candidate.arranged for candidate in block], self.vocabulary)
        inputs, labels = label_block(laid, labellers, [candidate.rng for candidate in block])
        classes = np.array([candidate.arranged.label for candidate in block], np.int64)
        labels[main_task] = Labels(laid.starts[:-1], classes)
        pack = pack_block(self.caps, self.vocabulary.pad, laid, inputs, labels, self.ids[main_task])
        packed = len(pack.starts) - 1
        if packed < len(block):  # a cap on scored positions closed the pack
            ahead = reduce(lambda at, candidate: candidate.advance(at), block[:packed], cursor)
        return pack, ahead

    def _common_labellers(self, main_task: str, active: tuple[str, ...]) -> list[TokenTask] | None:
        """Return the token tasks of `active` that label instances of the sentence-level task `main_task`.

        None if they differ between its corpora, or if the main task is token-level.
        """
        if isinstance(self.tasks[main_task], TokenTask):
            return None
        labellers = [self._labellers(main_task, active, name) for name in self._corpus_names[main_task]]
        return labellers[0] if all(each == labellers[0] for each in labellers) else None

    def _labellers(self, main_task: str, active: Sequence[str], corpus: str) -> list[TokenTask]:
        """Return the token tasks of `active` that label an instance of `main_task` from `corpus`."""
        tasks = [self.tasks[name] for name in active if name == main_task or corpus in self._corpus_names[name]]
        return [task for task in tasks if isinstance(task, TokenTask)]

    def _arrange(
        self,
        main_task: str,
        corpus: ShardedCorpus,
        label: str | None,
        stream_number: int,
        position: tuple[int, int],
        attempts: int,
    ) -> _ArrangedInstance:
        """Arrange the next instance of `main_task` from `position` in `corpus`, skipping text it cannot use.

        `attempts`: attempts so far for this instance. Raises `TaskError` after `MAX_ATTEMPTS` of them.
        """
        task = self.tasks[main_task]
        sentence_task = task if isinstance(task, SentenceTask) else None
        k, sentence = position
        for attempt in range(attempts, MAX_ATTEMPTS):
            document = self._document(main_task, corpus, stream_number, k)
            rng = generator(self._seed, self._split, main_task, corpus.name, stream_number, k, sentence)
            source = Source(document, sentence, lambda d=document, g=rng: self._other(main_task, corpus, d, g))  # type: ignore[misc]
            arranged = arrange(sentence_task, source, label, self.caps.longest, rng)
            following = arranged.next_sentence if arranged is not None else None
            more = following is not None and following < document.sentence_count
            k, sentence = (k, following) if more and following is not None else (k + 1, 0)
            if arranged is not None:
                return _ArrangedInstance(arranged, rng, corpus.name, (k, sentence), attempt + 1)
        raise self._nothing_scored(main_task, corpus, label, document)

    def _nothing_scored(
        self, main_task: str, corpus: ShardedCorpus, label: str | None, last: AnnotatedDocument
    ) -> TaskError:
        return TaskError(
            f"task {main_task!r} found nothing to score in {MAX_ATTEMPTS:,} attempts in a row on the {self._split} "
            f"documents of corpus {corpus.name!r}"
            + (f" for label {label!r}" if label else "")
            + f"; the last was {last.name!r}. It needs {self.tasks[main_task].needs}. Remove the task, or remove "
            f"{corpus.name!r} from tasks.{main_task}.corpora."
        )

    def epoch(self, main_task: str, state: StreamState) -> int:
        """Return the number of complete passes over the corpus that was read most often."""
        cursor = state.get(main_task)
        if cursor is None:
            return 0
        sizes = {corpus.name: corpus.num_documents(self._split) for corpus in self.feeds[main_task].corpora}
        return max(k * self.count // sizes[name] for name, (k, _) in cursor.corpora.items())

    def tokens_read(
        self, main_task: str, stream_number: int, corpus: ShardedCorpus, before: Cursor | None, after: Cursor
    ) -> int:
        """Return the tokens of `corpus` between two cursors of a data stream, used or skipped."""
        (k, sentence), (end, end_sentence) = (
            (cursor.corpora if cursor else {}).get(corpus.name, (0, 0)) for cursor in (before, after)
        )
        tokens = 0
        while (k, sentence) < (end, end_sentence):
            document = self._document(main_task, corpus, stream_number, k)
            stop = int(document.sentences[end_sentence]) if k == end else len(document)
            tokens += stop - int(document.sentences[sentence])
            if k == end:
                break
            k, sentence = k + 1, 0
        return tokens

    def _draw(self, main_task: str, task: Task, stream_number: int, cursor: Cursor) -> tuple[ShardedCorpus, str | None]:
        """Return the corpus of the next instance, and its label if the task is balanced, else None.

        A data stream starts with a random corpus, so that streams do not all read the same one in the same step.
        """
        corpora = self.feeds[main_task].corpora
        labels = task.labels or () if isinstance(task, SentenceTask) and task.balanced else ()
        tokens = [cursor.tokens.get(corpus.name, 0) for corpus in corpora] if len(corpora) > 1 else [1]
        if any(tokens) and not labels:  # a single corpus, or not the first instance: no random draw needed
            return corpora[next_corpus(tokens, self._shares[main_task], self.caps.longest)], None
        draw = generator(self._seed, self._split, main_task, "draw", stream_number, cursor.drawn)
        chosen = int(draw.random() * len(corpora))
        if any(tokens):
            chosen = next_corpus(tokens, self._shares[main_task], self.caps.longest)
        if not labels:
            return corpora[chosen], None
        if self._rotate_labels:
            return corpora[chosen], self._rotated_label(main_task, labels, stream_number, cursor.drawn)
        return corpora[chosen], labels[int(draw.integers(len(labels)))]

    def _rotated_label(self, main_task: str, labels: Sequence[str], stream_number: int, drawn: int) -> str:
        block, place = divmod(drawn, len(labels))
        order = generator(self._seed, self._split, main_task, "turn", stream_number, block).permutation(len(labels))
        return labels[int(order[place])]

    def _document(self, main_task: str, corpus: ShardedCorpus, stream_number: int, k: int) -> AnnotatedDocument:
        """Return document k of a data stream: number `stream_number` + k M of the endless sequence of epochs."""
        key = (main_task, stream_number, k)
        last = self._last.get(corpus.name)
        if last is None or last[0] != key:
            size = corpus.num_documents(self._split)
            epoch, index = divmod(stream_number + k * self.count, size)
            number = permuted(index, size, _epoch_seed(self._seed, self._split, main_task, corpus.name, epoch))
            last = self._last[corpus.name] = key, corpus.document(self._split, number)
        return last[1]

    def _other(
        self, main_task: str, corpus: ShardedCorpus, document: AnnotatedDocument, rng: Generator
    ) -> AnnotatedDocument:
        if (other := draw_other_document(corpus, self._split, document, rng)) is not None:
            return other
        raise TaskError(
            f"task {main_task!r} needs a document of another group, but all {self._split} documents of corpus "
            f"{corpus.name!r} belong to the group of {document.name!r}. Remove the task, or remove {corpus.name!r} "
            f"from tasks.{main_task}.corpora."
        )


def next_corpus(tokens: Sequence[int], shares: Sequence[float], longest: int) -> int:
    """Return the index of the corpus of the next instance, which has at most `longest` tokens.

    `tokens`: tokens of each corpus so far; `shares`: target shares, summing to 1. Among the corpora that are not ahead
    of their share, choose the one that would be first to fall a full instance behind it, as WF2Q schedules packets of
    unequal length. No corpus is then ever more than `longest` tokens ahead of its share or behind it.
    Example: next_corpus([40, 10], [0.5, 0.5], 64) == 1.
    """
    if len(tokens) == 1:
        return 0
    total = sum(tokens)
    behind = [share * total - count for share, count in zip(shares, tokens, strict=True)]
    threshold = min(0.0, max(behind))  # 0 except for rounding
    waiting = [(longest - lag) / share for lag, share in zip(behind, shares, strict=True)]
    return min((c for c, lag in enumerate(behind) if lag >= threshold), key=waiting.__getitem__)
