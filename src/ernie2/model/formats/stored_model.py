"""Open a checkpoint on disk as a `StoredModel`: its tensors by our names and its configuration; no model is built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, Field, NonNegativeInt, PositiveInt, ValidationError
from torch import Tensor

from ernie2.config.settings import EncoderSettings
from ernie2.errors import CheckpointError
from ernie2.model.formats.configs import complete_config, read_config
from ernie2.model.formats.containers import fluid_folder, read_weights
from ernie2.model.formats.file_types import check_is_weights
from ernie2.model.formats.layouts import StoredTensor, rename_tensors
from ernie2.model.formats.native import NATIVE_CONFIG, read_native
from ernie2.model.heads import HeadSpec
from ernie2.model.hf import TASK_HEADS, settings_from_config
from ernie2.model.tensor_names import HF_TASK_TABLE, HF_WORD_TABLE, TIED, hf_parts, is_optional
from ernie2.storage.checksums import warn_about_changes

HEADS = "ernie2_heads"
_BIAS, _DECODER_BIAS = "cls.predictions.bias", "cls.predictions.decoder.bias"

MASKED = "{masked}"
"""Placeholder in tensor names for the task whose head scores the vocabulary."""
_MAX_SIZE_FACTOR, _SIZE_MARGIN = 4, 16_000_000
"""A model may have at most factor × the numbers in the file + margin. Task tables and heads may be missing, and a
recurrent layer has about a third of the numbers of the Transformer layer it is counted as."""


@dataclass(frozen=True, slots=True)
class StoredModel:
    """Content of a checkpoint.

    `settings`, `vocab_size`: of the encoder; tensors may be missing. `specs`: the heads. `tensors`: by our names; word
    table and vocabulary head bias have exactly `vocab_size` rows. `left_out`: names in the file without a parameter
    here. `notes`: notes for the user. `task_ids`: task name → row of the task embedding; empty if unknown. `metadata`:
    our keys (`ernie2_…`) of the configuration. `pad_id`: padding token. `tokenizer`: fingerprint of the tokeniser, ''
    if the checkpoint does not record it.
    """

    where: str
    layout: str
    settings: EncoderSettings
    vocab_size: int
    specs: tuple[HeadSpec, ...]
    tensors: Mapping[str, StoredTensor]
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    task_ids: Mapping[str, int] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    pad_id: int = 0
    tokenizer: str = ""


def open_stored_model(source: Path) -> StoredModel:
    """Open a folder or weights file in any layout except that of a run; `CheckpointError` if it is not a checkpoint."""
    if not source.exists():
        raise CheckpointError(f"{source} does not exist. Give the folder of a checkpoint, or its weights file.")
    warn_about_changes(source if source.is_dir() else source.parent)
    if (source / NATIVE_CONFIG).is_file():
        return _open_native(source)
    if source.is_file():
        check_is_weights(source)
    folder = source if source.is_dir() else source.parent
    if fluid_folder(folder) == folder and folder.name == "params":
        folder = folder.parent
    config, config_path = read_config(folder)
    container = read_weights(source)
    renamed = rename_tensors(container)
    full, notes = complete_config(config, renamed)
    metadata = _parse_metadata(full, str(config_path))
    entries = dict(renamed.tensors)
    if _DECODER_BIAS in entries and _BIAS not in entries:
        entries[_BIAS] = entries.pop(_DECODER_BIAS)  # the same tensor; newer files have only the decoder's name
    if (folder / TASK_HEADS).is_file():
        entries |= {
            name: StoredTensor(tensor, (name,)) for name, tensor in read_weights(folder / TASK_HEADS).tensors.items()
        }
    left_out = list(renamed.unknown)
    if not full.get("use_task_id") and HF_TASK_TABLE in entries:  # disabled in the configuration
        left_out += entries.pop(HF_TASK_TABLE).names
    settings = settings_from_config(full, str(config_path))
    specs = _heads_in_config(metadata, entries, notes)
    vocab_size = len(entries[HF_WORD_TABLE].tensor)
    _check_size(settings, vocab_size, specs, (entry.tensor for entry in entries.values()), str(config_path))
    renamed_tensors, left = _to_our_names(entries, settings.layers, str(container.where))
    for copy, original in TIED.items():
        if copy in left:
            theirs, tied = entries[copy].names[0], entries[original].names[0]
            notes.append(f"{theirs} differs from {tied}, to which it is tied here; it is left out")
    left_out += [name for key in left for name in entries[key].names]
    return StoredModel(
        where=str(container.where),
        layout=renamed.layout,
        settings=settings,
        vocab_size=vocab_size,
        specs=specs,
        tensors=renamed_tensors,
        left_out=tuple(sorted(left_out)),
        notes=tuple(notes),
        task_ids=metadata.ernie2_task_ids,
        metadata={key: value for key, value in full.items() if key.startswith("ernie2_") and key != HEADS},
        pad_id=metadata.pad_token_id,
    )


def _open_native(folder: Path) -> StoredModel:
    described, tensors = read_native(folder)
    where = str(folder / NATIVE_CONFIG)
    metadata = _parse_metadata({**described.metadata, "pad_token_id": described.pad_id}, where)
    _check_size(described.encoder, described.vocab_size, described.heads, tensors.values(), where)
    return StoredModel(
        where=where,
        layout="ernie2",
        settings=described.encoder,
        vocab_size=described.vocab_size,
        specs=described.heads,
        tensors={name: StoredTensor(tensor, (name,)) for name, tensor in tensors.items()},
        task_ids=metadata.ernie2_task_ids,
        metadata=described.metadata,
        pad_id=described.pad_id,
    )


def _check_size(
    settings: EncoderSettings, vocab_size: int, heads: Iterable[HeadSpec], tensors: Iterable[Tensor], where: str
) -> None:
    """Raise `CheckpointError` if the configuration describes a model far larger than the weights."""
    width = settings.hidden
    rows = vocab_size + settings.position_rows + settings.segment_types + settings.task_ids
    outputs = sum(width if head.classes is None else head.classes for head in heads)
    described = settings.parameters + width * (vocab_size + width + outputs)
    storages = [(tensor.untyped_storage(), tensor.dtype.itemsize) for tensor in tensors]  # may be shared
    there = sum({storage.data_ptr(): storage.nbytes() // size for storage, size in storages}.values())
    if described > _MAX_SIZE_FACTOR * there + _SIZE_MARGIN:
        raise CheckpointError(
            f"{where} describes a model of {described:,} parameters (hidden {width:,}, layers {settings.layers:,}, ffn "
            f"{settings.ffn_width:,}, {rows:,} embedding rows, {outputs:,} head outputs), but its weights have "
            f"{there:,}. Use the configuration that belongs to them."
        )


def _to_our_names(
    entries: Mapping[str, StoredTensor], layers: int, where: str
) -> tuple[dict[str, StoredTensor], list[str]]:
    """Return the tensors by our names, and the names without a parameter here.

    Raises `CheckpointError` if a required tensor is missing.
    """
    renamed_tensors = {name: entry for name, entry in entries.items() if name.startswith("heads.")}
    used = set(renamed_tensors)
    for ours, parts in hf_parts(layers, MASKED).items():
        missing = [part for part in parts if part not in entries]
        if missing and not is_optional(ours):
            raise CheckpointError(f"{where} lacks {', '.join(missing)}: it is damaged or not an ERNIE or BERT model.")
        if missing:
            continue
        names = tuple(name for part in parts for name in entries[part].names)
        shapes = {tuple(entries[part].tensor.shape) for part in parts}
        if len(shapes) > 1 or () in shapes:
            raise CheckpointError(
                f"{where}: {' + '.join(names)} have shapes {sorted(shapes)} and cannot be concatenated."
            )
        renamed_tensors[ours] = StoredTensor(torch.cat([entries[part].tensor for part in parts]), names)
        used.update(parts)
    for copy, original in TIED.items():
        if copy in entries and original in used and torch.equal(entries[copy].tensor, entries[original].tensor):
            tied = next(name for name, entry in renamed_tensors.items() if entries[original].names[0] in entry.names)
            renamed_tensors[tied] = StoredTensor(
                renamed_tensors[tied].tensor, (*renamed_tensors[tied].names, *entries[copy].names)
            )
            used.add(copy)
    return renamed_tensors, [name for name in entries if name not in used]


class _Head(BaseModel):
    level: Literal["token", "sentence"]
    classes: PositiveInt | None


class _Metadata(BaseModel):
    """Our keys of a configuration; null means missing."""

    ernie2_task_ids: dict[str, NonNegativeInt] = Field(default_factory=dict)
    ernie2_task_instances: dict[str, NonNegativeInt] = Field(default_factory=dict)
    ernie2_task_options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    ernie2_heads: dict[str, _Head] | None = None
    pad_token_id: NonNegativeInt = 0


def _parse_metadata(config: Mapping[str, Any], where: str) -> _Metadata:
    """Return our keys of `config`; `CheckpointError` that names the key for a wrong type."""
    try:
        return _Metadata.model_validate({key: value for key, value in config.items() if value is not None})
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:3])
        raise CheckpointError(f"{where} is damaged: {problems}.") from error


def _heads_in_config(
    metadata: _Metadata, entries: Mapping[str, StoredTensor], notes: list[str]
) -> tuple[HeadSpec, ...]:
    """Return the heads of the configuration that have weights; others are reported in `notes`."""
    if metadata.ernie2_heads is None:
        return (HeadSpec("knowledge_masking", "token", None),) if _BIAS in entries else ()
    specs = tuple(HeadSpec(name, head.level, head.classes) for name, head in metadata.ernie2_heads.items())
    lacking = [
        spec.name
        for spec in specs
        if (_BIAS if spec.classes is None else f"heads.{spec.name}.linear.weight") not in entries
    ]
    if lacking:
        notes.append(f"the configuration declares heads without weights: {', '.join(lacking)}")
    return tuple(spec for spec in specs if spec.name not in lacking)
