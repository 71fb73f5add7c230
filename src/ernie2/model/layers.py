"""Transformer layers and their costs: attention, then one of the feed-forward variants.

T tokens in the pack · R scored rows · H hidden · F feed-forward width · n length of a sequence · r its scored rows

A variant is a class in a table: norm placement in `norm.NORMS`, feed-forward layer in `FEED_FORWARDS`, activation in
`ACTIVATIONS`. Costs are static methods, computed from settings before a model exists.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ernie2.config.settings import EncoderSettings
from ernie2.model.attention.plan import AttentionPlan, attend, attend_all, rotate
from ernie2.model.dropout import Dropout
from ernie2.model.norm import NORMS
from ernie2.model.parameters import uninitialised_linear
from ernie2.model.scored_rows import ScoredRows

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
}
"""By the value of `encoder.activation`: exact gelu (erf), gelu approximated by tanh, and relu."""


class EncoderLayer(nn.Module):
    """Attention, then feed-forward, each with dropout, residual and norm."""

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        self.attention = Attention(settings)
        self.ffn = FEED_FORWARDS[settings.feed_forward](settings)

    def forward(self, hidden: Tensor, plan: AttentionPlan, rows: ScoredRows | None = None) -> Tensor:
        """hidden (T, H) -> (T, H), or (R, H) at `rows`."""
        output: Tensor = self.ffn(self.attention(hidden, plan, rows))
        return output

    @staticmethod
    def formula(settings: EncoderSettings) -> str:
        """Return the formula behind `flops` and heads, in one line for a table.

        T real tokens · L layers · H hidden · F feed-forward width · n length of a sequence
        """
        return (
            f"6 · T · L · (4 H² + {FEED_FORWARDS[settings.feed_forward].matrices} H F) + 12 · L · H · Σ n² + heads at "
            "scored positions, the last layer at scored rows; padding not counted"
        )

    @staticmethod
    def flops(settings: EncoderSettings, sizes: NDArray[Any], rows: NDArray[Any]) -> int:
        """Return the operations of forward and backward pass on sequences of lengths `sizes` with `rows` computed each.

        Six per matrix weight and token: a multiplication and an addition, and twice as many backwards. Keys and values
        are computed for all tokens, everything else for `rows`:
        6 · (T · 2 H² + R · (2 H² + 2 H F)) + 12 · H · Σ r n, with 3 H F if gated.
        """
        hidden, feed_forward = settings.hidden, FEED_FORWARDS[settings.feed_forward]
        row_weights = 2 * hidden * hidden + feed_forward.matrices * hidden * settings.ffn_width
        products = 6 * (int(sizes.sum()) * 2 * hidden * hidden + int(rows.sum()) * row_weights)
        return products + 12 * hidden * int((sizes * rows).sum())

    @staticmethod
    def activation_bytes(settings: EncoderSettings, width: int, weights_tokens: int) -> int:
        """Return the bytes per token saved for the backward pass; matrix products have elements of `width` bytes.

        `weights_tokens`: the longest sequence if attention weights are saved, else 0. In elements: 4 H around norms and
        residual sums, half of them always float32; 5 H into and out of attention; 1 H into the feed-forward layer; 2 F
        inside it (4 F if gated); 2 dropout masks. With 2 bytes for all of them that is 34 bytes × H, as in Korthikanti
        et al. (arXiv 2205.05198) without the attention matrix, which has one number per head and pair of tokens.
        """
        hidden, inner = settings.hidden, FEED_FORWARDS[settings.feed_forward].saved_values * settings.ffn_width
        return 4 * 2 * hidden + width * (6 * hidden + inner + settings.heads * weights_tokens) + 2 * hidden


class Attention(nn.Module):
    """One linear for queries, keys and values; attention; output linear; residual and norm."""

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        self.qkv = uninitialised_linear(settings.hidden, 3 * settings.hidden)
        self.output = uninitialised_linear(settings.hidden, settings.hidden)
        self.norm = NORMS[settings.norm](settings.hidden, settings.norm_eps)
        self.dropout = Dropout(settings.dropout)

    def forward(self, hidden: Tensor, plan: AttentionPlan, rows: ScoredRows | None = None) -> Tensor:
        """hidden (T, H) -> (T, H), or (R, H) at `rows`."""
        read = self.norm.before(hidden)
        if rows is None:
            qkv = self.qkv(read)  # (T, 3H)
            if plan.angles is not None:
                query, key, value = qkv.chunk(3, 1)
                qkv = torch.cat([rotate(query, plan.angles), rotate(key, plan.angles), value], 1)
            mixed = attend_all(qkv, plan)
        else:
            hidden, width = hidden.index_select(0, rows.index), hidden.shape[1]  # (R, H)
            weights, biases = (torch.split(each, [width, 2 * width]) for each in (self.qkv.weight, self.qkv.bias))
            query = F.linear(self.norm.before(hidden), weights[0], biases[0])  # (R, H)
            key, value = F.linear(read, weights[1], biases[1]).chunk(2, 1)  # each (T, H)
            if plan.angles is not None:
                query, key = rotate(query, plan.angles.index_select(1, rows.index)), rotate(key, plan.angles)
            mixed = attend(query, key, value, plan, rows)  # (R, H)
        return self.norm.after(hidden, self.dropout(self.output(mixed)))


class FeedForward(nn.Module):
    """Two linears with the activation between them; residual and norm."""

    matrices = 2
    """Number of H · F weight matrices."""
    saved_values = 2
    """Values of width F saved for the backward pass: before and after the activation."""

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[settings.activation]
        self.inner = uninitialised_linear(settings.hidden, (self.matrices - 1) * settings.ffn_width)
        self.outer = uninitialised_linear(settings.ffn_width, settings.hidden)
        self.norm = NORMS[settings.norm](settings.hidden, settings.norm_eps)
        self.dropout = Dropout(settings.dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden (T, H) -> (T, H), through (T, F)."""
        wide = self.widen(self.norm.before(hidden))
        return self.norm.after(hidden, self.dropout(self.outer(wide)))

    def widen(self, read: Tensor) -> Tensor:
        """read (T, H) -> input of the outer linear, (T, F)."""
        return self.activation(self.inner(read))


class GatedFeedForward(FeedForward):
    """Three matrices: activation(gate) · value, both (T, F), into the outer linear (Shazeer, arXiv 2002.05202)."""

    matrices = 3
    saved_values = 4

    def widen(self, read: Tensor) -> Tensor:
        gate, value = torch.chunk(self.inner(read), 2, -1)
        return self.activation(gate) * value


FEED_FORWARDS: dict[str, type[FeedForward]] = {"plain": FeedForward, "gated": GatedFeedForward}
"""By the value of `encoder.feed_forward`."""
