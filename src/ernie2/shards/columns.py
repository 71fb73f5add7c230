"""Documents → columns of a shard: sentences, tokens, flags, counts and token runs, a batch of text at a time.

Work is done on arrays of a batch; Python loops run per paragraph, never per token.

- WORD_START is set on the first token of every word. Words are those of the tokeniser's pre-tokeniser: a punctuation
  mark is a word, and `don't` is three under BERT's rules.
- A word is *alphabetic* if, in the original text, its first character is a letter and all others are letters, combining
  marks or apostrophes. All tokens of an alphabetic word are CASED if the script of its first letter writes initial
  capitals, and CAPITALISED if that letter is also upper or title case.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ernie2.config.data_settings import ShardSettings
from ernie2.corpora.sentences import sentence_bounds
from ernie2.shards import store
from ernie2.shards.cached_encoding import CachedEncoder
from ernie2.shards.knowledge.annotators import Annotator
from ernie2.shards.knowledge.characters import CAPITAL, CASED, INNER, LETTER, SPACE, character_classes
from ernie2.shards.knowledge.token_runs import ACROSS, Spans, TokenPositions, as_spans
from ernie2.shards.store import CAPITALISED, SPAN_KINDS, WORD_START, token_dtype
from ernie2.shards.tokenizer import SubwordTokenizer, TokenColumns
from ernie2.shards.units import UnitDocument

BATCH_CHARACTERS = 300_000
"""Characters that are tokenised at once; the memory of a worker grows with it."""
NO_TOKENS = "no tokens"
ONE_TEXT_EMPTY = "no tokens in one of the texts"
ONLY_UNKNOWN = "only unknown tokens"

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ColumnBatch:
    """Columns of some documents. Sentences, paragraphs and sections are token offsets: first 0, last T.

    `names`, `groups`, `labels`, `first_sections` have one entry per section; `first_sections`: whether the section
    begins a document of the user.
    """

    tokens: NDArray[np.unsignedinteger[Any]]
    flags: NDArray[np.uint8]
    document_count: NDArray[np.uint16]
    sentences: Ints
    paragraphs: Ints
    sections: Ints
    names: list[str]
    groups: list[int]
    labels: list[str | None]
    first_sections: NDArray[np.bool_]
    spans: dict[str, Spans]


class ColumnBuilder:
    """Builds columns of documents with one tokeniser, one language and one list of annotators.

    With `pairs` every document is a labelled pair: its two paragraphs are its texts, and it is never split.
    """

    def __init__(
        self,
        tokenizer: SubwordTokenizer,
        language: str,
        annotators: Sequence[Annotator],
        settings: ShardSettings,
        *,
        pairs: bool = False,
    ) -> None:
        self._tokenizer, self._language, self._annotators = tokenizer, language, annotators
        self._encoder = _encoder(tokenizer)
        self._pairs = pairs
        self._longest_section = sys.maxsize if pairs else settings.document_tokens
        self._longest_sentence = min(settings.sentence_tokens, self._longest_section)
        self.dropped: Counter[str] = Counter()
        """Dropped documents, by reason."""
        self.dropped_spans: Counter[str] = Counter()
        """Dropped spans, by reason."""
        self.encoded = self.unknown = 0
        """Tokens of all documents including dropped ones, and the number of [UNK] among them."""

    def batches(self, documents: Iterable[UnitDocument]) -> Iterator[tuple[ColumnBatch | None, int]]:
        """Yield (columns, characters read for them); None if all documents of a batch were dropped."""
        waiting: list[UnitDocument] = []
        characters = 0
        for document in documents:
            waiting.append(document)
            characters += len(document.text)
            if characters >= BATCH_CHARACTERS:
                yield self._batch(waiting), characters
                waiting, characters = [], 0
        if waiting:
            yield self._batch(waiting), characters

    def _batch(self, documents: list[UnitDocument], *, filtered: bool = False) -> ColumnBatch | None:
        text = _BatchText.from_documents(documents)
        encoded = self._encoder.encode(text.text, text.paragraphs, text.starts)
        if not filtered:
            self.encoded += len(encoded.ids)
            self.unknown += int((encoded.ids == self._tokenizer.unk_id).sum())
        usable = self._usable_documents(encoded, text)
        if not usable.all():
            documents = [document for document, use in zip(documents, usable.tolist(), strict=True) if use]
            return self._batch(documents, filtered=True) if documents else None
        return self._columns(documents, text, encoded)

    def _usable_documents(self, encoded: TokenColumns, text: _BatchText) -> NDArray[np.bool_]:
        """Return a mask of documents with a known token, for pairs with tokens in both texts; count the others."""
        ends = _offsets(encoded.counts)[text.documents]
        tokens = np.diff(ends)
        known = np.diff(_offsets(encoded.ids != self._tokenizer.unk_id)[ends])
        half = np.zeros(len(tokens), dtype=np.bool_)
        if self._pairs:
            empty = (encoded.counts == 0).reshape(-1, 2)
            half = empty[:, 0] != empty[:, 1]
        reasons = {NO_TOKENS: tokens == 0, ONE_TEXT_EMPTY: half, ONLY_UNKNOWN: (tokens > 0) & (known == 0) & ~half}
        self.dropped += Counter({reason: int(mask.sum()) for reason, mask in reasons.items()})
        return (known > 0) & ~half

    def _columns(self, documents: list[UnitDocument], text: _BatchText, encoded: TokenColumns) -> ColumnBatch:
        classes = character_classes(text.text)
        ends, paragraph_tokens = encoded.ends, _offsets(encoded.counts)
        # byte-level tokens may include the space before them
        starts = encoded.starts + (((classes[encoded.starts] & SPACE) > 0) & (ends - encoded.starts > 1))
        sentences = np.unique(np.concatenate([np.searchsorted(starts, self._sentence_starts(text)), paragraph_tokens]))
        runs = self._token_runs(documents, text, TokenPositions(starts, ends, sentences, self._longest_sentence))
        word_starts = encoded.word_starts
        sentences, runs = self._split_long_sentences(sentences, runs, word_starts)
        document_tokens = paragraph_tokens[text.documents]
        sections, owners = _sections(document_tokens, paragraph_tokens, sentences, self._longest_section)
        return ColumnBatch(
            tokens=encoded.ids.astype(token_dtype(self._tokenizer.vocab_size)),
            flags=_flags(classes, starts, ends, word_starts),
            document_count=_occurrences(encoded.ids, sections),
            sentences=sentences,
            paragraphs=np.unique(np.concatenate([paragraph_tokens, sections])),
            sections=sections,
            names=_section_names(documents, owners),
            groups=[documents[owner].group for owner in owners.tolist()],
            labels=[documents[owner].label for owner in owners.tolist()],
            first_sections=np.concatenate([[True], owners[1:] != owners[:-1]]),
            spans=runs,
        )

    def _sentence_starts(self, text: _BatchText) -> Ints:
        starts = [
            base + start
            for paragraph, base in zip(text.paragraphs, text.starts.tolist(), strict=True)
            for start, _ in sentence_bounds(paragraph, self._language)
        ]
        return np.array(starts, dtype=np.int64)

    def _token_runs(
        self, documents: list[UnitDocument], text: _BatchText, positions: TokenPositions
    ) -> dict[str, Spans]:
        """Return token runs by kind, of spans in the input and spans from the annotators."""
        by_kind: dict[str, list[Spans]] = {kind: [] for kind in SPAN_KINDS}
        from_input: dict[str, list[tuple[int, int]]] = {}
        for document, base in zip(documents, text.starts[text.documents[:-1]].tolist(), strict=True):
            for start, end, kind in document.spans:
                from_input.setdefault(kind, []).append((base + start, base + end))
        for kind, pairs in from_input.items():
            by_kind[kind if kind in by_kind else "user"].append(as_spans(pairs))
        if self._annotators:
            paragraphs = [
                (start, start + len(paragraph))
                for start, paragraph in zip(text.starts.tolist(), text.paragraphs, strict=True)
            ]
            for annotator in self._annotators:
                for kind, spans in annotator.spans(text.text, paragraphs):
                    by_kind[kind].append(spans)
        return {
            kind: positions.runs(np.concatenate(parts), self.dropped_spans) for kind, parts in by_kind.items() if parts
        }

    def _split_long_sentences(
        self, sentences: Ints, runs: dict[str, Spans], word_starts: NDArray[np.bool_]
    ) -> tuple[Ints, dict[str, Spans]]:
        """Split sentences that are too long: before a word and outside spans if possible, else before a word.

        Spans across such a split (an unbroken chain of overlapping ones) are dropped and counted.
        """
        longest = self._longest_sentence
        long = np.flatnonzero(np.diff(sentences) > longest)
        if not len(long):
            return sentences, runs
        inside = np.zeros(len(word_starts) + 1, dtype=np.int64)
        for run in runs.values():
            inside[run[:, 0] + 1] += 1
            inside[run[:, 1]] -= 1
        free = np.cumsum(inside[:-1]) == 0
        cuts: list[int] = []
        for start, end in zip(sentences[long].tolist(), sentences[long + 1].tolist(), strict=True):
            while end - start > longest:
                window = slice(start + 1, start + longest + 1)
                choices = (free[window] & word_starts[window], free[window], word_starts[window])
                best = next((np.flatnonzero(choice)[-1] for choice in choices if choice.any()), longest - 1)
                start += 1 + int(best)
                cuts.append(start)
        cut = np.array(cuts, dtype=np.int64)
        uncut = {}
        for kind, run in runs.items():
            is_uncut = np.searchsorted(cut, run[:, 0], side="right") == np.searchsorted(cut, run[:, 1], side="left")
            self.dropped_spans += Counter({ACROSS: int((~is_uncut).sum())})
            uncut[kind] = run[is_uncut]
        return np.unique(np.concatenate([sentences, cut])), uncut


@lru_cache(maxsize=1)
def _encoder(tokenizer: SubwordTokenizer) -> CachedEncoder:
    """Return the encoder of a tokeniser; a worker reuses its cache for all units of work."""
    return CachedEncoder(tokenizer)


def shard_columns(
    batches: Sequence[ColumnBatch], split: Sequence[int], labels: Sequence[str] = ()
) -> dict[str, NDArray[Any]]:
    """Concatenate batches into the columns of a shard, see `store.write_shard`; `split` is per section.

    `labels`: classes of labelled pairs, which the column label indexes; without any there is no such column.
    """
    bases = np.cumsum([0, *(len(batch.tokens) for batch in batches)])

    def offsets(name: str) -> Ints:
        parts = [getattr(batch, name)[:-1] + base for batch, base in zip(batches, bases[:-1], strict=True)]
        return np.concatenate([*parts, bases[-1:]])

    sentences, paragraphs, sections = offsets("sentences"), offsets("paragraphs"), offsets("sections")
    columns: dict[str, NDArray[Any]] = {
        "tokens": np.concatenate([batch.tokens for batch in batches]),
        "flags": np.concatenate([batch.flags for batch in batches]),
        "document_count": np.concatenate([batch.document_count for batch in batches]),
        "sentences": sentences,
        "paragraphs": np.searchsorted(sentences, paragraphs),
        "documents": np.searchsorted(paragraphs, sections),
        "split": np.array(split, dtype=np.uint8),
        "group": np.array([group for batch in batches for group in batch.groups], dtype=np.uint64),
    }
    if labels:
        number = {label: at for at, label in enumerate(labels)}
        columns["label"] = np.array([number[str(label)] for batch in batches for label in batch.labels], np.uint16)
    for kind in SPAN_KINDS:
        runs = [
            batch.spans[kind] + base for batch, base in zip(batches, bases[:-1], strict=True) if kind in batch.spans
        ]
        if any(map(len, runs)):
            columns |= store.span_columns(kind, np.concatenate(runs), sections)
    return columns


class _BatchText(NamedTuple):
    """The text of a batch, its documents joined by blank lines, with offsets.

    `documents` (D + 1,) document → first paragraph; `starts` (P,) characters of `text` at which `paragraphs` begin.
    """

    text: str
    documents: Ints
    paragraphs: list[str]
    starts: Ints

    @classmethod
    def from_documents(cls, documents: Sequence[UnitDocument]) -> _BatchText:
        split = [document.text.split("\n\n") for document in documents]
        paragraphs = list(chain.from_iterable(split))
        # documents are joined by the same blank line as paragraphs, so all starts follow from the lengths
        starts = _offsets([len(paragraph) + 2 for paragraph in paragraphs])[:-1]
        return cls("\n\n".join(paragraphs), _offsets(list(map(len, split))), paragraphs, starts)


def _flags(classes: NDArray[np.uint8], starts: Ints, ends: Ints, word_starts: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return (T,) flags from the characters of each word."""
    firsts = np.flatnonzero(word_starts)
    if not len(firsts):
        return np.zeros(len(starts), dtype=np.uint8)
    lasts = np.append(firsts[1:], len(starts)) - 1
    begin, end = starts[firsts], ends[lasts]
    non_letters = np.concatenate([[0], np.cumsum((classes & (LETTER | INNER)) == 0)])
    first = classes[begin]
    cased = ((first & LETTER) > 0) & ((first & CASED) > 0) & (non_letters[end] == non_letters[begin])
    capital = cased & ((first & CAPITAL) > 0)
    words = (cased * np.uint8(store.CASED) + capital * np.uint8(CAPITALISED)).astype(np.uint8)
    flags = np.repeat(words, lasts + 1 - firsts)
    flags[firsts] |= WORD_START
    return flags


