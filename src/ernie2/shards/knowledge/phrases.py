"""Phrases: runs of words that occur together far more often than chance, mined from the corpus itself by NPMI.

A word is a span of kind word if there is one (Chinese), else a word of the pre-tokeniser. Only words with a letter are
part of phrases: punctuation, numbers, unknown words and the end of a sentence end a run. The normalised pointwise
mutual information of two neighbours x and y,

    NPMI(x, y) = ln(p(xy) / (p(x) p(y))) / -ln p(xy),

is 1 if they only ever occur together and 0 if they meet by chance (Bouma 2009). The score of a phrase is the minimum
NPMI over all ways to cut it in two, so "united states of" does not profit from "united states".

Counting is bounded: an n-gram that occurs only once in a shard is not counted there, and the rarest entries of the
merged table are dropped when it exceeds `TABLE_ENTRIES`. Words are identified by 64-bit hashes of their tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ernie2.config.data_settings import PhraseSettings
from ernie2.shards.knowledge.token_runs import Spans, as_spans, leftmost_longest
from ernie2.shards.store import TRAIN, WORD_START, Shard
from ernie2.shards.tokenizer import SubwordTokenizer

Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]

TABLE_ENTRIES = 2_000_000
"""Maximum n-grams of the merged counts, about 50 bytes each."""
FUNCTION_WORD_SHARE, FUNCTION_WORDS = 0.002, 50
"""No phrase begins or ends with one of the 50 most frequent words above 0.2 % of the text (the, of, …)."""

_BUCKET_BITS = np.uint64(64 - 22)
_EMPTY = np.zeros(0, dtype=np.uint64)


class Words(NamedTuple):
    """The words of a shard that may be part of a phrase.

    `hashes` (W,) uint64 · `starts`, `ends` (W,) token offsets · `runs` (W,) number of the unbroken run of a word ·
    `train` (W,) whether its document is in the train split · `total` words of the train split.
    """

    hashes: Hashes
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    runs: NDArray[np.int64]
    train: NDArray[np.bool_]

    @property
    def total(self) -> int:
        """Return the number of words of train documents."""
        return int(self.train.sum())


class Counts(NamedTuple):
    """Occurrences of n-grams, one per row, sorted by hash.

    `hashes`, `heads`, `tails` (N,) uint64: the n-gram, and the n-gram without its last and without its first word (0
    for n = 1) · `words` (N,) uint8, n · `counts` (N,) int64 · `places` (N, 3) int64: shard, first and end token of one
    occurrence · `total`: number of words counted.
    """

    hashes: Hashes
    heads: Hashes
    tails: Hashes
    words: NDArray[np.uint8]
    counts: NDArray[np.int64]
    places: NDArray[np.int64]
    total: int


class Phrases(NamedTuple):
    """Chosen phrases, best first: `hashes` (K,), `words` (K,) n, `counts` (K,), `npmi` (K,), `places` (K, 3)."""

    hashes: Hashes
    words: NDArray[np.uint8]
    counts: NDArray[np.int64]
    npmi: NDArray[np.float64]
    places: NDArray[np.int64]


def classify_tokens(tokenizer: SubwordTokenizer) -> NDArray[np.int8]:
    """Return (vocab_size,) int8: 1 for a token with a letter, 2 for special tokens including [UNK], else 0."""
    tokens = (tokenizer.decode([identity]) for identity in range(tokenizer.vocab_size))
    token_classes = np.array([any(map(str.isalpha, token)) for token in tokens], dtype=np.int8)
    token_classes[sorted(tokenizer.special_ids)] = 2
    return token_classes


def phrase_words(shard: Shard, token_classes: NDArray[np.int8]) -> Words:
    """Return the words of a shard that may be part of a phrase; `token_classes`: see `classify_tokens`."""
    tokens = np.asarray(shard.tokens)
    begins = (shard.flags & WORD_START) > 0
    sentences = np.asarray(shard.sentences)
    begins[sentences[:-1]] = True
    if "word" in shard.spans:
        first, end = shard.spans["word"][0].T
        inside = np.zeros(len(tokens) + 1, dtype=np.int8)
        inside[first + 1] += 1
        inside[end] -= 1
        begins &= np.cumsum(inside[:-1]) == 0
        begins[first] = True
        begins[end[end < len(tokens)]] = True
    starts = np.flatnonzero(begins)
    if not len(starts):
        return Words(_EMPTY, starts, starts, starts, starts > 0)
    ends = np.append(starts[1:], len(tokens))
    place = np.arange(len(tokens), dtype=np.uint64) - np.repeat(starts.astype(np.uint64), ends - starts)
    hashes = np.add.reduceat(_mix(tokens | (place << np.uint64(32))), starts)
    is_candidate = np.maximum.reduceat(token_classes[tokens], starts) == 1
    new_sentence = np.zeros(len(tokens) + 1, dtype=np.bool_)
    new_sentence[sentences] = True
    runs = np.cumsum(new_sentence[starts] | ~is_candidate)
    documents = np.diff(sentences[shard.paragraphs[shard.documents]])
    train = np.repeat(np.asarray(shard.split) == TRAIN, documents)[starts]
    return Words(
        _mix(hashes)[is_candidate], starts[is_candidate], ends[is_candidate], runs[is_candidate], train[is_candidate]
    )


def count_ngrams(words: Words, shard: int, max_words: int) -> Counts:
    """Count the n-grams, n = 1 … max_words, that occur at least twice in the train documents of a shard."""
    hashes, runs = words.hashes, words.runs
    level = hashes
    places, first, number = _find_repeated(level, np.flatnonzero(words.train))
    parts = [_ngram_counts(level, first, number, 1, words, shard, level)]
    for n in range(2, max_words + 1):
        repeated = np.zeros(len(hashes) + 1, dtype=np.bool_)
        repeated[places] = True
        # both n-1-grams inside must be repeated; no word follows the last one
        places = np.flatnonzero(repeated[:-1] & repeated[1:])
        places = places[runs[places] == runs[np.minimum(places + n - 1, len(runs) - 1)]]
        longer = np.zeros(len(hashes), dtype=np.uint64)
        longer[places] = _combine(level[places], hashes[places + n - 1])
        places, first, number = _find_repeated(longer, places)
        parts.append(_ngram_counts(longer, first, number, n, words, shard, level))
        level = longer
    return merge_counts(parts, words.total)


def merge_counts(parts: Iterable[Counts], total: int | None = None, entries: int = TABLE_ENTRIES) -> Counts:
    """Sum counts in order; beyond `entries` the rarest are dropped. `total`: given if all parts are of one text."""
    waiting: list[Counts] = []
    for part in parts:
        waiting.append(part)
        if sum(len(one.hashes) for one in waiting) > 2 * entries:
            waiting = [_prune(_sum_counts(waiting), entries)]
    table = _prune(_sum_counts(waiting), entries)
    return table if total is None else table._replace(total=total)


def select_phrases(counts: Counts, settings: PhraseSettings) -> Phrases:
    """Select phrases with enough occurrences, enough NPMI, and no function word at either end, as set in `settings`.

    The best `max_phrases` are selected by count × NPMI: the amount of text a phrase marks times its strength.
    """
    frequent = _function_words(counts)
    counts = _select_rows(counts, counts.counts >= settings.min_count)  # the parts of a phrase are at least as frequent
    log_counts = np.log(counts.counts) - np.log(max(counts.total, 1))
    rows = np.flatnonzero((counts.words > 1) & (counts.words <= settings.max_words))
    npmi = np.full(len(rows), np.inf)
    edges_ok = np.ones(len(rows), dtype=np.bool_)
    # row → row of the n-gram without its last or its first word; -1 if unknown, also at the end for row -1
    head, tail = (np.append(_find_hashes(counts.hashes, shorter), -1) for shorter in (counts.heads, counts.tails))
    for n in range(2, settings.max_words + 1):
        mine = np.flatnonzero(counts.words[rows] == n)
        heads, tails = [rows[mine]], [rows[mine]]  # without their last, first k words
        for _ in range(n - 1):
            heads.append(head[heads[-1]])
            tails.append(tail[tails[-1]])
        joint = log_counts[rows[mine]]
        for cut in range(1, n):
            left, right = heads[n - cut], tails[cut]
            # a phrase that is the entire text has p = 1: no normalisation
            score = (joint - log_counts[left] - log_counts[right]) / np.maximum(-joint, 1e-12)
            npmi[mine] = np.minimum(npmi[mine], np.where((left >= 0) & (right >= 0), score, -np.inf))
        for edge in (heads[-1], tails[-1]):
            edges_ok[mine] &= ~np.isin(counts.hashes[edge], frequent)
    valid = np.flatnonzero(edges_ok & (npmi >= settings.min_npmi))
    order = np.lexsort((counts.hashes[rows[valid]], -npmi[valid] * counts.counts[rows[valid]]))[: settings.max_phrases]
    best = rows[valid[order]]
    return Phrases(
        counts.hashes[best], counts.words[best], counts.counts[best], npmi[valid[order]], counts.places[best]
    )


def _function_words(counts: Counts) -> Hashes:
    """Return the hashes of words that no phrase may begin or end with; a rule for any language, without lists."""
    single = counts.words == 1
    hashes, number = counts.hashes[single], counts.counts[single]
    least = FUNCTION_WORD_SHARE * counts.total
    if len(number) > FUNCTION_WORDS:
        least = max(least, float(np.partition(number, -FUNCTION_WORDS - 1)[-FUNCTION_WORDS - 1]))
    chosen: Hashes = hashes[number > least]
    return chosen


def find_phrases(words: Words, phrases: Phrases, existing: Spans | None = None) -> Spans:
    """Return the token runs of the phrases in a shard, train and held out: the leftmost and then the longest.

    `existing`: runs of kind phrase in the shard; they stay, and no run that overlaps them is added.
    """
    existing = as_spans([]) if existing is None else existing
    level, candidates = words.hashes, [as_spans([])]
    for n in range(2, int(phrases.words.max(initial=1)) + 1):
        level = _combine(level[:-1], words.hashes[n - 1 :])
        if not len(level):
            break
        places = np.flatnonzero(_are_among(level, np.sort(phrases.hashes[phrases.words == n])))
        places = places[words.runs[places] == words.runs[places + n - 1]]
        candidates.append(np.stack([words.starts[places], words.ends[places + n - 1]], axis=1))
    runs = np.concatenate(candidates)
    # a run is free if as many existing ones end before it as begin before its end
    ended = np.searchsorted(existing[:, 1], runs[:, 0], side="right")
    runs = runs[ended == np.searchsorted(existing[:, 0], runs[:, 1])]
    runs = np.concatenate([existing, runs[leftmost_longest(runs)]])
    return runs[np.argsort(runs[:, 0], kind="stable")]


def _find_repeated(hashes: Hashes, places: Places) -> tuple[Places, Places, Places]:
    """Return the `places` whose hash occurs twice or more, and per such hash its first place and number of places."""
    # a part of the hash and the place in one number: sorting those is many times as fast as an argsort
    bits = np.uint64(int(places[-1]).bit_length() if len(places) else 1)
    packed = np.sort((hashes[places] >> bits << bits) | places.astype(np.uint64))
    sorted_places = (packed & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)
    in_order = hashes[sorted_places]
    begins = np.flatnonzero(_is_first(in_order))
    lengths = np.diff(np.append(begins, len(places)))
    several = lengths > 1
    return sorted_places[np.repeat(several, lengths)], sorted_places[begins[several]], lengths[several]


def _ngram_counts(
    hashes: Hashes, first: Places, number: Places, n: int, words: Words, shard: int, shorter: Hashes
) -> Counts:
    """Return counts of n-grams that occur `number` times, `first` there; `shorter`: hashes of n-1-grams by place."""
    order = np.argsort(hashes[first])
    at = first[order]
    none = np.zeros(len(at), dtype=np.uint64)
    return Counts(
        hashes=hashes[at],
        heads=shorter[at] if n > 1 else none,
        tails=shorter[at + 1] if n > 1 else none,
        words=np.full(len(at), n, dtype=np.uint8),
        counts=number[order].astype(np.int64),
        places=np.stack([np.full(len(at), shard), words.starts[at], words.ends[at + n - 1]], axis=1).astype(np.int64),
        total=words.total,
    )


def _sum_counts(parts: Sequence[Counts]) -> Counts:
    *columns, totals = zip(*parts, strict=True)
    joint = Counts._make([*map(np.concatenate, columns), sum(totals)])
    order = np.argsort(joint.hashes, kind="stable")  # stable: the place of the earliest part is used
    first = np.flatnonzero(_is_first(joint.hashes[order]))
    sums = np.add.reduceat(joint.counts[order], first) if len(first) else joint.counts
    return _select_rows(joint, order[first])._replace(counts=sums)


def _select_rows(counts: Counts, rows: NDArray[Any]) -> Counts:
    return Counts._make([*(column[rows] for column in counts[:-1]), counts.total])


def _is_first(in_order: NDArray[Any]) -> NDArray[np.bool_]:
    """Return whether each of the sorted values is the first of its kind."""
    return np.concatenate([np.ones(min(1, len(in_order)), dtype=np.bool_), in_order[1:] != in_order[:-1]])


def _prune(counts: Counts, entries: int) -> Counts:
    """Return the most frequent rows, at most `entries`; rows of equal count are kept or dropped together."""
    if len(counts.hashes) <= entries:
        return counts
    at_most = np.partition(counts.counts, len(counts.counts) - entries - 1)[len(counts.counts) - entries - 1]
    return _select_rows(counts, counts.counts > at_most)


def _find_hashes(sorted_hashes: Hashes, hashes: Hashes) -> Places:
    """Return the index of each of `hashes` in `sorted_hashes`; -1 if absent."""
    index = np.minimum(np.searchsorted(sorted_hashes, hashes), len(sorted_hashes) - 1)
    return np.where(sorted_hashes[index] == hashes, index, -1)


def _are_among(hashes: Hashes, sorted_hashes: Hashes) -> NDArray[np.bool_]:
    """Return which of `hashes` are in `sorted_hashes`; a table of buckets decides most without a search."""
    is_member = np.zeros(len(hashes), dtype=np.bool_)
    if not len(sorted_hashes):
        return is_member
    table = np.zeros(1 << 22, dtype=np.bool_)
    table[(sorted_hashes >> _BUCKET_BITS).astype(np.int64)] = True
    likely = np.flatnonzero(table[(hashes >> _BUCKET_BITS).astype(np.int64)])
    is_member[likely] = _find_hashes(sorted_hashes, hashes[likely]) >= 0
    return is_member


def _combine(left: Hashes, right: Hashes) -> Hashes:
    return _mix(left * np.uint64(0x9E3779B97F4A7C15) + right)


def _mix(values: Hashes) -> Hashes:
    """Spread the bits of 64-bit numbers by a bijection (the finaliser of splitmix64)."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
