"""Hugging Face folders: their configuration both ways, and writing them; `formats` reads them.

`save_hf` writes what `transformers` loads as `ErnieModel` and `ErnieForMaskedLM` (each leaves the other's part aside:
the pooler, the prediction head). The word table is written with exactly `vocab_size` rows: the rows we pad it with
(zero, never predicted) are taken off when writing and put back when reading, so that a round trip changes no bit and
the configuration's `vocab_size` is the tokeniser's. Heads `transformers` has no place for go to
`task_heads.safetensors` beside the model.
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
from ernie2.model.multitask import MultiTaskModel, tensors_of
from ernie2.model.tensor_names import hf_parts
from ernie2.storage.arrays import save_tensors
from ernie2.storage.atomic import staged_files, write_json

_HF_ENCODER = {"kind": "transformer", "norm": "post", "feed_forward": "plain", "positions": "learned"}
"""The encoder that `ErnieModel` is."""
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
"""Our encoder settings and their configuration keys; task ids and the vocabulary are treated apart."""
_SILENT_EPS = {"ernie": 1e-5, "bert": 1e-12}
"""LayerNorm eps where a configuration says nothing: the authors' code for ERNIE, the original code for BERT."""
WEIGHTS, TASK_HEADS, CONFIG = "model.safetensors", "task_heads.safetensors", "config.json"


def unknown_to_hf(settings: EncoderSettings) -> list[str]:
    """Return what `transformers` has no ERNIE with, as settings: ["norm=pre", "feed_forward=gated"]."""
    values = dict(settings)
    return [f"{name}={values[name]}" for name, value in _HF_ENCODER.items() if values[name] != value]


def hf_config(
    settings: EncoderSettings,
    vocab_size: int,
    task_ids: Mapping[str, int],
    specs: Sequence[HeadSpec] = (),
    pad_id: int = 0,
) -> dict[str, Any]:
    """The `config.json` of an `ErnieForMaskedLM`, or of an `ErnieModel` where no head scores the vocabulary.

    `task_ids`: task name → row of the task table, kept under our own key `ernie2_task_ids`. `specs`: the heads, kept
    under `ernie2_heads` so that those in `task_heads.safetensors` are found again. Raises `CheckpointError` for an
    encoder for which `transformers` has no class.
    """
    if lacking := unknown_to_hf(settings):
        raise CheckpointError(
            f"Hugging Face's ErnieModel has no {', '.join(lacking)}, as this encoder has: convert it with --to ernie2."
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


def settings_of(config: Mapping[str, Any], where: str = CONFIG) -> EncoderSettings:
    """The encoder settings a Hugging Face configuration states; `CheckpointError` where we cannot be that model."""
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in _SILENT_EPS:
        raise CheckpointError(f"{where}: model_type is {kind!r}; only 'ernie' and 'bert' folders can be read.")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise CheckpointError(
            f"{where}: position_embedding_type is {config['position_embedding_type']!r}; only 'absolute' can be read."
        )
    for key in ("is_decoder", "add_cross_attention"):
        if config.get(key):
            raise CheckpointError(
                f"{where}: {key} is {config[key]!r}; only encoders, which see the whole text, can be read."
            )
    values = {ours: config[theirs] for ours, theirs in _CONFIG_KEYS.items() if config.get(theirs) is not None}
    values.setdefault("norm_eps", _SILENT_EPS[kind])
    values.setdefault("segment_types", 2)  # the default of both classes of model
    values["task_ids"] = config.get("task_type_vocab_size", 3) if config.get("use_task_id") else 0
    try:
        return EncoderSettings.model_validate(values)
    except ValidationError as error:
        told = "; ".join(
            f"{_CONFIG_KEYS.get(str(problem['loc'][0]), '') if problem['loc'] else ''}: {problem['msg']}"
            for problem in error.errors()
        )
        raise CheckpointError(f"{where} describes an encoder that cannot be built: {told}.") from error


def to_hf(model: MultiTaskModel, without: Collection[str] = ()) -> dict[str, Tensor]:
    """Their names (with `ernie.`) → tensors, as `transformers` has them; heads it has no place for are left out.

    `without`: our names of parameters to leave out too.
    """
    state = tensors_of(model, without)
    return {
        theirs if theirs.startswith("cls.") else f"ernie.{theirs}": part.clone()
        for ours, parts in hf_parts(model.settings.layers, model.masked_task).items()
        if ours in state
        for theirs, part in zip(parts, state[ours].chunk(len(parts)), strict=True)
    }


def save_hf(
    folder: str | Path, model: MultiTaskModel, config: Mapping[str, Any], without: Collection[str] = ()
) -> None:
    """Write `model.safetensors`, `task_heads.safetensors` (where there are such heads) and `config.json` atomically.

    `without`: our names of parameters not to be written, such as a pooler that was never trained. The configuration
    comes last. Raises `StorageError`.
    """
    folder = Path(folder)
    placed = hf_parts(model.settings.layers, model.masked_task)
    heads = {name: tensor for name, tensor in tensors_of(model, without).items() if name not in placed}
    with staged_files(folder, (WEIGHTS, TASK_HEADS, CONFIG)) as staging:
        save_tensors(staging / WEIGHTS, to_hf(model, without), metadata={"format": "pt"})
        if heads:
            save_tensors(staging / TASK_HEADS, heads, metadata={"format": "pt"})
        write_json(staging / CONFIG, dict(config))
