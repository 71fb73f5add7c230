"""A checkpoint on disk → a `StoredModel`: its tensors by our names, what it says of itself, nothing built yet."""

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
"""In a tensor's name: the task whose head scores the vocabulary, known only when the heads are."""
_MAX_SIZE_FACTOR, _SIZE_MARGIN = 4, 16_000_000
"""A model may have this many times the file's numbers, and so many more: tables of task ids and heads may be lacking,
and a recurrent layer has about a third of the numbers of the Transformer layer it is counted as."""


@dataclass(frozen=True, slots=True)
class StoredModel:
    """What a checkpoint holds.

    `settings`, `vocab_size`: those of its encoder, which may have fewer tensors than they promise. `specs`: its heads.
    `tensors`: by our names, the word table and the masked head's bias with exactly `vocab_size` rows. `left_out`: names
    in the file that have no place here. `notes`: what a user should know. `task_ids`: task name → row of the task
    table, empty where it is not ours. `metadata`: keys of ours in its configuration. `pad_id`: the padding token.
    `tokenizer`: fingerprint of its tokeniser, '' where only the files beside it can tell.
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
    """Reads a folder or file of weights in any layout but a run's; raises `CheckpointError` where it cannot be one."""
    if not source.exists():
        raise CheckpointError(f"{source} does not exist: name the folder of a checkpoint, or its file of weights.")
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
    found = dict(renamed.tensors)
    if _DECODER_BIAS in found and _BIAS not in found:
        found[_BIAS] = found.pop(_DECODER_BIAS)  # one and the same; newer files name it by the decoder alone
    if (folder / TASK_HEADS).is_file():
        found |= {
            name: StoredTensor(tensor, (name,)) for name, tensor in read_weights(folder / TASK_HEADS).tensors.items()
        }
    left_out = list(renamed.unknown)
    if not full.get("use_task_id") and HF_TASK_TABLE in found:  # the file itself says so
        left_out += found.pop(HF_TASK_TABLE).names
    settings = settings_from_config(full, str(config_path))
    specs = _heads_in_config(metadata, found, notes)
    vocab_size = len(found[HF_WORD_TABLE].tensor)
    _check_size(settings, vocab_size, specs, (named.tensor for named in found.values()), str(config_path))
    pieces, left = _to_our_names(found, settings.layers, str(container.where))
    for copy, original in TIED.items():
        if copy in left:
            theirs, tied = found[copy].names[0], found[original].names[0]
            notes.append(f"{theirs} is not the same as {tied}, to which it is tied here; it is left out")
    left_out += [name for key in left for name in found[key].names]
    return StoredModel(
        where=str(container.where),
        layout=renamed.layout,
        settings=settings,
        vocab_size=vocab_size,
        specs=specs,
        tensors=pieces,
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
    """Raise `CheckpointError` where the configuration describes a model far larger than its file of weights."""
    width = settings.hidden
    rows = vocab_size + settings.position_rows + settings.segment_types + settings.task_ids
    outputs = sum(width if head.classes is None else head.classes for head in heads)
    described = settings.parameters + width * (vocab_size + width + outputs)
    storages = [(one.untyped_storage(), one.dtype.itemsize) for one in tensors]  # tensors may share one
    there = sum({storage.data_ptr(): storage.nbytes() // size for storage, size in storages}.values())
    if described > _MAX_SIZE_FACTOR * there + _SIZE_MARGIN:
        raise CheckpointError(
            f"{where} describes a model of {described:,} numbers (hidden {width:,}, layers {settings.layers:,}, ffn "
            f"{settings.ffn_width:,}, {rows:,} rows of tables, {outputs:,} outputs of heads), but its weights have "
            f"{there:,}. Take the configuration that belongs to them."
        )


def _to_our_names(
    found: Mapping[str, StoredTensor], layers: int, where: str
) -> tuple[dict[str, StoredTensor], list[str]]:
    """Their tensors by our names, and which of theirs have no place.

    Raises `CheckpointError` where a tensor is lacking that no model does without.
    """
    pieces = {name: piece for name, piece in found.items() if name.startswith("heads.")}
    taken = set(pieces)
    for ours, parts in hf_parts(layers, MASKED).items():
        missing = [part for part in parts if part not in found]
        if missing and not is_optional(ours):
            raise CheckpointError(f"{where} lacks {', '.join(missing)}; it is damaged or no ERNIE or BERT model.")
        if missing:
            continue
        names = tuple(name for part in parts for name in found[part].names)
        shapes = {tuple(found[part].tensor.shape) for part in parts}
        if len(shapes) > 1 or () in shapes:
            raise CheckpointError(
                f"{where}: {' + '.join(names)} have the shapes {sorted(shapes)}; they cannot be joined."
            )
        pieces[ours] = StoredTensor(torch.cat([found[part].tensor for part in parts]), names)
        taken.update(parts)
    for copy, original in TIED.items():
        if copy in found and original in taken and torch.equal(found[copy].tensor, found[original].tensor):
            tied = next(name for name, piece in pieces.items() if found[original].names[0] in piece.names)
            pieces[tied] = StoredTensor(pieces[tied].tensor, (*pieces[tied].names, *found[copy].names))
            taken.add(copy)
    return pieces, [name for name in found if name not in taken]


class _Head(BaseModel):
    level: Literal["token", "sentence"]
    classes: PositiveInt | None


class _Metadata(BaseModel):
    """Our own keys of a configuration; a null stands for none."""

    ernie2_task_ids: dict[str, NonNegativeInt] = Field(default_factory=dict)
    ernie2_task_instances: dict[str, NonNegativeInt] = Field(default_factory=dict)
    ernie2_task_options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    ernie2_heads: dict[str, _Head] | None = None
    pad_token_id: NonNegativeInt = 0


def _parse_metadata(config: Mapping[str, Any], where: str) -> _Metadata:
    """Raises `CheckpointError`, naming the key, where one is not of its type."""
    try:
        return _Metadata.model_validate({key: value for key, value in config.items() if value is not None})
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3])
        raise CheckpointError(f"{where} is damaged: {problems}.") from error


def _heads_in_config(metadata: _Metadata, found: Mapping[str, StoredTensor], notes: list[str]) -> tuple[HeadSpec, ...]:
    """The heads the configuration states, as far as their weights are there; what is lacking goes into `notes`."""
    if metadata.ernie2_heads is None:
        return (HeadSpec("knowledge_masking", "token", None),) if _BIAS in found else ()
    specs = tuple(HeadSpec(name, head.level, head.classes) for name, head in metadata.ernie2_heads.items())
    lacking = [
        spec.name
        for spec in specs
        if (_BIAS if spec.classes is None else f"heads.{spec.name}.linear.weight") not in found
    ]
    if lacking:
        notes.append(f"the configuration states heads whose weights are not there: {', '.join(lacking)}")
    return tuple(spec for spec in specs if spec.name not in lacking)
