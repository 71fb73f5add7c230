"""Encoded examples, on a small vocabulary with readable ids."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie2.datasets.examples import Answer, Example
from ernie2.finetuning.encoding import ExampleEncoder, build_packs, split_within
from ernie2.shards.tokenizer import load_tokenizer
from tiny_finetuning import VOCABULARY, settings

ID = {token: number for number, token in enumerate(VOCABULARY)}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory):
    file = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    file.write_text("\n".join(VOCABULARY) + "\n")
    return load_tokenizer(file)


def ids(*tokens: str) -> list[int]:
    return [ID[token] for token in tokens]


@given(st.lists(st.integers(1, 6), max_size=20), st.integers(6, 12))
def test_ranges_cover_everything_once_within_the_limit(counts: list[int], limit: int) -> None:
    ranges = split_within(counts, limit)
    assert [at for start, end in ranges for at in range(start, end)] == list(range(len(counts)))
    assert all(sum(counts[start:end]) <= limit for start, end in ranges)
    # and no range could include the first count of the next one
    assert all(sum(counts[a : b + 1]) > limit for a, b in ranges[:-1])


def test_a_pair_has_three_special_tokens_and_segment_1_from_the_second_text_on(tokenizer) -> None:
    encoder = ExampleEncoder(tokenizer, "classification", ("no", "yes"), settings())
    (one,) = encoder.encode([Example("0", "w1 undo", "w2", "yes")], labelled=True).sequences
    assert one.tokens.tolist() == ids("[CLS]", "w1", "un", "##do", "[SEP]", "w2", "[SEP]")
    assert one.segments.tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert (one.positions.tolist(), one.labels.tolist()) == ([0], [1])


def test_special_tokens_in_a_text_are_plain_text(tokenizer) -> None:
    encoder = ExampleEncoder(tokenizer, "classification", ("no", "yes"), settings())
    (one,) = encoder.encode([Example("0", "[SEP]", None)], labelled=False).sequences
    assert one.tokens.tolist()[1:-1].count(ID["[SEP]"]) == 0


def test_a_long_text_is_truncated_with_a_note_and_an_empty_one_is_two_tokens(tokenizer) -> None:
    encoder = ExampleEncoder(tokenizer, "regression", (), settings(max_length=16))
    encoded = encoder.encode([Example("0", "w1 " * 34_000), Example("1", "")], labelled=False)
    assert [len(one.tokens) for one in encoded.sequences] == [16, 2]
    assert encoded.notes == ("1 of 2 texts are truncated to 16 tokens",)


def test_a_tag_is_scored_at_the_first_subword_and_words_without_subwords_are_unknown(tokenizer) -> None:
    encoder = ExampleEncoder(tokenizer, "tagging", ("A", "B"), settings())
    example = Example("0", "", label=("A", "B", "A", "B"), tokens=("undoing", "w1", "\u200b", "Ω"))
    (one,) = encoder.encode([example], labelled=True).sequences
    assert one.tokens.tolist() == ids("[CLS]", "un", "##do", "##ing", "w1", "[UNK]", "[UNK]", "[SEP]")
    assert one.positions.tolist() == [1, 4, 5, 6]
    assert one.labels.tolist() == [0, 1, 0, 1]


def test_a_long_tagged_text_is_split_without_losing_tokens(tokenizer) -> None:
    encoder = ExampleEncoder(tokenizer, "tagging", ("A",), settings(max_length=8))
    tokens = ("undo",) * 8
    encoded = encoder.encode([Example("0", "", label=("A",) * 8, tokens=tokens)], labelled=True)
    assert [len(one.tokens) for one in encoded.sequences] == [8, 8, 6]  # 6 subwords between the special tokens: 3 words
    assert sum(len(one.positions) for one in encoded.sequences) == 8
    assert encoded.notes == ("texts of more than 6 tokens are split, into 2 extra sequences",)


def test_a_context_is_split_into_windows_and_only_those_with_the_answer_have_its_label(tokenizer) -> None:
    encoder = ExampleEncoder(tokenizer, "span", (), settings(max_length=8, stride=2, max_query_length=2))
    words = "w0 w1 w2 w3 w4 w5"
    example = Example("0", "w9 w8 w7", words, (Answer("w2 w3", words.index("w2")),))
    encoded = encoder.encode([example], labelled=True)
    assert [one.tokens.tolist() for one in encoded.sequences] == [
        ids("[CLS]", "w9", "w8", "[SEP]", *inside, "[SEP]")
        for inside in (("w0", "w1", "w2"), ("w2", "w3", "w4"), ("w4", "w5"))
    ]
    assert [one.labels.tolist() for one in encoded.sequences] == [[[0, 0]], [[4, 5]], [[0, 0]]]
    assert encoded.offsets[0][2].tolist() == [6, 8]


def test_truncated_questions_are_counted(tokenizer) -> None:
    encoder = ExampleEncoder(tokenizer, "span", (), settings(max_query_length=3))
    encoded = encoder.encode([Example("0", "w1 w1 w1 ?", "w2"), Example("1", "w1 w1 ?", "w2")], labelled=False)
    assert (encoded.cut, encoded.notes) == (1, ("1 of 2 questions are truncated to 3 tokens",))


def test_questions_without_an_answer_in_the_context_are_skipped_in_training_but_predicted(tokenizer) -> None:
    encoder = ExampleEncoder(tokenizer, "span", (), settings())
    examples = [Example("0", "w1 ?", "w2 w3", (Answer("w9", -1),)), Example("1", "w1 ?", "w2 w3", (Answer("w3", 3),))]
    encoded = encoder.encode(examples, labelled=True)
    assert [one.example for one in encoded.sequences] == [1]
    assert "1 of 2 questions are skipped" in encoded.notes[0]
    assert [one.example for one in encoder.encode(examples, labelled=False).sequences] == [0, 1]


def test_a_high_share_of_unknown_tokens_without_special_tokens_is_reported(tokenizer) -> None:
    encoder = ExampleEncoder(tokenizer, "classification", ("no", "yes"), settings())
    encoded = encoder.encode([Example("0", "w1 w2 w3 w4 w5 w6 w7 w8 w9 ☃"), Example("1", "☃")], labelled=False)
    assert (encoded.tokens, encoded.unknown) == (11, 2)
    assert encoded.notes == ("18.18 % of tokens are [UNK] (high: this vocabulary does not fit this text well)",)
    assert encoder.encode([Example("0", "w1 w2")], labelled=False).notes == ()


def test_packs_keep_to_the_limit_and_positions_count_from_the_start_of_the_pack(tokenizer) -> None:
    encoder = ExampleEncoder(tokenizer, "tagging", ("A",), settings())
    examples = [Example(str(i), "", label=("A",) * i, tokens=("w1",) * i) for i in (2, 3, 4)]
    sequences = encoder.encode(examples, labelled=True).sequences  # 4, 5 and 6 tokens
    first, second = build_packs(sequences, settings(pack_tokens=10), 3, 0)
    assert first.starts.tolist() == [0, 4, 9]
    assert first.targets["finetuning"].positions.tolist() == [1, 2, 5, 6, 7]
    assert len(first.tokens) == first.real_tokens == 9  # nothing is padded
    assert second.starts.tolist() == [0, 6]
    assert set(first.task_ids.tolist()) == {3}
