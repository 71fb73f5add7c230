"""Texts become token columns, each different word of them tokenised once.

Running text says the same few words again and again. Under BERT's rules a tokeniser never looks across a space or an
ASCII punctuation mark (`WordPieces.cuts_at_punctuation`), so what it makes of a text is what it makes of the chunks
between those, end to end. A chunk, a run of other characters or of such marks, is tokenised when it is first met and
looked up afterwards, which is several times as fast and gives the same tokens. Scripts without spaces, and other
tokenisers, take the plain way.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ernie2.shards.wordpieces import Columns, WordPieces, batch_columns

REMEMBERED = 300_000
"""Different chunks remembered, some 150 bytes each; with more, the memory begins anew."""
LONGEST_MEAN_CHUNK = 16
"""Characters: where chunks are longer on average, they hardly come twice and the plain way is taken."""

Ints = NDArray[np.int64]

_MARKS = r"!-/:-@\[-`{-~"
_CHUNK = re.compile(f"[{_MARKS}]+|[^ \n{_MARKS}]+")
# only two kinds of white space: other kinds may be control characters to the tokeniser, which drops those
_KINDS = np.array([0 if c in " \n" else 2 if re.match(f"[{_MARKS}]", c) else 1 for c in map(chr, range(128))], np.uint8)
_APART, _OTHER = 0, 1


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token columns of the paragraphs of a text.

    `ids` (T,) int32; `starts`, `ends` (T,) int64, characters of the whole text; `word_starts` (T,) bool; `offsets`
    (P + 1,) int64, paragraph → first token.
    """

    ids: NDArray[np.int32]
    starts: Ints
    ends: Ints
    word_starts: NDArray[np.bool_]
    offsets: Ints


class Encoder:
    """Encodes texts with one tokeniser, remembering chunks from one text to the next."""

    def __init__(self, wordpieces: WordPieces) -> None:
        self._wordpieces = wordpieces
        self._chunks = _Chunks()
        self._memory = _Memory.empty()

    def encode(self, text: str, paragraphs: list[str], paragraph_starts: Ints) -> Encoded:
        """Encodes `paragraphs`, which are pieces of `text` between blank lines, beginning at `paragraph_starts`."""
        spaces = text.count(" ") + text.count("\n")
        if not self._wordpieces.cuts_at_punctuation or len(text) > LONGEST_MEAN_CHUNK * (spaces + 1):
            return _plain(batch_columns(self._wordpieces.encode_batch(paragraphs)), paragraph_starts)
        return self._by_chunks(text, paragraph_starts)

    def _by_chunks(self, text: str, paragraph_starts: Ints) -> Encoded:
        if len(self._chunks) > REMEMBERED:
            self._chunks, self._memory = _Chunks(), _Memory.empty()
        pieces = _CHUNK.findall(text)
        chunks = np.fromiter(map(self._chunks.__getitem__, pieces), dtype=np.int64, count=len(pieces))
        if self._chunks.new:
            self._memory = self._memory.with_more(batch_columns(self._wordpieces.encode_batch(self._chunks.new)))
            self._chunks.new.clear()
        chunk_starts = _chunk_starts(text)
        memory = self._memory
        lengths = memory.lengths[chunks]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        places = np.repeat(memory.firsts[chunks] - offsets[:-1], lengths) + np.arange(offsets[-1])
        base = np.repeat(chunk_starts, lengths)
        return Encoded(
            ids=memory.ids[places],
            starts=memory.starts[places] + base,
            ends=memory.ends[places] + base,
            word_starts=memory.word_starts[places],
            offsets=np.append(offsets[np.searchsorted(chunk_starts, paragraph_starts)], offsets[-1]),
        )


def _chunk_starts(text: str) -> Ints:
    """Where the matches of `_CHUNK` in `text` begin."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    kinds = np.where(codes < len(_KINDS), _KINDS[np.minimum(codes, len(_KINDS) - 1)], _OTHER)
    changes = np.ones(len(kinds), dtype=np.bool_)
    np.not_equal(kinds[1:], kinds[:-1], out=changes[1:])
    return np.flatnonzero(changes & (kinds != _APART))


class _Chunks(dict[str, int]):
    """chunk -> its number in order of appearance; `new` are those met since it was last emptied."""

    def __init__(self) -> None:
        super().__init__()
        self.new: list[str] = []

    def __missing__(self, chunk: str) -> int:
        number = len(self)
        self[chunk] = number
        self.new.append(chunk)
        return number


@dataclass(frozen=True, slots=True)
class _Memory:
    """Tokens of the chunks, end to end; `firsts` and `lengths` (chunks,) say where those of a chunk are."""

    ids: NDArray[np.int32]
    starts: NDArray[np.int32]
    ends: NDArray[np.int32]
    word_starts: NDArray[np.bool_]
    firsts: Ints
    lengths: Ints

    @classmethod
    def empty(cls) -> _Memory:
        none: NDArray[Any] = np.zeros(0, dtype=np.int32)
        return cls(none, none, none, none.astype(np.bool_), none.astype(np.int64), none.astype(np.int64))

    def with_more(self, columns: Columns) -> _Memory:
        """This and the tokens of more chunks, one an encoding."""
        lengths = columns.counts.astype(np.int64)
        firsts = len(self.ids) + np.cumsum(lengths) - lengths
        return _Memory(
            np.concatenate([self.ids, columns.ids]),
            np.concatenate([self.starts, columns.starts]),
            np.concatenate([self.ends, columns.ends]),
            np.concatenate([self.word_starts, columns.word_starts]),
            np.concatenate([self.firsts, firsts]),
            np.concatenate([self.lengths, lengths]),
        )


def _plain(columns: Columns, paragraph_starts: Ints) -> Encoded:
    base = np.repeat(paragraph_starts, columns.counts)
    return Encoded(
        ids=columns.ids,
        starts=columns.starts + base,
        ends=columns.ends + base,
        word_starts=columns.word_starts,
        offsets=np.concatenate([[0], np.cumsum(columns.counts, dtype=np.int64)]),
    )
