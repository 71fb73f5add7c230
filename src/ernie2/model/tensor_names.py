"""Tensor names in one table: ours, Hugging Face's and those of Paddle's three layouts.

`{i}` in a name is the layer, `{masked}` the task whose head scores the vocabulary. Hugging Face's names are listed
without the prefix `ernie.` or `bert.`, which all names except `cls.` may have. Paddle's names serve only for reading.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ernie2.model.heads import HeadSpec

Layout = Literal["Hugging Face", "Paddle fluid", "Paddle dygraph", "PaddleNLP"]

WORD_TABLE, TASK_TABLE = "encoder.embeddings.token.weight", "encoder.embeddings.task.weight"
"""Our names."""
HF_WORD_TABLE, HF_TASK_TABLE = "embeddings.word_embeddings.weight", "embeddings.task_type_embeddings.weight"
FLUID_WORD_TABLE, DYGRAPH_WORD_TABLE = "word_embedding", "word_emb.weight"
PADDLENLP_NORM = "embeddings.layer_norm.weight"
"""Distinguishes the layouts, together with the token embeddings."""


@dataclass(frozen=True, slots=True)
class Part:
    """A module with weight (and bias), or a tensor: our name, Hugging Face's, each layout's; '' if there is none.

    Several parts with the same name of ours are concatenated along the first dimension.
    """

    kind: Literal["table", "norm", "linear", "tensor"]
    ours: str
    hf: str
    fluid: str
    dygraph: str
    paddlenlp: str


_E, _L, _M = "encoder.embeddings", "encoder.layers.{i}", "heads.{masked}"
_HF, _F, _D, _N = "encoder.layer.{i}", "encoder_layer_{i}", "encoder_stack.block.{i}", "encoder.layers.{i}"
_ATT, _SELF, _FATT, _CLS = f"{_L}.attention", f"{_HF}.attention.self", f"{_F}_multi_head_att", "cls.predictions"
_OUT, _TRANS = f"{_HF}.attention.output", f"{_CLS}.transform"
_WORD, _PLACE, _TYPE, _TASK = (
    f"embeddings.{name}_embeddings" for name in ("word", "position", "token_type", "task_type")
)

PARTS = (
    Part("table", f"{_E}.token", _WORD, "word_embedding", "word_emb", _WORD),
    Part("table", f"{_E}.position", _PLACE, "pos_embedding", "pos_emb", _PLACE),
    Part("table", f"{_E}.segment", _TYPE, "sent_embedding", "sent_emb", _TYPE),
    Part("table", f"{_E}.task", _TASK, "task_embedding", "", _TASK),
    Part("norm", f"{_E}.norm", "embeddings.LayerNorm", "pre_encoder_layer_norm", "ln", "embeddings.layer_norm"),
    Part("linear", f"{_ATT}.qkv", f"{_SELF}.query", f"{_FATT}_query_fc", f"{_D}.attn.q", f"{_N}.self_attn.q_proj"),
    Part("linear", f"{_ATT}.qkv", f"{_SELF}.key", f"{_FATT}_key_fc", f"{_D}.attn.k", f"{_N}.self_attn.k_proj"),
    Part("linear", f"{_ATT}.qkv", f"{_SELF}.value", f"{_FATT}_value_fc", f"{_D}.attn.v", f"{_N}.self_attn.v_proj"),
    Part("linear", f"{_ATT}.output", f"{_OUT}.dense", f"{_FATT}_output_fc", f"{_D}.attn.o", f"{_N}.self_attn.out_proj"),
    Part("norm", f"{_ATT}.norm", f"{_OUT}.LayerNorm", f"{_F}_post_att_layer_norm", f"{_D}.ln1", f"{_N}.norm1"),
    Part("linear", f"{_L}.ffn.inner", f"{_HF}.intermediate.dense", f"{_F}_ffn_fc_0", f"{_D}.ffn.i", f"{_N}.linear1"),
    Part("linear", f"{_L}.ffn.outer", f"{_HF}.output.dense", f"{_F}_ffn_fc_1", f"{_D}.ffn.o", f"{_N}.linear2"),
    Part("norm", f"{_L}.ffn.norm", f"{_HF}.output.LayerNorm", f"{_F}_post_ffn_layer_norm", f"{_D}.ln2", f"{_N}.norm2"),
    Part("linear", "encoder.pooler", "pooler.dense", "pooled_fc", "pooler", "pooler.dense"),
    Part("linear", f"{_M}.transform", f"{_TRANS}.dense", "mask_lm_trans_fc", "mlm", _TRANS),
    Part("norm", f"{_M}.norm", f"{_TRANS}.LayerNorm", "mask_lm_trans_layer_norm", "mlm_ln", f"{_CLS}.layer_norm"),
    Part("tensor", f"{_M}.bias", f"{_CLS}.bias", "mask_lm_out_fc.b_0", "mlm_bias", f"{_CLS}.decoder_bias"),
    Part("tensor", "", f"{_CLS}.decoder.weight", "", "", f"{_CLS}.decoder.weight"),
    Part("tensor", "", f"{_CLS}.decoder.bias", "", "", f"{_CLS}.decoder.bias"),
)

TIED = {f"{_CLS}.decoder.weight": HF_WORD_TABLE, f"{_CLS}.decoder.bias": f"{_CLS}.bias"}
"""Copies of tied tensors in some files → the original, by Hugging Face's names."""

