"""The tables that tie our names to Hugging Face's: tensors and configuration keys. Used for reading and for writing.

`{i}` in a name is the layer, `{masked}` the task whose head scores the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor of ours and its `parts` there; several are stacked along the first dimension.

    `optional`: a checkpoint may lack it. `vocabulary`: it has a row for every token.
    """

    ours: str
    parts: tuple[str, ...]
    optional: bool = False
    vocabulary: bool = False


TASK_TABLE = "encoder.embeddings.task.weight"

_ATTENTION = "encoder.layer.{i}.attention"
_LAYER = "encoder.layer.{i}"
_PREDICTIONS = "cls.predictions"


def _linear(ours: str, *theirs: str, optional: bool = False) -> list[Entry]:
    parts = ("weight", "bias")
    return [Entry(f"{ours}.{part}", tuple(f"{name}.{part}" for name in theirs), optional) for part in parts]


HF_NAMES: tuple[Entry, ...] = (
    Entry("encoder.embeddings.token.weight", ("embeddings.word_embeddings.weight",), vocabulary=True),
    Entry("encoder.embeddings.position.weight", ("embeddings.position_embeddings.weight",)),
    Entry("encoder.embeddings.segment.weight", ("embeddings.token_type_embeddings.weight",)),
    Entry(TASK_TABLE, ("embeddings.task_type_embeddings.weight",), optional=True),
    *_linear("encoder.embeddings.norm", "embeddings.LayerNorm"),
    *_linear("encoder.layers.{i}.attention.qkv", *(f"{_ATTENTION}.self.{part}" for part in ("query", "key", "value"))),
    *_linear("encoder.layers.{i}.attention.output", f"{_ATTENTION}.output.dense"),
    *_linear("encoder.layers.{i}.attention.norm", f"{_ATTENTION}.output.LayerNorm"),
    *_linear("encoder.layers.{i}.ffn.inner", f"{_LAYER}.intermediate.dense"),
    *_linear("encoder.layers.{i}.ffn.outer", f"{_LAYER}.output.dense"),
    *_linear("encoder.layers.{i}.ffn.norm", f"{_LAYER}.output.LayerNorm"),
    *_linear("encoder.pooler", "pooler.dense", optional=True),
    *_linear("heads.{masked}.transform", f"{_PREDICTIONS}.transform.dense", optional=True),
    *_linear("heads.{masked}.norm", f"{_PREDICTIONS}.transform.LayerNorm", optional=True),
    Entry("heads.{masked}.bias", (f"{_PREDICTIONS}.bias",), optional=True, vocabulary=True),
)
"""Our names and theirs without the leading `ernie.` or `bert.`, which all but `cls.` names may carry.

`{i}` is the layer, `{masked}` the task whose head scores the vocabulary.
"""

TIED = {
    f"{_PREDICTIONS}.decoder.weight": "embeddings.word_embeddings.weight",
    f"{_PREDICTIONS}.decoder.bias": f"{_PREDICTIONS}.bias",
}
"""Copies some files carry of a tensor used elsewhere."""

CONFIG_KEYS = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "ffn": "intermediate_size",
    "activation": "hidden_act",
    "position_rows": "max_position_embeddings",
    "segment_types": "type_vocab_size",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "norm_eps": "layer_norm_eps",
    "init_std": "initializer_range",
}
"""Our encoder settings and their configuration keys; task ids and the vocabulary are treated apart."""

SILENT_EPS = {"ernie": 1e-5, "bert": 1e-12}
"""LayerNorm eps where a configuration says nothing: the authors' code for ERNIE, the original code for BERT."""


def entries_for(layers: int, masked: str | None) -> list[Entry]:
    """The name table for so many layers and that masked-language-model task."""
    entries: list[Entry] = []
    for entry in HF_NAMES:
        if "{masked}" in entry.ours and masked is None:
            continue
        for i in range(layers) if "{i}" in entry.ours else range(1):
            ours = entry.ours.replace("{i}", str(i)).replace("{masked}", masked or "")
            parts = tuple(part.replace("{i}", str(i)) for part in entry.parts)
            entries.append(replace(entry, ours=ours, parts=parts))
    return entries
