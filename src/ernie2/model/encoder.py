"""Transformer encoder shared by all tasks, run on packs without padding; post-norm by default.

T tokens in the pack · R scored rows · H hidden

Under autocast, the residual stream between layers has the autocast dtype (bf16 or fp16). Residual sums, norm statistics
and parameters are float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ernie2.config.settings import EncoderSettings
from ernie2.model.attention.plan import AttentionPlan, padded_batch_plan, plan_attention
from ernie2.model.compiling import compile_function, run_module
from ernie2.model.embeddings import Embeddings
from ernie2.model.inputs import Inputs
from ernie2.model.layers import EncoderLayer
from ernie2.model.norm import NORMS
from ernie2.model.parameters import initialise, uninitialised_linear
from ernie2.model.scored_rows import ScoredRows

if TYPE_CHECKING:
    from ernie2.model.rnn import RecurrentLayer


def padded_rows(vocab_size: int) -> int:
    """Return the rows of the token embedding for `vocab_size` tokens: the next multiple of 64, which kernels prefer."""
    return -(-vocab_size // 64) * 64


class Encoder(nn.Module):
    """Embeddings, then layers of attention and feed-forward.

    `activation_checkpointing`: in training, store only the inputs of layers and recompute layers in the backward pass.
    """

    activation_checkpointing = False
    layer: type[EncoderLayer | RecurrentLayer] = EncoderLayer
    """Class of the layers."""

    def __init__(self, settings: EncoderSettings, vocab_rows: int, seed: int = 0) -> None:
        super().__init__()
        self.settings = settings
        self.embeddings = Embeddings(settings, vocab_rows)
        self.layers = nn.ModuleList(self.layer(settings) for _ in range(settings.layers))
        norm = NORMS[settings.norm]
        self.final_norm = norm(settings.hidden, settings.norm_eps) if norm.final else None
        self.pooler = uninitialised_linear(settings.hidden, settings.hidden)
        self._run_embeddings: Callable[..., Any] = run_module
        self._run_layer: Callable[..., Any] = run_module
        initialise(self, settings.init_std, seed, "encoder")

    def plan(self, inputs: Inputs, dtype: torch.dtype, rows: ScoredRows | None = None) -> Any:
        """Return the attention plan of a pack, shared by all layers; hidden states have `dtype`.

        `rows`: the scored rows, used by the last layer only.
        """
        return plan_attention(inputs, dtype, self.settings, self.training, rows)

    def forward(self, inputs: Inputs, rows: ScoredRows | None = None) -> Tensor:
        """A pack -> hidden states (T, H) of the last layer, in the autocast dtype if autocast is on.

        With `rows`, the last layer computes only these tokens: (R, H).
        """
        run_embeddings, run_layer = run_module, run_module
        if self.training:  # evaluation has varying shapes and is not compiled
            run_embeddings, run_layer = self._run_embeddings, self._run_layer
        hidden: Tensor = run_embeddings(self.embeddings, *inputs.ids)
        plan = self.plan(inputs, hidden.dtype, rows)
        checkpointing = self.activation_checkpointing and self.training and torch.is_grad_enabled()
        for layer, layer_rows in zip(self.layers, [*[None] * (len(self.layers) - 1), rows], strict=True):
            if layer_rows is not None and isinstance(plan, AttentionPlan) and plan.kernel != "packed":
                run_layer = run_module  # traced in parts, which would recompile for every number of rows
            hidden = (
                checkpoint(run_layer, layer, hidden, plan, layer_rows, use_reentrant=False)
                if checkpointing
                else run_layer(layer, hidden, plan, layer_rows)
            )
        return hidden if self.final_norm is None else self.final_norm(hidden)

    def compile_parts(self, backend: str) -> None:
        """Compile the embeddings and one graph for all layers, for the static shapes of training."""
        self._run_embeddings = compile_function(run_module, backend)
        self._run_layer = compile_function(run_module, backend)

    def pool(self, hidden: Tensor, positions: Tensor) -> Tensor:
        """hidden (T, H), positions (P,) int64 of first tokens -> input of sentence-level heads, (P, H)."""
        return torch.tanh(self.pooler(hidden.index_select(0, positions)))


class PaddedEncoder(nn.Module):
    """Transformer on padded batches, for export formats such as ONNX; shares the modules of `encoder`, without dropout.

    Results equal those of `encoder` on packs. All texts use the task id `task_id`. B texts of L tokens.
    """

    def __init__(self, encoder: Encoder, task_id: int = 0) -> None:
        super().__init__()
        assert encoder.settings.kind == "transformer", "a recurrent encoder has no padded form"
        self.encoder, self.task_id = encoder, task_id

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Three (B, L) int64, mask 1 at tokens and 0 at padding -> hidden states (B, L, H), undefined at padding."""
        texts, length = input_ids.shape
        positions = torch.arange(length, device=input_ids.device).expand(texts, length)
        ids = (input_ids, token_type_ids, positions, torch.full_like(input_ids, self.task_id))
        hidden: Tensor = self.encoder.embeddings(*(each.reshape(-1) for each in ids))  # (B · L, H)
        plan = padded_batch_plan(attention_mask, self.encoder.settings)
        for layer in self.encoder.layers:
            hidden = layer(hidden, plan)
        hidden = hidden if self.encoder.final_norm is None else self.encoder.final_norm(hidden)
        return hidden.view(texts, length, -1)

    def pool(self, hidden: Tensor) -> Tensor:
        """hidden (B, L, H) -> pooled first token (B, H)."""
        return torch.tanh(self.encoder.pooler(hidden[:, 0]))
