"""Tokenise texts, encoding each distinct chunk of text once.

Running text repeats the same few words. Under BERT's rules a tokeniser never looks across a space or an ASCII
punctuation mark (`SubwordTokenizer.splits_at_punctuation`). The tokens of a text are therefore the tokens of its
chunks, end to end. A chunk is a run of such marks or a run of other characters. It is encoded once and looked up
afterwards, which is several times as fast and gives the same tokens. Scripts without spaces, and other tokenisers, are
encoded directly.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from ernie2.shards.tokenizer import SubwordTokenizer, TokenColumns, token_columns

MAX_CACHED_CHUNKS = 300_000
"""Maximum number of cached chunks, about 150 bytes each; beyond it the cache is cleared."""
MAX_MEAN_CHUNK = 16
"""Characters; text with longer chunks on average is encoded directly, as its chunks hardly repeat."""

Ints = NDArray[np.int64]

_MARKS = r"!-/:-@\[-`{-~"
_CHUNK = re.compile(f"[{_MARKS}]+|[^ \n{_MARKS}]+")
# only two white space characters: the tokeniser may drop others as control characters
_KINDS = np.array([0 if c in " \n" else 2 if re.match(f"[{_MARKS}]", c) else 1 for c in map(chr, range(128))], np.uint8)
_SEPARATOR, _OTHER = 0, 1


class CachedEncoder:
    """Encodes texts with one tokeniser and caches chunks across texts."""

    def __init__(self, tokenizer: SubwordTokenizer) -> None:
        self._tokenizer = tokenizer
        self._clear()

    def _clear(self) -> None:
        self._chunks, self._cache = _Chunks(), token_columns([])

    def encode(self, text: str, paragraphs: list[str], paragraph_starts: Ints) -> TokenColumns:
        """Encode `paragraphs`, the parts of `text` between blank lines, which begin at `paragraph_starts`.

        `starts` and `ends` are characters of `text`; `counts` are tokens per paragraph.
        """
        spaces = text.count(" ") + text.count("\n")
        if self._tokenizer.splits_at_punctuation and len(text) <= MAX_MEAN_CHUNK * (spaces + 1):
            return self._encode_chunks(text, paragraph_starts)
        return _shift(token_columns(self._tokenizer.encode_batch(paragraphs)), paragraph_starts)

    def _encode_chunks(self, text: str, paragraph_starts: Ints) -> TokenColumns:
        if len(self._chunks) > MAX_CACHED_CHUNKS:
            self._clear()
        strings = _CHUNK.findall(text)
        chunks = np.fromiter(map(self._chunks.__getitem__, strings), dtype=np.int64, count=len(strings))
        if self._chunks.new:
            added = token_columns(self._tokenizer.encode_batch(self._chunks.new))
            self._cache = TokenColumns._make(map(np.concatenate, zip(self._cache, added, strict=True)))
            self._chunks.new.clear()
        *tokens, lengths = self._cache
        firsts, counts = np.cumsum(lengths) - lengths, lengths[chunks]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        positions = np.repeat(firsts[chunks] - offsets[:-1], counts) + np.arange(offsets[-1])
        chunk_starts = _chunk_starts(text)
        columns = _shift(TokenColumns._make([*(column[positions] for column in tokens), counts]), chunk_starts)
        bounds = np.append(np.searchsorted(chunk_starts, paragraph_starts), len(chunks))
        return columns._replace(counts=np.diff(offsets[bounds]))


def _shift(columns: TokenColumns, starts: Ints) -> TokenColumns:
    """Convert `columns` of encodings that begin at `starts` of a text to characters of that text."""
    base = np.repeat(starts, columns.counts)
    return columns._replace(starts=columns.starts + base, ends=columns.ends + base)


def _chunk_starts(text: str) -> Ints:
    """Return the positions of the matches of `_CHUNK` in `text`."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    kinds = np.where(codes < len(_KINDS), _KINDS[np.minimum(codes, len(_KINDS) - 1)], _OTHER)
    changes = np.ones(len(kinds), dtype=np.bool_)
    np.not_equal(kinds[1:], kinds[:-1], out=changes[1:])
    return np.flatnonzero(changes & (kinds != _SEPARATOR))


class _Chunks(dict[str, int]):
    """chunk -> its number in order of appearance; `new`: chunks added since it was last cleared."""

    def __init__(self) -> None:
        super().__init__()
        self.new: list[str] = []

    def __missing__(self, chunk: str) -> int:
        number = len(self)
        self[chunk] = number
        self.new.append(chunk)
        return number
