"""Span extraction around a model: a long context in overlapping windows, answers as token positions, and the best runs
of tokens from start and end scores, read off the context by character offsets.

T tokens of the context · W tokens of one window. Positions count tokens of the context, never of the packed input.
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
    """`length` tokens of a context from token `start` on."""

    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """An answer: its text, its place in the context in characters (end exclusive), the sum of its start and end scores,
    and its share among the candidates (softmax of the scores). No candidate at all is an empty text at 0–0."""

    text: str
    start: int
    end: int
    score: float
    probability: float


def context_windows(tokens: int, question: int, *, max_length: int, stride: int, max_query: int = 64) -> list[Window]:
    """The windows in which a context of `tokens` is shown after a question of `question` tokens, cut at `max_query`.

    Each holds what fits beside the question and three special tokens; the next begins `stride` tokens later, until one
    reaches the end. 10 tokens, room for 4, stride 3 -> (0, 4) (3, 4) (6, 4). An empty context gives one empty window.
    """
    room = max_length - min(question, max_query) - SPECIAL_TOKENS
    if room < 1 or stride < 1:
        raise ValueError(f"max_length {max_length} and stride {stride} leave no room for a context")
    made = [Window(0, min(room, tokens))]
    while made[-1].start + made[-1].length < tokens:
        start = made[-1].start + min(stride, made[-1].length)
        made.append(Window(start, min(room, tokens - start)))
    return made


def owned_tokens(windows: Sequence[Window]) -> list[Array]:
    """Per window (W,) bool: whether this is the window that shows the token with most context around it.

    Context is the smaller of the tokens left and right of it, plus 0.01 · window length; the first of equal windows
    counts. Every token of the context belongs to exactly one window, so no answer is counted twice.
    """
    last = max((window.start + window.length for window in windows), default=0)
    best, owner = np.full(last, -np.inf), np.full(last, -1)
    for index, window in enumerate(windows):
        inside = np.arange(window.length)
        score = np.minimum(inside, inside[::-1]) + 0.01 * window.length
        place = slice(window.start, window.start + window.length)
        better = score > best[place]
        best[place] = np.where(better, score, best[place])
        owner[place] = np.where(better, index, owner[place])
    return [owner[window.start : window.start + window.length] == index for index, window in enumerate(windows)]


def token_span(offsets: Array, start: int, end: int) -> tuple[int, int] | None:
    """(first, last) token that touches the characters `start` to `end` (exclusive); None where no token does.

    `offsets` (T, 2): where each token begins and ends in the context. An answer inside a token takes the whole token.
    """
    touched = np.flatnonzero((offsets[:, 0] < end) & (offsets[:, 1] > start))
    return (int(touched[0]), int(touched[-1])) if len(touched) else None


def window_target(window: Window, span: tuple[int, int] | None) -> tuple[int, int] | None:
    """(first, last) counted from the window's own start, or None where the window does not hold the whole span; such a
    window is trained towards [CLS], as BERT's script does."""
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
    max_answer: int = 100,
) -> list[Candidate]:
    """The `n_best` answers of one question, best first, each text once; at least one, empty if there is nothing.

    `offsets` (T, 2) int; `start_scores[i]` and `end_scores[i]` (W_i,) float, the model's logits on the context tokens
    of `windows[i]`. Of each window the `n_best` starts and ends are paired where the start has its maximal context
    there, the end is not before it and the answer has at most `max_answer` tokens. Equal scores: the earlier span.
    """
    spans: list[tuple[float, int, int]] = []
    for window, owned, starts, ends in zip(windows, owned_tokens(windows), start_scores, end_scores, strict=True):
        firsts = _top_indices(starts, n_best)
        firsts = firsts[owned[firsts]]
        lasts = _top_indices(ends, n_best)
        first, last = (grid.ravel() for grid in np.meshgrid(firsts, lasts, indexing="ij"))
        fits = (last >= first) & (last - first < max_answer)
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
    """Indices of the `count` highest scores, best first; of equal ones the first."""
    return np.argsort(-np.asarray(scores), kind="stable")[:count]
