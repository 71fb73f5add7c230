"""Extractive question answering: context windows, answers as token spans, and the best spans from model scores.

T tokens of the context · W tokens of one window. Positions count tokens of the context, not of the packed input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

SPECIAL_TOKENS = 3
"""[CLS] question [SEP] context [SEP]."""


@dataclass(frozen=True, slots=True)
class Window:
    """The `length` tokens of a context from token `start` on."""

    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A candidate answer, from character `start` to `end` (exclusive) of the context.

    `score`: start score + end score. `probability`: softmax of the scores over the candidates. Without any candidate
    the answer is empty, at 0–0.
    """

    text: str
    start: int
    end: int
    score: float
    probability: float


def context_windows(
    tokens: int, question: int, *, max_length: int, stride: int, max_query_length: int = 64
) -> list[Window]:
    """Return overlapping windows over a context of `tokens` tokens.

    A sequence also holds three special tokens and the question of `question` tokens, truncated to `max_query_length`.
    Windows start `stride` tokens apart, until one reaches the end: for 10 tokens in windows of 4 with stride 3,
    (0, 4) (3, 4) (6, 4). An empty context gives one empty window.
    """
    size = max_length - min(question, max_query_length) - SPECIAL_TOKENS
    if size < 1 or stride < 1:
        raise ValueError(f"max_length {max_length} and stride {stride} leave no room for a context")
    windows = [Window(0, min(size, tokens))]
    while windows[-1].start + windows[-1].length < tokens:
        start = windows[-1].start + min(stride, windows[-1].length)
        windows.append(Window(start, min(size, tokens - start)))
    return windows


def owned_tokens(windows: Sequence[Window]) -> list[Array]:
    """Return per window a mask (W,) bool of the tokens that have their maximal context in this window.

    The context of a token is the smaller number of tokens to its left and right, plus 0.01 · window length; the first
    of equal windows wins. Each token belongs to exactly one window, so no answer is counted twice.
    """
    tokens = max((window.start + window.length for window in windows), default=0)
    best, owner = np.full(tokens, -np.inf), np.full(tokens, -1)
    for index, window in enumerate(windows):
        inside = np.arange(window.length)
        score = np.minimum(inside, inside[::-1]) + 0.01 * window.length
        place = slice(window.start, window.start + window.length)
        better = score > best[place]
        best[place] = np.where(better, score, best[place])
        owner[place] = np.where(better, index, owner[place])
    return [owner[window.start : window.start + window.length] == index for index, window in enumerate(windows)]


def token_span(offsets: Array, start: int, end: int) -> tuple[int, int] | None:
    """Return (first, last) token that overlaps the characters `start` to `end` (exclusive), or None without any.

    `offsets` (T, 2): start and end of each token in the context. An answer inside a token selects the entire token.
    """
    overlapping = np.flatnonzero((offsets[:, 0] < end) & (offsets[:, 1] > start))
    return (int(overlapping[0]), int(overlapping[-1])) if len(overlapping) else None


def window_target(window: Window, span: tuple[int, int] | None) -> tuple[int, int] | None:
    """Return (first, last) counted from the start of the window, or None if it does not contain the entire span.

    Windows without the span are trained towards [CLS], as in BERT's script.
    """
    if span is None or span[0] < window.start or span[1] >= window.start + window.length:
        return None
    return span[0] - window.start, span[1] - window.start


def best_spans(
    context: str,
    offsets: Array,
    windows: Sequence[Window],
    start_scores: Sequence[Array],
    end_scores: Sequence[Array],
    *,
    n_best: int = 20,
    max_answer_length: int = 100,
) -> list[Candidate]:
    """Return the `n_best` answers to one question, best first, without duplicate texts; one empty answer if none fits.

    `offsets` (T, 2) int. `start_scores[i]`, `end_scores[i]`: (W_i,) float logits of the context tokens of `windows[i]`.
    Per window, the `n_best` starts and ends are paired if the start belongs to this window (`owned_tokens`), the end is
    not before it and the answer has at most `max_answer_length` tokens. Ties: the earlier span.
    """
    spans: list[tuple[float, int, int]] = []
    for window, owned, starts, ends in zip(windows, owned_tokens(windows), start_scores, end_scores, strict=True):
        firsts = _top_indices(starts, n_best)
        firsts = firsts[owned[firsts]]
        lasts = _top_indices(ends, n_best)
        first, last = (grid.ravel() for grid in np.meshgrid(firsts, lasts, indexing="ij"))
        fits = (last >= first) & (last - first < max_answer_length)
        first, last = first[fits], last[fits]
        scores = np.asarray(starts, np.float64)[first] + np.asarray(ends, np.float64)[last]
        spans += zip(scores.tolist(), (first + window.start).tolist(), (last + window.start).tolist(), strict=True)
    chosen: dict[str, tuple[float, int, int]] = {}
    for score, one, other in sorted(spans, key=lambda span: (-span[0], span[1], span[2])):
        start, end = int(offsets[one, 0]), int(offsets[other, 1])
        chosen.setdefault(context[start:end].strip(), (score, start, end))
        if len(chosen) == n_best:
            break
    if not chosen:
        return [Candidate("", 0, 0, 0.0, 1.0)]
    weights = np.exp(np.array([score for score, _, _ in chosen.values()]) - max(s for s, _, _ in chosen.values()))
    return [
        Candidate(text, start, end, score, float(weight))
        for (text, (score, start, end)), weight in zip(chosen.items(), weights / weights.sum(), strict=True)
    ]


def _top_indices(scores: Array, count: int) -> Array:
    """Return the indices of the `count` highest scores, best first; ties in order."""
    return np.argsort(-np.asarray(scores), kind="stable")[:count]
