"""The Transformer encoder all tasks share: post-norm, as BERT and the paper have it, run on packs without padding.

T tokens in the pack · S sequences · H hidden · F feed-forward width

Under autocast the residual stream, what goes from layer to layer, is of the autocast dtype (bf16 or fp16); sums of
stream and branch, the statistics of norms, and parameters are float32.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ernie2.config.settings import EncoderSettings
from ernie2.model.attention.plan import AttentionPlan, attend, attend_all, plan_attention
from ernie2.model.compiling import compiled, run_module
from ernie2.model.dropout import Dropout
from ernie2.model.embeddings import Embeddings
from ernie2.model.inputs import Inputs
from ernie2.model.norm import Norm
from ernie2.model.scored_rows import ScoredRows, select_rows


def padded_rows(vocab_size: int) -> int:
    """Rows of the word table for `vocab_size` word pieces: the next multiple of 64, which matrix kernels like."""
    return -(-vocab_size // 64) * 64


class Encoder(nn.Module):
    """Word + position + segment + task embeddings, then layers of attention and feed-forward.

    `recompute`: in training, keep only what goes from layer to layer, and compute layers again in the backward pass.
    """

    recompute = False

    def __init__(self, settings: EncoderSettings, vocab_rows: int, seed: int = 0) -> None:
        super().__init__()
        self.settings = settings
        self.embeddings = Embeddings(settings, vocab_rows)
        self.layers = nn.ModuleList(self.make_layer(settings) for _ in range(settings.layers))
        self.pooler = bare_linear(settings.hidden, settings.hidden)
        self._run_embeddings: Callable[..., Any] = run_module
        self._run_layer: Callable[..., Any] = run_module
        initialise(self, settings.init_std, seed, "encoder")

    @staticmethod
    def make_layer(settings: EncoderSettings) -> nn.Module:
        """One layer, (T, H) and what `plan` gives -> (T, H), or (R, H) of scored rows; not yet initialised."""
        return EncoderLayer(settings)

    def plan(self, inputs: Inputs, dtype: torch.dtype, rows: ScoredRows | None = None) -> Any:
        """What every layer needs to know of the pack besides hidden states of `dtype`, made once for all; `rows` are
        those of the last layer.
        """
        settings = self.settings
        dropout = settings.attention_dropout if self.training else 0.0
        return plan_attention(inputs, dtype, settings.heads, settings.hidden // settings.heads, dropout, rows)

    def forward(self, inputs: Inputs, rows: ScoredRows | None = None) -> Tensor:
        """A pack -> hidden states (T, H) of its last layer, in the autocast dtype where autocast is on.

        With `rows`, those of these tokens only, (R, H); the last layer then computes no others.
        """
        run_embeddings, run_layer = run_module, run_module
        if self.training:  # what is evaluated has other shapes, and no part in how fast a run is
            run_embeddings, run_layer = self._run_embeddings, self._run_layer
        hidden: Tensor = run_embeddings(self.embeddings, *inputs.ids)
        plan = self.plan(inputs, hidden.dtype, rows)
        again = self.recompute and self.training and torch.is_grad_enabled()
        for layer, wanted in zip(self.layers, [*[None] * (len(self.layers) - 1), rows], strict=True):
            if wanted is not None and isinstance(plan, AttentionPlan) and plan.kernel != "packed":
                run_layer = run_module  # not traced whole, so its parts would be compiled for every number of rows
            hidden = (
                checkpoint(run_layer, layer, hidden, plan, wanted, use_reentrant=False)
                if again
                else run_layer(layer, hidden, plan, wanted)
            )
        return hidden

    def compile_parts(self, backend: str) -> None:
        """Compiles the embeddings, and one layer for all, for the static shapes of training."""
        self._run_embeddings = compiled(run_module, backend)
        self._run_layer = compiled(run_module, backend)

    def pool(self, hidden: Tensor, positions: Tensor) -> Tensor:
        """hidden (T, H), positions (P,) int64 of first tokens -> what sentence-level heads read, (P, H)."""
        return torch.tanh(self.pooler(hidden.index_select(0, positions)))


class EncoderLayer(nn.Module):
    """Attention, then feed-forward, each followed by dropout, the residual and the norm."""

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        self.attention = Attention(settings)
        self.ffn = FeedForward(settings)

    def forward(self, hidden: Tensor, plan: AttentionPlan, rows: ScoredRows | None = None) -> Tensor:
        """hidden (T, H) -> (T, H), or (R, H) at `rows`."""
        done: Tensor = self.ffn(self.attention(hidden, plan, rows))
        return done


class Attention(nn.Module):
    """Queries, keys and values by one linear; attention; output linear; residual and norm."""

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        self.qkv = bare_linear(settings.hidden, 3 * settings.hidden)
        self.output = bare_linear(settings.hidden, settings.hidden)
        self.norm = Norm(settings.hidden, settings.norm_eps)
        self.dropout = Dropout(settings.dropout)

    def forward(self, hidden: Tensor, plan: AttentionPlan, rows: ScoredRows | None = None) -> Tensor:
        """hidden (T, H) -> (T, H), or (R, H) at `rows`."""
        if rows is None:
            mixed = attend_all(self.qkv(hidden), plan)
            return self.norm.of_sum(hidden, self.dropout(self.output(mixed)))
        width = hidden.shape[1]
        weights, biases = (torch.split(each, [width, 2 * width]) for each in (self.qkv.weight, self.qkv.bias))
        picked = select_rows(hidden, rows)  # (R, H)
        query = F.linear(picked, weights[0], biases[0])  # (R, H)
        key, value = F.linear(hidden, weights[1], biases[1]).chunk(2, 1)  # each (T, H)
        mixed = attend(query, key, value, plan, rows)  # (R, H)
        return self.norm.of_sum(picked, self.dropout(self.output(mixed)))


class FeedForward(nn.Module):
    """Two linears with the activation between them; residual and norm."""

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        self.activation = settings.activation
        self.inner = bare_linear(settings.hidden, settings.ffn_width)
        self.outer = bare_linear(settings.ffn_width, settings.hidden)
        self.norm = Norm(settings.hidden, settings.norm_eps)
        self.dropout = Dropout(settings.dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden (T, H) -> (T, H), through (T, F)."""
        wide = activate(self.inner(hidden), self.activation)
        return self.norm.of_sum(hidden, self.dropout(self.outer(wide)))


def activate(values: Tensor, activation: str) -> Tensor:
    """gelu in its exact form (by erf), gelu_new and gelu_pytorch_tanh approximated by tanh, or relu."""
    if activation == "relu":
        return F.relu(values)
    return F.gelu(values, approximate="none" if activation == "gelu" else "tanh")


def initialise(module: nn.Module, std: float, seed: int, *owner: str) -> None:
    """Weights N(0, std), biases 0, norms 1 and 0, each parameter by (seed, owner, its own name) alone.

    So a parameter starts the same whatever else the model holds, and no global generator is touched.
    """
    norms = {name for name, part in module.named_modules() if isinstance(part, nn.LayerNorm)}
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif name.rpartition(".")[0] in norms:
                parameter.fill_(1.0)
            else:
                parameter.normal_(0.0, std, generator=generator_for(seed, *owner, name))


def generator_for(seed: int, *names: str) -> torch.Generator:
    """A CPU generator that depends on `seed` and `names` only, the same on every platform."""
    digest = hashlib.blake2b("\0".join((str(seed), *names)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def bare_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear whose parameters are not yet initialised."""
    return nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
