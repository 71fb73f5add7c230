"""Mined phrases: counts against a plain dictionary, scores by hand."""

from __future__ import annotations

from collections import Counter
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie2.config.data_settings import PhraseSettings
from ernie2.shards.knowledge.phrases import (
    Counts,
    Phrases,
    count_ngrams,
    find_phrases,
    merge_counts,
    phrase_words,
    select_phrases,
)
from ernie2.shards.store import HELDOUT, WORD_START, Shard, span_columns, write_shard

TOKEN_CLASSES = np.array([0, 2] + [1] * 198, dtype=np.int8)  # token 0: punctuation, 1: unknown


def shard(folder, sentences, heldout=(), starts=None, word_runs=None):
    """A shard with one document per sentence; every token is a word unless `starts` is given."""
    tokens = np.array([token for sentence in sentences for token in sentence], dtype=np.uint16)
    ends = np.cumsum([0, *map(len, sentences)])
    flags = np.full(len(tokens), WORD_START, dtype=np.uint8) if starts is None else np.array(starts, dtype=np.uint8)
    columns = {
        "tokens": tokens,
        "flags": flags,
        "document_count": np.ones(len(tokens), dtype=np.uint16),
        "sentences": ends,
        "paragraphs": np.arange(len(ends)),
        "documents": np.arange(len(ends)),
        "split": np.array([HELDOUT * (i in heldout) for i in range(len(sentences))], dtype=np.uint8),
        "group": np.arange(len(sentences), dtype=np.uint64),
    }
    if word_runs is not None:
        columns |= span_columns("word", np.array(word_runs), ends)
    write_shard(folder, columns, [str(i) for i in range(len(sentences))], {"corpus": "c", "tokenizer": "t"})
    return Shard(folder)


def plain_counts(sentences, max_words):
    """n-grams that occur twice at least: tuple of ids -> count."""
    counted = Counter()
    for sentence in sentences:
        run = []
        for token in [*sentence, 0]:
            if TOKEN_CLASSES[token] == 1:
                run.append(token)
                continue
            for n in range(1, max_words + 1):
                counted.update(tuple(run[i : i + n]) for i in range(len(run) - n + 1))
            run = []
    return {ngram: number for ngram, number in counted.items() if number > 1}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=12), min_size=1, max_size=8), st.integers(2, 5))
def test_counts_agree_with_a_plain_dictionary(tmp_path_factory, sentences, max_words):
    one_shard = shard(tmp_path_factory.mktemp("shard") / "s", sentences)
    counts = count_ngrams(phrase_words(one_shard, TOKEN_CLASSES), 0, max_words)
    tokens = np.asarray(one_shard.tokens)
    found = {tuple(tokens[a:b].tolist()): n for (_, a, b), n in zip(counts.places, counts.counts.tolist(), strict=True)}
    assert found == plain_counts(sentences, max_words)
    assert counts.total == sum(token > 1 for sentence in sentences for token in sentence)


def test_held_out_documents_are_not_counted(tmp_path):
    counts = count_ngrams(
        phrase_words(shard(tmp_path / "s", [[5, 6], [5, 6], [5, 6]], heldout=[2]), TOKEN_CLASSES), 0, 2
    )
    assert counts.counts.tolist() == [2, 2, 2]
    assert counts.total == 4


def test_tokens_of_a_word_and_spans_of_kind_word_count_as_one(tmp_path):
    pieces = phrase_words(shard(tmp_path / "a", [[5, 6, 7]], starts=[1, 0, 1]), TOKEN_CLASSES)
    assert (pieces.starts.tolist(), pieces.ends.tolist()) == ([0, 2], [2, 3])
    chinese = phrase_words(shard(tmp_path / "b", [[5, 6, 7, 8]], word_runs=[[1, 3]]), TOKEN_CLASSES)
    assert (chinese.starts.tolist(), chinese.ends.tolist()) == ([0, 1, 3], [1, 3, 4])


def test_words_with_unknown_tokens_are_excluded(tmp_path):
    words = phrase_words(shard(tmp_path / "s", [[5, 1, 6, 7]], starts=[1, 1, 0, 1]), TOKEN_CLASSES)
    assert words.starts.tolist() == [0, 3]
    assert words.runs[0] != words.runs[1]


def test_words_differ_by_the_order_of_their_tokens(tmp_path):
    words = phrase_words(shard(tmp_path / "s", [[5, 6, 7, 5, 7, 6, 5, 6, 7]], starts=[1, 0, 0] * 3), TOKEN_CLASSES)
    assert words.hashes[0] == words.hashes[2] != words.hashes[1]


def text_with(phrases, filler=2000):
    """Sentences of words 10 … 59 at random, into which `phrases` (tuple of ids -> times) are inserted."""
    rng = np.random.default_rng(0)
    sentences = [rng.integers(10, 60, 5).tolist() for _ in range(filler)]
    for phrase, times in phrases.items():
        sentences += [[int(rng.integers(10, 60)), *phrase, int(rng.integers(10, 60))] for _ in range(times)]
    return sentences