def _occurrences(ids: NDArray[np.int32], sections: Ints) -> NDArray[np.uint16]:
    """Return (T,) how often the id of each token occurs in its section, at most 65,535."""
    size = len(ids)
    section = np.repeat(np.arange(len(sections) - 1, dtype=np.uint64), np.diff(sections))
    # section, id and position in one number: sorting those is many times as fast as an argsort
    bits = np.uint64(max(size, 1).bit_length())
    wide = np.uint64(int(ids.max(initial=0)).bit_length())
    packed = np.sort((((section << wide) | ids.astype(np.uint64)) << bits) | np.arange(size, dtype=np.uint64))
    keys = packed >> bits
    begins = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if size else np.zeros(0, dtype=np.int64)
    lengths = np.diff(np.append(begins, size))
    counts = np.empty(size, dtype=np.uint16)
    counts[(packed & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)] = np.repeat(
        np.minimum(lengths, np.iinfo(np.uint16).max).astype(np.uint16), lengths
    )
    return counts


def _sections(documents: Ints, paragraphs: Ints, sentences: Ints, longest: int) -> tuple[Ints, Ints]:
    """Return (token offsets of sections, document of each section).

    A document of more than `longest` tokens is split before the paragraph that no longer fits. A paragraph that does
    not fit by itself is split at its sentences in the same way.
    """
    cuts: list[int] = []
    for document in np.flatnonzero(np.diff(documents) > longest).tolist():
        here, end = int(documents[document]), int(documents[document + 1])
        while end - here > longest:
            furthest = here + longest
            for bounds in (paragraphs, sentences):
                cut = int(bounds[np.searchsorted(bounds, furthest, side="right") - 1])
                if cut > here:
                    break
            here = cut
            cuts.append(here)
    sections = np.unique(np.concatenate([documents, np.array(cuts, dtype=np.int64)]))
    return sections, np.searchsorted(documents, sections[:-1], side="right") - 1


def _section_names(documents: Sequence[UnitDocument], owners: Ints) -> list[str]:
    """Return `id` for the first section of a document, `id§2`, `id§3` … for the others."""
    numbers = np.arange(len(owners)) - np.searchsorted(owners, owners) + 1
    names = [documents[owner].name for owner in owners.tolist()]
    return [name if number == 1 else f"{name}§{number}" for name, number in zip(names, numbers.tolist(), strict=True)]


def _offsets(counts: ArrayLike) -> Ints:
    """Convert counts to offsets: [3, 1] -> [0, 3, 4]."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
