"""Recurrent encoder: bidirectional LSTM or GRU layers with the interface of the Transformer, without padding.

T tokens in the pack · S sequences · H hidden · L longest sequence

The paper allows "a recurrent network or a Transformer" without details, so the form is ours. Every layer is one
bidirectional recurrence of width H / 2 per direction, with dropout, residual and norm as in the Transformer. Embeddings
are the same, including positions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from ernie2.config.settings import EncoderSettings
from ernie2.model.attention.groups import reorder_rows
from ernie2.model.compiling import compile_function, run_module
from ernie2.model.dropout import Dropout
from ernie2.model.encoder import Encoder
from ernie2.model.inputs import Inputs
from ernie2.model.norm import NORMS
from ernie2.model.parameters import generator_for
from ernie2.model.scored_rows import ScoredRows
from ernie2.model.transfer import to_device

_CELLS: dict[str, type[nn.LSTM] | type[nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}


@dataclass(frozen=True, slots=True)
class RecurrencePlan:
    """A pack in time order: the first tokens of all sequences, longest sequence first, then their second tokens.

    `gather` (T,) int64: the token at each place of that order. `scatter` (T,): its inverse. `sizes` (L,) int64, on the
    host: the number of sequences with a token at each time.
    """

    gather: Tensor
    scatter: Tensor
    sizes: Tensor


def plan_recurrence(lengths: Sequence[int], device: torch.device) -> RecurrencePlan:
    """Return the plan: lengths [2, 3] -> tokens in the order [2, 0, 3, 1, 4], sizes [2, 2, 1]."""
    tokens = torch.split(torch.arange(sum(lengths)), list(lengths))
    packed = pack_sequence(list(tokens), enforce_sorted=False)
    order, inverse = to_device([packed.data.numpy(), packed.data.argsort().numpy()], device)
    return RecurrencePlan(order, inverse, packed.batch_sizes)


class RecurrentLayer(nn.Module):
    """Bidirectional recurrence, dropout, residual and norm."""

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        cell = _CELLS[settings.kind]
        self.recurrence = cell(settings.hidden, settings.hidden // 2, bidirectional=True, device="meta")
        self.recurrence.to_empty(device="cpu")
        self.norm = NORMS[settings.norm](settings.hidden, settings.norm_eps)
        self.dropout = Dropout(settings.dropout)

    def forward(self, hidden: Tensor, plan: RecurrencePlan, rows: ScoredRows | None = None) -> Tensor:
        """hidden (T, H) -> (T, H), or (R, H) at `rows`, same dtype; all rows are computed in both cases.

        The recurrence runs in the dtype of its parameters, because rounding errors accumulate over time.
        """
        with torch.autocast(hidden.device.type, enabled=False):
            ordered = reorder_rows(self.norm.before(hidden).to(self.norm.weight.dtype), plan.gather, plan.scatter)
            states, _ = self.recurrence(PackedSequence(ordered, plan.sizes))  # (T, H)
            branch = reorder_rows(states.data, plan.scatter, plan.gather)
        output = self.norm.after(hidden, self.dropout(branch))
        return output if rows is None else output.index_select(0, rows.index)

    @staticmethod
    def formula(settings: EncoderSettings) -> str:
        return "6 · T · L · 1.5 · gates · H² + heads at scored positions; padding not counted"

    @staticmethod
    def flops(settings: EncoderSettings, sizes: NDArray[Any], rows: NDArray[Any]) -> int:
        """Two matrices per gate and direction, (H + H / 2) · H / 2 weights; all rows are computed."""
        gates = {"lstm": 4, "gru": 3}[settings.kind]
        return 6 * int(sizes.sum()) * gates * 3 * settings.hidden * settings.hidden // 2

    @staticmethod
    def activation_bytes(settings: EncoderSettings, width: int, weights_tokens: int) -> int:
        """The gates in float32, 8 × H; our estimate."""
        return 4 * 8 * settings.hidden


class RecurrentEncoder(Encoder):
    """`Encoder` with recurrent layers; names, initialisation and calls are the same."""

    layer = RecurrentLayer

    def __init__(self, settings: EncoderSettings, vocab_rows: int, seed: int = 0) -> None:
        super().__init__(settings, vocab_rows, seed)
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, RecurrentLayer)
            _initialise(layer.recurrence, seed, "encoder", f"layers.{number}.recurrence")

    def plan(self, inputs: Inputs, dtype: torch.dtype, rows: ScoredRows | None = None) -> RecurrencePlan:
        return plan_recurrence(inputs.lengths, inputs.tokens.device)

    def compile_parts(self, backend: str) -> None:
        """Compile the embeddings only: each recurrence is already one kernel, which compilers skip."""
        self._run_embeddings = compile_function(run_module, backend)


def _initialise(recurrence: nn.LSTM | nn.GRU, seed: int, *owner: str) -> None:
    """Initialise weights uniformly in ±1 / sqrt(width), biases with 0, and with 1 at the LSTM's forget gate."""
    bound, width = 1 / math.sqrt(recurrence.hidden_size), recurrence.hidden_size
    with torch.no_grad():
        for name, parameter in recurrence.named_parameters():
            if parameter.ndim > 1:
                parameter.uniform_(-bound, bound, generator=generator_for(seed, *owner, name))
                continue
            parameter.zero_()
            if isinstance(recurrence, nn.LSTM) and name.startswith("bias_ih"):
                parameter[width : 2 * width] = 1.0  # order of gates: input, forget, cell, output