def test_npmi_is_as_defined(tmp_path):
    sentences = text_with({(100, 101): 12, (100, 102): 4})
    counts = count_ngrams(phrase_words(shard(tmp_path / "s", sentences), TOKEN_CLASSES), 0, 2)
    chosen = select_phrases(counts, PhraseSettings(min_count=8, max_words=2))
    total = sum(map(len, sentences))
    expected = log((12 / total) / ((16 / total) * (12 / total))) / -log(12 / total)
    assert chosen.counts.tolist() == [12]
    assert chosen.npmi.tolist() == pytest.approx([expected])


def test_a_longer_run_is_as_good_as_its_weakest_cut(tmp_path):
    """Words 100 101 always come together; 102 follows them only by chance."""
    sentences = text_with({(100, 101): 40, (102,): 3000}) + [[100, 101, 102]] * 10
    counts = count_ngrams(phrase_words(shard(tmp_path / "s", sentences), TOKEN_CLASSES), 0, 3)
    chosen = select_phrases(counts, PhraseSettings(min_count=8, min_npmi=0.35, max_words=3))
    assert chosen.words.tolist() == [2]
    assert chosen.npmi.tolist() == pytest.approx([1.0])


def test_a_phrase_may_contain_a_function_word_but_not_at_its_ends(tmp_path):
    """Words 10 … 59 make up 2 % of the text each."""
    sentences = text_with({(100, 10, 101): 30})
    counts = count_ngrams(phrase_words(shard(tmp_path / "s", sentences), TOKEN_CLASSES), 0, 3)
    chosen = select_phrases(counts, PhraseSettings(min_count=8, min_npmi=0.2, max_words=3))
    assert chosen.words.tolist() == [3]


def test_phrases_are_ranked_by_count_times_npmi(tmp_path):
    sentences = text_with({(100, 101): 10, (102, 103): 30, (104, 105): 20})
    counts = count_ngrams(phrase_words(shard(tmp_path / "s", sentences), TOKEN_CLASSES), 0, 2)
    assert select_phrases(counts, PhraseSettings(max_phrases=2)).counts.tolist() == [30, 20]
    assert len(select_phrases(counts, PhraseSettings(max_phrases=0)).hashes) == 0


def test_the_leftmost_and_then_the_longest_are_marked_inside_sentences_only(tmp_path):
    a, b, c = 100, 101, 102
    train = text_with({(a, b): 30, (a, b, c): 30, (c, a): 30})
    counts = count_ngrams(phrase_words(shard(tmp_path / "train", train), TOKEN_CLASSES), 0, 3)
    chosen = select_phrases(counts, PhraseSettings(min_npmi=0.3, max_words=3))
    words = phrase_words(
        shard(tmp_path / "s", [[a, b, c, a, b], [a], [b, 0, c, a], [c, 0, a]], heldout=[2]), TOKEN_CLASSES
    )
    assert find_phrases(words, chosen).tolist() == [[0, 3], [3, 5], [8, 10]]
    assert find_phrases(words, chosen, np.array([[4, 5]])).tolist() == [[0, 3], [4, 5], [8, 10]]


def test_marking_twice_changes_nothing(tmp_path):
    chosen = select_phrases(
        count_ngrams(phrase_words(shard(tmp_path / "t", text_with({(100, 101): 30})), TOKEN_CLASSES), 0, 4),
        PhraseSettings(),
    )
    words = phrase_words(shard(tmp_path / "s", [[100, 101, 100, 101, 7], [100, 101]]), TOKEN_CLASSES)
    once = find_phrases(words, chosen)
    assert len(once) == 3
    assert find_phrases(words, chosen, once).tolist() == once.tolist()


def test_counts_of_shards_are_summed_and_the_rarest_dropped_beyond_the_bound(tmp_path):
    one = count_ngrams(phrase_words(shard(tmp_path / "a", [[5, 6]] * 3), TOKEN_CLASSES), 0, 2)
    two = count_ngrams(phrase_words(shard(tmp_path / "b", [[5, 7]] * 2), TOKEN_CLASSES), 1, 2)
    both = merge_counts([one, two])
    assert sorted(both.counts.tolist()) == [2, 2, 3, 3, 5]
    assert both.total == 10
    assert sorted(merge_counts([one, two], entries=3).counts.tolist()) == [3, 3, 5]
    assert both.places[:, 0].tolist().count(0) == 3  # the earliest place is used


def test_counts_survive_saving(tmp_path):
    counts = count_ngrams(phrase_words(shard(tmp_path / "a", [[5, 6]] * 3), TOKEN_CLASSES), 0, 2)
    np.savez(tmp_path / "counts.npz", **counts._asdict())
    with np.load(tmp_path / "counts.npz") as columns:
        again = Counts(**columns)
    assert again.counts.tolist() == counts.counts.tolist()
    assert again.total == counts.total


def test_a_shard_without_a_word_has_no_phrases(tmp_path):
    words = phrase_words(shard(tmp_path / "s", [[0, 0], [0]]), TOKEN_CLASSES)
    counts = count_ngrams(words, 0, 4)
    chosen = select_phrases(counts, PhraseSettings())
    assert isinstance(chosen, Phrases)
    assert len(chosen.hashes) == len(counts.hashes) == 0
    assert find_phrases(words, chosen).shape == (0, 2)
