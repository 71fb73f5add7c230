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
PIECES = train_tokenizer(iter([WORDS] * 3), 300)
NONE = 0


def maker(language="en", annotators=(), **limits):
    return ColumnBuilder(PIECES, language, annotators, ShardSettings(folder="nowhere", **limits))


def columns(*texts, spans=(), made=None, **limits):
    """Columns of the documents `texts`; `spans` belong to the first."""
    made = made or maker(**limits)
    documents = [UnitDocument(f"d{i}", i, text, list(spans) if i == 0 else []) for i, text in enumerate(texts)]
    batches = [batch for batch, _ in made.batches(documents) if batch is not None]
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
    made, _ = columns("It's B2 straße")  # It ' s B2 straße
    firsts = np.flatnonzero(made["flags"] & WORD_START)
    assert (made["flags"][firsts] - WORD_START).tolist() == [CASED | CAPITALISED, NONE, CASED, NONE, CASED]


def test_all_pieces_of_a_word_carry_its_case():
    made, _ = columns("Parismathappy")
    assert len(made["tokens"]) > 1
    assert (made["flags"] & ~np.uint8(WORD_START)).tolist() == [CASED | CAPITALISED] * len(made["tokens"])


def test_sentences_paragraphs_and_documents_follow_the_text():
    made, _ = columns("the cat sat. the dog sat.\n\nthe mat", "a dog")
    assert made["sentences"].tolist() == [0, 4, 8, 10, 12]
    assert made["paragraphs"].tolist() == [0, 2, 3, 4]
    assert made["documents"].tolist() == [0, 2, 3]
    assert made["document_count"].tolist() == [3, 1, 2, 2, 3, 1, 2, 2, 3, 1, 1, 1]


def test_document_counts_saturate():
    made, _ = columns("a " * 70_000, document_tokens=65_535, sentence_tokens=60_000)
    assert made["document_count"].max() == 60_000
    assert made["document_count"][-1] == 10_000


def test_spans_become_token_runs_by_kind():
    spans = [(4, 7, "entity"), (0, 7, "phrase"), (8, 11, "strange")]
    made, _ = columns("the cat sat", "the cat", spans=spans)
    assert made["spans_entity"].tolist() == [[1, 2]]
    assert made["spans_phrase"].tolist() == [[0, 2]]
    assert made["spans_user"].tolist() == [[2, 3]]
    assert made["spans_user_at"].tolist() == [0, 1, 1]
    assert "spans_word" not in made


def test_annotators_and_given_spans_of_a_kind_are_joined():
    class Dogs:
        def spans(self, text, paragraphs):
            at = text.index("dog")
            yield "entity", as_spans([(at, at + 3)])

    made, _ = columns("the cat. a dog", spans=[(4, 7, "entity")], made=maker(annotators=[Dogs()]))
    assert made["spans_entity"].tolist() == [[1, 2], [4, 5]]


def test_a_long_sentence_is_cut_before_a_word_and_never_inside_a_span():
    text = "the cat " * 10
    made, _ = columns(text, spans=[(24, 55, "user")], sentence_tokens=8, document_tokens=64)
    assert made["spans_user"].tolist() == [[6, 14]]
    cuts = made["sentences"].tolist()
    first, end = made["spans_user"][0]
    assert not any(first < cut < end for cut in cuts)
    assert np.diff(cuts).max() <= 8


def test_a_span_longer_than_a_sentence_may_be_is_dropped_by_name():
    made = maker(sentence_tokens=8)
    assert "spans_user" not in columns("the cat " * 10, spans=[(0, 39, "user")], made=made)[0]
    assert made.dropped_spans == {TOO_LONG: 1}


def test_a_chain_of_overlapping_spans_is_cut_and_what_the_cut_goes_through_is_dropped():
    text = "the cat " * 6  # 12 words; runs of two kinds overlap without a gap
    spans = [(0, 15, "entity"), (12, 27, "user"), (24, 39, "entity")]
    made = maker(sentence_tokens=8)
    kept, _ = columns(text, spans=spans, made=made)
    assert np.diff(kept["sentences"]).max() <= 8
    runs = [run for kind in ("entity", "user") for run in kept.get(f"spans_{kind}", np.zeros((0, 2))).tolist()]
    assert not any(first < cut < end for first, end in runs for cut in kept["sentences"].tolist())
    assert made.dropped_spans[ACROSS] + len(runs) + made.dropped_spans["span cuts a token"] == 3


