"""Cached chunks give the tokens of the entire text."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from ernie2.shards import cached_encoding
from ernie2.shards.cached_encoding import CachedEncoder
from ernie2.shards.tokenizer import SubwordTokenizer, load_tokenizer, token_columns, train_tokenizer

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = train_tokenizer(iter(["the cat sat on the mat, unhappy; ééß İi 文字 don't [MASK] 12 3.5 ﬁ"] * 3), 200)


def byte_level():
    """A tokeniser whose tokens include the space before a word."""
    tokenizer = Tokenizer(BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(
        ["the cat sat on the mat"] * 5,
        BpeTrainer(special_tokens=SPECIALS, initial_alphabet=ByteLevel.alphabet(), show_progress=False),
    )
    return SubwordTokenizer(tokenizer)


def same(encoder, tokenizer, text):
    """Compare an encoder with `encode_batch` of paragraphs."""
    paragraphs = text.split("\n\n")
    starts = np.cumsum([0, *(len(paragraph) + 2 for paragraph in paragraphs)])[:-1]
    found = encoder.encode(text, paragraphs, starts)
    plain = token_columns(tokenizer.encode_batch(paragraphs))
    base = np.repeat(starts, plain.counts)
    assert found.ids.tolist() == plain.ids.tolist()
    assert found.starts.tolist() == (plain.starts + base).tolist()
    assert found.ends.tolist() == (plain.ends + base).tolist()
    assert found.word_starts.tolist() == plain.word_starts.tolist()
    assert found.counts.tolist() == plain.counts.tolist()


MIXED = st.text(
    alphabet=st.one_of(
        st.sampled_from("the cat,.-_#[]'é\n \t\x1c\x85\xa0\u3000\u0301İ文"), st.characters(codec="utf-8")
    )
)


@settings(max_examples=300, deadline=None)
@given(st.lists(MIXED, max_size=4))
def test_chunks_give_the_tokens_of_any_text(monkeypatch_chunks, texts):
    encoder = CachedEncoder(PIECES)
    for text in [*texts, *texts]:
        same(encoder, PIECES, text)


@pytest.fixture(scope="module")
def monkeypatch_chunks():
    """Encode texts without spaces by chunks, too."""
    before, cached_encoding.MAX_MEAN_CHUNK = cached_encoding.MAX_MEAN_CHUNK, 10**9
    yield
    cached_encoding.MAX_MEAN_CHUNK = before


def test_a_chunk_is_encoded_once():
    encoded = []

    class Listening:
        splits_at_punctuation = True

        def encode_batch(self, texts):
            encoded.extend(texts)
            return PIECES.encode_batch(texts)

    encoder = CachedEncoder(Listening())
    for text in ("the cat\nsat.", "the mat, sat?!"):
        encoder.encode(text, [text], np.array([0]))
    assert encoded == ["the", "cat", "sat", ".", "mat", ",", "?!"]


def test_a_full_cache_is_cleared(monkeypatch):
    monkeypatch.setattr(cached_encoding, "MAX_CACHED_CHUNKS", 2)
    encoder = CachedEncoder(PIECES)
    for text in ("the cat sat on", "on the mat", "the cat"):
        same(encoder, PIECES, text)


def test_a_tokeniser_that_looks_across_spaces_encodes_directly():
    tokenizer = byte_level()
    assert not tokenizer.splits_at_punctuation
    same(CachedEncoder(tokenizer), tokenizer, "the cat sat\n\non the  mat")


def test_a_script_without_spaces_is_encoded_directly():
    same(CachedEncoder(PIECES), PIECES, "文字" * 50)


def test_real_text_and_vocabularies_agree():
    shared = Path(os.environ.get("ERNIE2_SHARED_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
    vocabulary, corpus = shared / "en/vocab/bert_uncased_vocab.txt", shared / "en/corpus/wikitext2_raw_test.txt"
    if not vocabulary.exists():
        pytest.skip("the shared data are not here")
    tokenizer = load_tokenizer(vocabulary)
    assert tokenizer.splits_at_punctuation
    lines = [line.strip() for line in corpus.read_text(encoding="utf-8").splitlines()[:600]]
    same(CachedEncoder(tokenizer), tokenizer, "\n\n".join(filter(None, lines)))
