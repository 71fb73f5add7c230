"""The names of Paddle's three layouts, in one table. Used for reading only.

`{i}` is the layer. A linear's weight is (inputs, outputs) in Paddle and (outputs, inputs) in torch, so it is turned
over on the way; tables, norms and biases are alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Layout = Literal["Paddle fluid", "Paddle dygraph", "PaddleNLP"]


@dataclass(frozen=True, slots=True)
class Part:
    """A module with its weight (and bias): Hugging Face's name for it, then each layout's; '' where it has none."""

    kind: Literal["table", "norm", "linear", "tensor"]
    hf: str
    fluid: str
    dygraph: str
    paddlenlp: str


_HF, _F, _D, _N = "encoder.layer.{i}", "encoder_layer_{i}", "encoder_stack.block.{i}", "encoder.layers.{i}"
_SELF, _ATT, _CLS = f"{_HF}.attention.self", f"{_F}_multi_head_att", "cls.predictions"

PARTS = (
    Part("table", "embeddings.word_embeddings", "word_embedding", "word_emb", "embeddings.word_embeddings"),
    Part("table", "embeddings.position_embeddings", "pos_embedding", "pos_emb", "embeddings.position_embeddings"),
    Part("table", "embeddings.token_type_embeddings", "sent_embedding", "sent_emb", "embeddings.token_type_embeddings"),
    Part("table", "embeddings.task_type_embeddings", "task_embedding", "", "embeddings.task_type_embeddings"),
    Part("norm", "embeddings.LayerNorm", "pre_encoder_layer_norm", "ln", "embeddings.layer_norm"),
    Part("linear", f"{_SELF}.query", f"{_ATT}_query_fc", f"{_D}.attn.q", f"{_N}.self_attn.q_proj"),
    Part("linear", f"{_SELF}.key", f"{_ATT}_key_fc", f"{_D}.attn.k", f"{_N}.self_attn.k_proj"),
    Part("linear", f"{_SELF}.value", f"{_ATT}_value_fc", f"{_D}.attn.v", f"{_N}.self_attn.v_proj"),
    Part("linear", f"{_HF}.attention.output.dense", f"{_ATT}_output_fc", f"{_D}.attn.o", f"{_N}.self_attn.out_proj"),
    Part("norm", f"{_HF}.attention.output.LayerNorm", f"{_F}_post_att_layer_norm", f"{_D}.ln1", f"{_N}.norm1"),
    Part("linear", f"{_HF}.intermediate.dense", f"{_F}_ffn_fc_0", f"{_D}.ffn.i", f"{_N}.linear1"),
    Part("linear", f"{_HF}.output.dense", f"{_F}_ffn_fc_1", f"{_D}.ffn.o", f"{_N}.linear2"),
    Part("norm", f"{_HF}.output.LayerNorm", f"{_F}_post_ffn_layer_norm", f"{_D}.ln2", f"{_N}.norm2"),
    Part("linear", "pooler.dense", "pooled_fc", "pooler", "pooler.dense"),
    Part("linear", f"{_CLS}.transform.dense", "mask_lm_trans_fc", "mlm", f"{_CLS}.transform"),
    Part("norm", f"{_CLS}.transform.LayerNorm", "mask_lm_trans_layer_norm", "mlm_ln", f"{_CLS}.layer_norm"),
    Part("tensor", f"{_CLS}.bias", "mask_lm_out_fc.b_0", "mlm_bias", f"{_CLS}.decoder_bias"),
    Part("tensor", f"{_CLS}.decoder.weight", "", "", f"{_CLS}.decoder.weight"),
    Part("tensor", f"{_CLS}.decoder.bias", "", "", f"{_CLS}.decoder.bias"),
)

FLUID_WORD_TABLE, DYGRAPH_WORD_TABLE = "word_embedding", "word_emb.weight"
PADDLENLP_NORM = "embeddings.layer_norm.weight"
"""What tells the layouts apart."""

_LAYER = re.compile(r"(?<=^encoder_layer_)\d+|(?<=^encoder_stack\.block\.)\d+|(?<=^encoder\.layers\.)\d+")


_SUFFIXES = {"table": ("", ""), "norm": ("_scale", "_bias"), "linear": (".w_0", ".b_0")}
"""What a fluid variable's name ends in: weight, bias."""


def names_of(layout: Layout) -> dict[str, tuple[str, bool]]:
    """Their name → Hugging Face's bare name, and whether the tensor must be turned over; `{i}` for the layer."""
    return dict(_names(layout))


def to_hf_name(layout: Layout, name: str) -> tuple[str, bool] | None:
    """'encoder_layer_3_ffn_fc_0.w_0' → ('encoder.layer.3.intermediate.dense.weight', True); None for no name of it."""
    found = _TABLES[layout].get(_LAYER.sub("{i}", name))
    if found is None:
        return None
    number = _LAYER.search(name)
    return found[0].replace("{i}", number[0] if number else ""), found[1]


def is_fluid_variable(name: str) -> bool:
    """Whether a fluid file of that name belongs to the encoder or its masked-language-model head."""
    return to_hf_name("Paddle fluid", name) is not None


def _names(layout: Layout) -> Iterator[tuple[str, tuple[str, bool]]]:
    for part in PARTS:
        theirs = {"Paddle fluid": part.fluid, "Paddle dygraph": part.dygraph, "PaddleNLP": part.paddlenlp}[layout]
        if not theirs:
            continue
        if part.kind == "tensor":
            yield theirs, (part.hf, False)
            continue
        weight, bias = _SUFFIXES[part.kind] if layout == "Paddle fluid" else (".weight", ".bias")
        yield f"{theirs}{weight}", (f"{part.hf}.weight", part.kind == "linear")
        if part.kind != "table":
            yield f"{theirs}{bias}", (f"{part.hf}.bias", False)


_TABLES: dict[Layout, dict[str, tuple[str, bool]]] = {
    layout: names_of(layout) for layout in ("Paddle fluid", "Paddle dygraph", "PaddleNLP")
}
