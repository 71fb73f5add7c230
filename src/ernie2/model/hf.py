"""Write Hugging Face folders, and convert their configuration both ways; `formats` reads them.

`save_hf` writes a folder that `transformers` loads as `ErnieModel` or `ErnieForMaskedLM`; each class ignores the part
it lacks (prediction head, pooler). The token embedding is saved with exactly `vocab_size` rows. Our padding rows (zero,
never predicted) are removed on writing and restored on reading, so a round trip is exact and `vocab_size` matches the
tokeniser. Heads without a class in `transformers` are saved in `task_heads.safetensors`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from ernie2.config.settings import EncoderSettings
from ernie2.errors import CheckpointError
from ernie2.model.heads import HeadSpec
from ernie2.model.multitask import MultiTaskModel, model_tensors
from ernie2.model.tensor_names import hf_parts
from ernie2.storage.arrays import save_tensors
from ernie2.storage.atomic import staged_files, write_json

_HF_ENCODER = {"kind": "transformer", "norm": "post", "feed_forward": "plain", "positions": "learned"}
"""Encoder settings of `ErnieModel`."""
_CONFIG_KEYS = {
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
"""Our encoder settings → configuration keys; task ids and the vocabulary are handled separately."""
_DEFAULT_EPS = {"ernie": 1e-5, "bert": 1e-12}
"""LayerNorm eps if the configuration has none: from the authors' code for ERNIE, from the original code for BERT."""
WEIGHTS, TASK_HEADS, CONFIG = "model.safetensors", "task_heads.safetensors", "config.json"


def unsupported_by_hf(settings: EncoderSettings) -> list[str]:
    """Return the settings that `ErnieModel` does not support, such as ["norm=pre", "feed_forward=gated"]."""
    values = dict(settings)
    return [f"{name}={values[name]}" for name, value in _HF_ENCODER.items() if values[name] != value]


def hf_config(
    settings: EncoderSettings,
    vocab_size: int,
    task_ids: Mapping[str, int],
    specs: Sequence[HeadSpec] = (),
    pad_id: int = 0,
) -> dict[str, Any]:
    """Return the `config.json` of an `ErnieForMaskedLM`, or of an `ErnieModel` if no head scores the vocabulary.

    `task_ids`: task name → row of the task embedding, saved as `ernie2_task_ids`. `specs`: the heads, saved as
    `ernie2_heads`, needed to read `task_heads.safetensors`. Raises `CheckpointError` for an encoder that `transformers`
    does not support.
    """
    if lacking := unsupported_by_hf(settings):
        raise CheckpointError(
            f"Hugging Face's ErnieModel does not support {', '.join(lacking)}. Convert this encoder with --to ernie2."
        )
    masked = any(spec.classes is None for spec in specs)
    architecture = "ErnieForMaskedLM" if masked else "ErnieModel"
    config: dict[str, Any] = {"architectures": [architecture], "model_type": "ernie", "vocab_size": vocab_size}
    values = {**dict(settings), "ffn": settings.ffn_width}
    config |= {theirs: values[ours] for ours, theirs in _CONFIG_KEYS.items()}
    config |= {"use_task_id": settings.task_ids > 0, "pad_token_id": pad_id, "tie_word_embeddings": True}
    if settings.task_ids:
        config["task_type_vocab_size"] = settings.task_ids
    config["ernie2_task_ids"] = dict(task_ids)
    config["ernie2_heads"] = {spec.name: {"level": spec.level, "classes": spec.classes} for spec in specs}
    return config


def settings_from_config(config: Mapping[str, Any], where: str = CONFIG) -> EncoderSettings:
    """Return the encoder settings of a Hugging Face configuration; `CheckpointError` if the model is not supported."""
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in _DEFAULT_EPS:
        raise CheckpointError(f"{where}: model_type is {kind!r}; only 'ernie' and 'bert' are supported.")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise CheckpointError(
            f"{where}: position_embedding_type is {config['position_embedding_type']!r}; only 'absolute' is supported."
        )
    for key in ("is_decoder", "add_cross_attention"):
        if config.get(key):
            raise CheckpointError(f"{where}: {key} is {config[key]!r}; only bidirectional encoders are supported.")
    values = {ours: config[theirs] for ours, theirs in _CONFIG_KEYS.items() if config.get(theirs) is not None}
    values.setdefault("norm_eps", _DEFAULT_EPS[kind])
    values.setdefault("segment_types", 2)  # the default of both models
    values["task_ids"] = config.get("task_type_vocab_size", 3) if config.get("use_task_id") else 0
    try:
        return EncoderSettings.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(
            f"{_CONFIG_KEYS.get(str(problem['loc'][0]), '') if problem['loc'] else ''}: {problem['msg']}"
            for problem in error.errors()
        )
        raise CheckpointError(f"{where} describes an invalid encoder: {problems}.") from error


def hf_state_dict(model: MultiTaskModel, without: Collection[str] = ()) -> dict[str, Tensor]:
    """Return the state dict for `transformers`, names with the prefix `ernie.`; heads it lacks are left out.

    `without`: our names of further parameters to leave out.
    """
    state = model_tensors(model, without)
    return {
        theirs if theirs.startswith("cls.") else f"ernie.{theirs}": part.clone()
        for ours, parts in hf_parts(model.settings.layers, model.masked_task).items()
        if ours in state
        for theirs, part in zip(parts, state[ours].chunk(len(parts)), strict=True)
    }


def save_hf(
    folder: str | Path, model: MultiTaskModel, config: Mapping[str, Any], without: Collection[str] = ()
) -> None:
    """Write `model.safetensors`, `task_heads.safetensors` (if needed) and `config.json` atomically, in this order.

    `without`: our names of parameters to leave out, such as an untrained pooler. Raises `StorageError`.
    """
    folder = Path(folder)
    placed = hf_parts(model.settings.layers, model.masked_task)
    heads = {name: tensor for name, tensor in model_tensors(model, without).items() if name not in placed}
    with staged_files(folder, (WEIGHTS, TASK_HEADS, CONFIG)) as staging:
        save_tensors(staging / WEIGHTS, hf_state_dict(model, without), metadata={"format": "pt"})
        if heads:
            save_tensors(staging / TASK_HEADS, heads, metadata={"format": "pt"})
        write_json(staging / CONFIG, dict(config))
