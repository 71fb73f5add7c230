"""Context windows and answers from scores: by hand, and against a search over all pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie2.finetuning.spans import (
    Candidate,
    Window,
    best_spans,
    context_windows,
    owned_tokens,
    token_span,
    window_target,
)


def test_windows_by_hand() -> None:
    assert context_windows(10, 3, max_length=10, stride=3) == [Window(0, 4), Window(3, 4), Window(6, 4)]
    assert context_windows(4, 3, max_length=10, stride=3) == [Window(0, 4)]
    assert context_windows(0, 3, max_length=10, stride=3) == [Window(0, 0)]
    assert context_windows(10, 99, max_length=10, stride=9, max_query_length=3) == [
        Window(0, 4),
        Window(4, 4),
        Window(8, 2),
    ]
    with pytest.raises(ValueError, match="leave no room"):
        context_windows(5, 7, max_length=10, stride=3)


@given(st.integers(0, 200), st.integers(0, 80), st.integers(70, 120), st.integers(1, 60))
def test_windows_contain_every_token_and_each_token_belongs_to_one(
    tokens: int, question: int, max_length: int, stride: int
) -> None:
    windows = context_windows(tokens, question, max_length=max_length, stride=stride)
    seen = np.zeros(tokens, int)
    owned = np.zeros(tokens, int)
    for window, mask in zip(windows, owned_tokens(windows), strict=True):
        assert window.length <= max_length - min(question, 64) - 3
        seen[window.start : window.start + window.length] += 1
        owned[window.start : window.start + window.length] += mask
    assert (seen > 0).all()
    assert (owned == 1).all()


def test_the_window_with_most_context_owns_a_token() -> None:
    # token 3 has context min(3, 0) in the first window, min(0, 3) in the second: equal, the first has it; token 4 and 5
    # stand further inside the second; token 6 at its end and at the third's beginning
    owned = owned_tokens([Window(0, 4), Window(3, 4), Window(6, 4)])
    assert [mask.tolist() for mask in owned] == [
        [True, True, True, True],
        [False, True, True, True],
        [False, True, True, True],
    ]
    # of windows with as much context the longer one has the token: 0.01 a token of length counts
    assert [mask.tolist() for mask in owned_tokens([Window(0, 2), Window(1, 3)])] == [[True, False], [True] * 3]


def test_answers_as_tokens_and_as_targets_of_a_window() -> None:
    offsets = np.array([[0, 2], [2, 4], [5, 9]])
    assert token_span(offsets, 2, 4) == (1, 1)
    assert token_span(offsets, 1, 6) == (0, 2)
    assert token_span(offsets, 4, 5) is None
    assert window_target(Window(1, 2), (1, 2)) == (0, 1)
    assert window_target(Window(1, 2), (0, 1)) is None
    assert window_target(Window(0, 2), (1, 2)) is None
    assert window_target(Window(0, 2), None) is None


CONTEXT = "ab cd ef"
OFFSETS = np.array([[0, 2], [3, 5], [6, 8]])


def test_the_best_span_is_cut_from_the_context_by_offsets() -> None:
    candidates = best_spans(CONTEXT, OFFSETS, [Window(0, 3)], [np.array([0.0, 3, 0])], [np.array([4.0, 0, 2])])
    assert candidates[0] == Candidate("cd ef", 3, 8, 5.0, pytest.approx(candidates[0].probability))
    assert sum(candidate.probability for candidate in candidates) == pytest.approx(1.0)
    assert [candidate.text for candidate in candidates[:2]] == ["cd ef", "ab"]  # 3 + 2, then 0 + 4


def test_an_answer_is_neither_backwards_nor_too_long() -> None:
    starts, ends = [np.array([0.0, 0, 9])], [np.array([9.0, 0, 0])]
    assert best_spans(CONTEXT, OFFSETS, [Window(0, 3)], starts, ends)[0].score == 9.0
    starts, ends = [np.array([9.0, 0, 0])], [np.array([0.0, 0, 9])]
    assert best_spans(CONTEXT, OFFSETS, [Window(0, 3)], starts, ends, max_answer_length=3)[0].text == "ab cd ef"
    assert best_spans(CONTEXT, OFFSETS, [Window(0, 3)], starts, ends, max_answer_length=2)[0].text != "ab cd ef"


def test_a_start_counts_only_in_the_window_of_its_maximal_context() -> None:
    windows = [Window(0, 2), Window(1, 2)]
    high_in_the_wrong_window = [np.array([0.0, 0]), np.array([9.0, 0])]  # token 1 belongs to the first window
    ends = [np.array([0.0, 0]), np.array([1.0, 1])]
    assert owned_tokens(windows)[1].tolist() == [False, True]
    assert best_spans(CONTEXT, OFFSETS, windows, high_in_the_wrong_window, ends)[0].score == 1.0


def test_an_empty_context_gives_one_empty_answer() -> None:
    empty = [np.array([])]
    assert best_spans("", np.zeros((0, 2), int), [Window(0, 0)], empty, empty) == [Candidate("", 0, 0, 0.0, 1.0)]


@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_the_first_candidate_is_the_best_of_all_pairs(tokens: int, max_answer_length: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    starts, ends = rng.normal(size=tokens), rng.normal(size=tokens)
    offsets = np.stack([np.arange(tokens), np.arange(1, tokens + 1)], axis=1)
    context = "abcdefghijkl"[:tokens]
    pairs = {(i, j): starts[i] + ends[j] for i in range(tokens) for j in range(i, min(tokens, i + max_answer_length))}
    best = max(pairs, key=lambda pair: pairs[pair])
    candidates = best_spans(
        context, offsets, [Window(0, tokens)], [starts], [ends], max_answer_length=max_answer_length
    )
    assert candidates[0].text == context[best[0] : best[1] + 1]
    assert candidates[0].score == pytest.approx(pairs[best])
    assert len({candidate.text for candidate in candidates}) == len(candidates) <= 20
    assert [one.score for one in candidates] == sorted((one.score for one in candidates), reverse=True)