_SUFFIXES = {"table": (".weight",), "norm": (".weight", ".bias"), "linear": (".weight", ".bias"), "tensor": ("",)}
_FLUID_SUFFIXES = {"table": ("",), "norm": ("_scale", "_bias"), "linear": (".w_0", ".b_0"), "tensor": ("",)}
_LAYER = re.compile(r"(?<=^encoder_layer_)\d+|(?<=^encoder_stack\.block\.)\d+|(?<=^encoder\.layers\.)\d+")


def is_optional(ours: str) -> bool:
    """Return whether a checkpoint may lack this tensor (our name): heads, pooler, task embedding."""
    return not ours.startswith("encoder.") or ours.startswith(("encoder.pooler.", TASK_TABLE))


def vocabulary_tensors(heads: Iterable[HeadSpec]) -> set[str]:
    """Return our names of tensors with one row per vocabulary token: the token embedding and vocabulary head biases."""
    return {WORD_TABLE, *(f"heads.{spec.name}.bias" for spec in heads if spec.classes is None)}


def hf_parts(layers: int, masked: str | None) -> dict[str, tuple[str, ...]]:
    """Return our name of every tensor → Hugging Face's names of its parts; `masked`: task scoring the vocabulary."""
    parts: dict[str, tuple[str, ...]] = {}
    for part in PARTS:
        if not part.ours or ("{masked}" in part.ours and masked is None):
            continue
        for suffix in _SUFFIXES[part.kind]:
            for i in range(layers if "{i}" in part.ours else 1):
                ours = f"{part.ours}{suffix}".replace("{i}", str(i)).replace("{masked}", masked or "")
                parts[ours] = (*parts.get(ours, ()), f"{part.hf}{suffix}".replace("{i}", str(i)))
    return parts


def paddle_to_hf(layout: Layout) -> dict[str, tuple[str, bool]]:
    """Return Paddle's name → (Hugging Face's name, whether to transpose the tensor), with `{i}` for the layer.

    A linear weight is (inputs, outputs) in Paddle and (outputs, inputs) in torch; other tensors are the same.
    """
    suffixes = _FLUID_SUFFIXES if layout == "Paddle fluid" else _SUFFIXES
    names = {}
    for part in PARTS:
        theirs = {"Paddle fluid": part.fluid, "Paddle dygraph": part.dygraph, "PaddleNLP": part.paddlenlp}[layout]
        if not theirs:
            continue
        for suffix, hf in zip(suffixes[part.kind], _SUFFIXES[part.kind], strict=True):
            names[f"{theirs}{suffix}"] = f"{part.hf}{hf}", part.kind == "linear" and hf == ".weight"
    return names


_TABLES = {layout: paddle_to_hf(layout) for layout in ("Paddle fluid", "Paddle dygraph", "PaddleNLP")}


def to_hf_name(layout: Layout, name: str) -> tuple[str, bool] | None:
    """'encoder_layer_3_ffn_fc_0.w_0' → ('encoder.layer.3.intermediate.dense.weight', True); None if unknown."""
    if layout == "Hugging Face":  # old files use TensorFlow's names of norm parameters
        old = {"gamma": "weight", "beta": "bias"}
        return re.sub(r"(?<=LayerNorm\.)(gamma|beta)$", lambda match: old[match[1]], name), False
    entry = _TABLES[layout].get(_LAYER.sub("{i}", name))
    number = _LAYER.search(name)
    return entry and (entry[0].replace("{i}", number[0] if number else ""), entry[1])
