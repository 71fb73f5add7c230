"""Columns of texts small enough to check by eye, and invariants over any text."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie2.config.data_settings import ShardSettings
from ernie2.shards.columns import NO_TOKENS, ONE_TEXT_EMPTY, ONLY_UNKNOWN, ColumnBuilder, shard_columns
from ernie2.shards.knowledge.token_runs import ACROSS, TOO_LONG, as_spans
from ernie2.shards.store import CAPITALISED, CASED, WORD_START
from ernie2.shards.tokenizer import train_tokenizer
from ernie2.shards.units import UnitDocument

WORDS = (
    "the a parisma thappy cat dog sat on mat un happy it's straße élan house in paris berlin"
    " mcdonald iphone नमस्ते दुनिया გამარჯობა שלום 文 字 1859"
)
TOKENIZER = train_tokenizer(iter([WORDS] * 3), 300)
NONE = 0


def make_builder(language="en", annotators=(), **limits):
    return ColumnBuilder(TOKENIZER, language, annotators, ShardSettings(folder="nowhere", **limits))


def columns(*texts, spans=(), builder=None, **limits):
    """Columns of the documents `texts`; `spans` belong to the first."""
    builder = builder or make_builder(**limits)
    documents = [UnitDocument(f"d{i}", i, text, list(spans) if i == 0 else []) for i, text in enumerate(texts)]
    batches = [batch for batch, _ in builder.batches(documents) if batch is not None]
    return shard_columns(batches, [0] * sum(len(batch.names) for batch in batches)), batches


def words(text, flags_of):
    """The flags of the words of `text`, without WORD_START, by word."""
    flags = flags_of["flags"]
    firsts = np.flatnonzero(flags & WORD_START)
    return dict(zip(text.split(), (flags[firsts] - WORD_START).tolist(), strict=True))


def test_case_is_that_of_the_original_text():
    text = "The cat McDonald iPhone PARIS Élan 1859 - 文 नमस्ते გამარჯობა שלום"
    assert words(text, columns(text)[0]) == {
        "The": CASED | CAPITALISED,
        "cat": CASED,
        "McDonald": CASED | CAPITALISED,
        "iPhone": CASED,
        "PARIS": CASED | CAPITALISED,
        "Élan": CASED | CAPITALISED,
        "1859": NONE,
        "-": NONE,
        "文": NONE,
        "नमस्ते": NONE,
        "გამარჯობა": NONE,
        "שלום": NONE,
    }


def test_words_of_the_pre_tokeniser_begin_where_it_says_and_mixed_words_have_no_case():
    result, _ = columns("It's B2 straße")  # It ' s B2 straße
    firsts = np.flatnonzero(result["flags"] & WORD_START)
    assert (result["flags"][firsts] - WORD_START).tolist() == [CASED | CAPITALISED, NONE, CASED, NONE, CASED]


def test_all_tokens_of_a_word_have_its_case_flags():
    result, _ = columns("Parismathappy")
    assert len(result["tokens"]) > 1
    assert (result["flags"] & ~np.uint8(WORD_START)).tolist() == [CASED | CAPITALISED] * len(result["tokens"])


def test_sentences_paragraphs_and_documents_follow_the_text():
    result, _ = columns("the cat sat. the dog sat.\n\nthe mat", "a dog")
    assert result["sentences"].tolist() == [0, 4, 8, 10, 12]
    assert result["paragraphs"].tolist() == [0, 2, 3, 4]
    assert result["documents"].tolist() == [0, 2, 3]
    assert result["document_count"].tolist() == [3, 1, 2, 2, 3, 1, 2, 2, 3, 1, 1, 1]


def test_document_counts_saturate():
    result, _ = columns("a " * 70_000, document_tokens=65_535, sentence_tokens=60_000)
    assert result["document_count"].max() == 60_000
    assert result["document_count"][-1] == 10_000


def test_spans_become_token_runs_by_kind():
    spans = [(4, 7, "entity"), (0, 7, "phrase"), (8, 11, "strange")]
    result, _ = columns("the cat sat", "the cat", spans=spans)
    assert result["spans_entity"].tolist() == [[1, 2]]
    assert result["spans_phrase"].tolist() == [[0, 2]]
    assert result["spans_user"].tolist() == [[2, 3]]
    assert result["spans_user_at"].tolist() == [0, 1, 1]
    assert "spans_word" not in result


def test_spans_of_annotators_and_of_the_input_are_joined_by_kind():
    class Dogs:
        def spans(self, text, paragraphs):
            at = text.index("dog")
            yield "entity", as_spans([(at, at + 3)])

    result, _ = columns("the cat. a dog", spans=[(4, 7, "entity")], builder=make_builder(annotators=[Dogs()]))
    assert result["spans_entity"].tolist() == [[1, 2], [4, 5]]


def test_a_long_sentence_is_cut_before_a_word_and_never_inside_a_span():
    text = "the cat " * 10
    result, _ = columns(text, spans=[(24, 55, "user")], sentence_tokens=8, document_tokens=64)
    assert result["spans_user"].tolist() == [[6, 14]]
    cuts = result["sentences"].tolist()
    first, end = result["spans_user"][0]
    assert not any(first < cut < end for cut in cuts)
    assert np.diff(cuts).max() <= 8


def test_a_span_longer_than_the_sentence_limit_is_dropped_and_counted():
    builder = make_builder(sentence_tokens=8)
    assert "spans_user" not in columns("the cat " * 10, spans=[(0, 39, "user")], builder=builder)[0]
    assert builder.dropped_spans == {TOO_LONG: 1}


def test_a_chain_of_overlapping_spans_is_cut_and_spans_across_the_cut_are_dropped():
    text = "the cat " * 6  # 12 words; runs of two kinds overlap without a gap
    spans = [(0, 15, "entity"), (12, 27, "user"), (24, 39, "entity")]
    builder = make_builder(sentence_tokens=8)
    kept, _ = columns(text, spans=spans, builder=builder)
    assert np.diff(kept["sentences"]).max() <= 8
    runs = [run for kind in ("entity", "user") for run in kept.get(f"spans_{kind}", np.zeros((0, 2))).tolist()]
    assert not any(first < cut < end for first, end in runs for cut in kept["sentences"].tolist())
    assert builder.dropped_spans[ACROSS] + len(runs) + builder.dropped_spans["span cuts a token"] == 3


def test_a_long_document_is_split_at_paragraphs_and_a_long_paragraph_at_sentences():
    paragraphs = ["the cat sat. " * 10, "a dog. " * 5, "the mat. " * 30]
    result, batches = columns("\n\n".join(p.strip() for p in paragraphs), "a cat", document_tokens=64)
    ends = result["sentences"][result["paragraphs"][result["documents"]]]
    assert ends.tolist() == [0, 55, 118, 145, 147]
    assert batches[0].names == ["d0", "d0§2", "d0§3", "d1"]
    assert batches[0].groups == [0, 0, 0, 1]
    assert batches[0].first_sections.tolist() == [True, False, False, True]
    assert result["document_count"][0] == 10  # counted only in its section


def test_documents_with_no_or_only_unknown_tokens_are_dropped_and_counted():
    builder = make_builder()
    kept, batches = columns("the cat", "\u200b", "♜ ♞", "a dog ♜", builder=builder)
    assert batches[0].names == ["d0", "d3"]
    assert len(kept["tokens"]) == 5
    assert builder.dropped == {NO_TOKENS: 1, ONLY_UNKNOWN: 1}


def test_batches_of_any_size_give_the_same_columns(monkeypatch):
    texts = ["the cat sat. a dog\n\nthe mat", "a dog", "Paris in Berlin. " * 20, "the house"]
    whole, _ = columns(*texts, document_tokens=64)
    monkeypatch.setattr("ernie2.shards.columns.BATCH_CHARACTERS", 1)
    pieces, batches = columns(*texts, document_tokens=64)
    assert len(batches) == 4
    for name, column in whole.items():
        assert column.dtype == pieces[name].dtype
        assert column.tolist() == pieces[name].tolist(), name


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.text(alphabet=st.sampled_from("the cat Dog.\nß é文!?'")).map(str.strip).filter(bool), min_size=1, max_size=5
    ),
    st.integers(8, 20),
)
def test_offsets_nest_and_cover_all_tokens(texts, longest):
    texts = ["the " + "\n\n".join(filter(None, (part.strip() for part in text.split("\n\n")))) for text in texts]
    result, _ = columns(*texts, sentence_tokens=longest, document_tokens=64)
    size = len(result["tokens"])
    for name, last in (
        ("sentences", size),
        ("paragraphs", len(result["sentences"]) - 1),
        ("documents", len(result["paragraphs"]) - 1),
    ):
        assert result[name][0] == 0
        assert result[name][-1] == last
        assert (np.diff(result[name]) > 0).all()
    assert np.diff(result["sentences"]).max() <= longest
    sections = result["sentences"][result["paragraphs"][result["documents"]]]
    for start, end in pairwise(sections.tolist()):
        tokens = result["tokens"][start:end].tolist()
        assert result["document_count"][start:end].tolist() == [Counter(tokens)[token] for token in tokens]
    assert (result["flags"][sections[:-1]] & WORD_START).all()


@pytest.mark.parametrize("capital", [False, True])
def test_a_german_noun_is_capitalised_and_a_verb_is_not(capital):
    text = "Straße" if capital else "straße"
    assert columns(text, builder=make_builder("de"))[0]["flags"][0] == WORD_START | CASED | CAPITALISED * capital


def pair_columns(pairs, **limits):
    """Columns of labelled pairs, their builder and their batches."""
    builder = ColumnBuilder(TOKENIZER, "en", (), ShardSettings(folder="nowhere", **limits), pairs=True)
    documents = [UnitDocument(f"d{i}", i, f"{a}\n\n{b}", [], "ab"[i % 2]) for i, (a, b) in enumerate(pairs)]
    batches = [batch for batch, _ in builder.batches(documents) if batch is not None]
    names = [name for batch in batches for name in batch.names]
    return shard_columns(batches, [0] * len(names), ("a", "b")) if names else None, names, builder


def test_a_pair_without_tokens_in_one_or_both_texts_is_dropped_and_counted():
    pairs = [
        ("the cat", "a dog"),
        ("the cat", "\u200b"),
        ("\u200b", "a dog"),
        ("\u200b", "\u200b"),
        ("♜", "♞"),
        ("♜", "a"),
    ]
    result, names, builder = pair_columns(pairs)
    assert names == ["d0", "d5"]
    assert result["label"].tolist() == [0, 1]
    assert result["label"].dtype == np.uint16
    assert builder.dropped == {ONE_TEXT_EMPTY: 2, NO_TOKENS: 1, ONLY_UNKNOWN: 1}


TEXT = st.text(alphabet=st.sampled_from("the cat. Dog!?é文\u200b♜"), max_size=300).map(
    lambda text: " ".join(text.split())
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXT.filter(bool), TEXT.filter(bool)), min_size=1, max_size=6), st.integers(8, 20))
def test_every_pair_is_one_document_of_two_paragraphs(pairs, longest):
    result, names, builder = pair_columns(pairs, sentence_tokens=longest, document_tokens=64)
    assert len(names) + sum(builder.dropped.values()) == len(pairs)
    if result is None:
        return
    assert result["documents"].tolist() == list(range(0, 2 * len(names) + 1, 2))
    assert np.diff(result["sentences"]).max() <= longest
    ends = result["sentences"][result["paragraphs"]].tolist()
    for number, name in enumerate(names):
        first, middle, last = ends[2 * number : 2 * number + 3]
        kept = int(name[1:])
        assert result["label"][number] == kept % 2
        alone = [encoding.ids for encoding in TOKENIZER.encode_batch(list(pairs[kept]))]
        assert [result["tokens"][first:middle].tolist(), result["tokens"][middle:last].tolist()] == alone
        tokens = result["tokens"][first:last].tolist()
        assert result["document_count"][first:last].tolist() == [Counter(tokens)[token] for token in tokens]