def test_a_long_document_is_split_at_paragraphs_and_a_long_paragraph_at_sentences():
    paragraphs = ["the cat sat. " * 10, "a dog. " * 5, "the mat. " * 30]
    made, batches = columns("\n\n".join(p.strip() for p in paragraphs), "a cat", document_tokens=64)
    ends = made["sentences"][made["paragraphs"][made["documents"]]]
    assert ends.tolist() == [0, 55, 118, 145, 147]
    assert batches[0].names == ["d0", "d0§2", "d0§3", "d1"]
    assert batches[0].groups == [0, 0, 0, 1]
    assert batches[0].first_sections.tolist() == [True, False, False, True]
    assert made["document_count"][0] == 10  # counted in its section alone


def test_documents_without_tokens_or_with_unknown_ones_only_are_dropped_by_name():
    made = maker()
    kept, batches = columns("the cat", "\u200b", "♜ ♞", "a dog ♜", made=made)
    assert batches[0].names == ["d0", "d3"]
    assert len(kept["tokens"]) == 5
    assert made.dropped == {NO_TOKENS: 1, ONLY_UNKNOWN: 1}


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
    made, _ = columns(*texts, sentence_tokens=longest, document_tokens=64)
    size = len(made["tokens"])
    for name, last in (
        ("sentences", size),
        ("paragraphs", len(made["sentences"]) - 1),
        ("documents", len(made["paragraphs"]) - 1),
    ):
        assert made[name][0] == 0
        assert made[name][-1] == last
        assert (np.diff(made[name]) > 0).all()
    assert np.diff(made["sentences"]).max() <= longest
    sections = made["sentences"][made["paragraphs"][made["documents"]]]
    for start, end in pairwise(sections.tolist()):
        tokens = made["tokens"][start:end].tolist()
        assert made["document_count"][start:end].tolist() == [Counter(tokens)[token] for token in tokens]
    assert (made["flags"][sections[:-1]] & WORD_START).all()


@pytest.mark.parametrize("capital", [False, True])
def test_a_german_noun_is_capitalised_and_a_verb_is_not(capital):
    text = "Straße" if capital else "straße"
    assert columns(text, made=maker("de"))[0]["flags"][0] == WORD_START | CASED | CAPITALISED * capital


def pair_columns(pairs, **limits):
    """Columns of labelled pairs, their maker and their batches."""
    made = ColumnBuilder(PIECES, "en", (), ShardSettings(folder="nowhere", **limits), pairs=True)
    documents = [UnitDocument(f"d{i}", i, f"{a}\n\n{b}", [], "ab"[i % 2]) for i, (a, b) in enumerate(pairs)]
    batches = [batch for batch, _ in made.batches(documents) if batch is not None]
    names = [name for batch in batches for name in batch.names]
    return shard_columns(batches, [0] * len(names), ("a", "b")) if names else None, names, made


def test_a_pair_without_tokens_in_one_text_or_in_both_is_dropped_by_name():
    pairs = [
        ("the cat", "a dog"),
        ("the cat", "\u200b"),
        ("\u200b", "a dog"),
        ("\u200b", "\u200b"),
        ("♜", "♞"),
        ("♜", "a"),
    ]
    made, names, maker_of = pair_columns(pairs)
    assert names == ["d0", "d5"]
    assert made["label"].tolist() == [0, 1]
    assert made["label"].dtype == np.uint16
    assert maker_of.dropped == {ONE_TEXT_EMPTY: 2, NO_TOKENS: 1, ONLY_UNKNOWN: 1}


TEXT = st.text(alphabet=st.sampled_from("the cat. Dog!?é文\u200b♜"), max_size=300).map(
    lambda text: " ".join(text.split())
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXT.filter(bool), TEXT.filter(bool)), min_size=1, max_size=6), st.integers(8, 20))
def test_every_pair_is_one_document_of_two_paragraphs(pairs, longest):
    made, names, maker_of = pair_columns(pairs, sentence_tokens=longest, document_tokens=64)
    assert len(names) + sum(maker_of.dropped.values()) == len(pairs)
    if made is None:
        return
    assert made["documents"].tolist() == list(range(0, 2 * len(names) + 1, 2))
    assert np.diff(made["sentences"]).max() <= longest
    ends = made["sentences"][made["paragraphs"]].tolist()
    for number, name in enumerate(names):
        first, middle, last = ends[2 * number : 2 * number + 3]
        kept = int(name[1:])
        assert made["label"][number] == kept % 2
        alone = [encoding.ids for encoding in PIECES.encode_batch(list(pairs[kept]))]
        assert [made["tokens"][first:middle].tolist(), made["tokens"][middle:last].tolist()] == alone
        tokens = made["tokens"][first:last].tolist()
        assert made["document_count"][first:last].tolist() == [Counter(tokens)[token] for token in tokens]
