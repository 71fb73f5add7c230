"""Hugging Face folders, both ways: one table of names, one of configuration keys.

`save_hf` writes what `transformers` loads as `ErnieModel` and `ErnieForMaskedLM` (each leaves the other's part aside:
the pooler, the prediction head); `load_hf` reads ERNIE and BERT folders. The word table is written with exactly
`vocab_size` rows: the rows we pad it with (zero, never predicted) are taken off when writing and put back when reading,
so that a round trip changes no bit and the configuration's `vocab_size` is the tokeniser's. Heads `transformers` has no
place for go to `task_heads.safetensors` beside the model.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ernie2.errors import CheckpointError, StorageError
from ernie2.model.heads import HeadSpec
from ernie2.model.hf_names import CONFIG_KEYS, SILENT_EPS, TASK_TABLE, TIED, Same, entries_for
from ernie2.model.multitask import MultiTaskModel
from ernie2.settings import EncoderSettings

WEIGHTS, TASK_HEADS, CONFIG = "model.safetensors", "task_heads.safetensors", "config.json"

_FREE = {"dropout", "attention_dropout", "init_std", "task_ids"}
"""Settings a caller may choose differently from the file."""


@dataclass(frozen=True, slots=True)
class LoadedHf:
    """A model from a Hugging Face folder, and what became of every tensor.

    `used`, `left_out`: names as in the file. `new`: our names of parameters the file does not have; the task table
    starts at zero (outputs unchanged), everything else as in a new model of the same seed.
    """

    model: MultiTaskModel
    config: dict[str, Any]
    used: tuple[str, ...]
    left_out: tuple[str, ...]
    new: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    """A tensor and its name in the file."""

    name: str
    tensor: Tensor


def hf_config(
    settings: EncoderSettings,
    vocab_size: int,
    task_ids: Mapping[str, int],
    specs: Sequence[HeadSpec] = (),
    pad_id: int = 0,
) -> dict[str, Any]:
    """The `config.json` of an `ErnieForMaskedLM`.

    `task_ids`: task name → row of the task table, kept under our own key `ernie2_task_ids`. `specs`: the heads, kept
    under `ernie2_heads` so that `load_hf` finds those in `task_heads.safetensors`.
    """
    config: dict[str, Any] = {"architectures": ["ErnieForMaskedLM"], "model_type": "ernie", "vocab_size": vocab_size}
    values = settings.model_dump() | {"ffn": settings.ffn_width}
    config |= {theirs: values[ours] for ours, theirs in CONFIG_KEYS.items()}
    config |= {"use_task_id": settings.task_ids > 0, "pad_token_id": pad_id, "tie_word_embeddings": True}
    if settings.task_ids:
        config["task_type_vocab_size"] = settings.task_ids
    config["ernie2_task_ids"] = dict(task_ids)
    config["ernie2_heads"] = {spec.name: {"level": spec.level, "classes": spec.classes} for spec in specs}
    return config


def settings_of(config: Mapping[str, Any], where: str = CONFIG) -> EncoderSettings:
    """The encoder settings a Hugging Face configuration states; `CheckpointError` where we cannot be that model."""
    kind = config.get("model_type")
    if kind not in SILENT_EPS:
        raise CheckpointError(f"{where}: model_type is {kind!r}; only 'ernie' and 'bert' folders can be read.")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise CheckpointError(
            f"{where}: position_embedding_type is {config['position_embedding_type']!r}; only 'absolute' can be read."
        )
    values = {ours: config[theirs] for ours, theirs in CONFIG_KEYS.items() if theirs in config}
    values.setdefault("norm_eps", SILENT_EPS[kind])
    values.setdefault("segment_types", 2)  # the default of both classes of model
    values["task_ids"] = config.get("task_type_vocab_size", 3) if config.get("use_task_id") else 0
    try:
        return EncoderSettings.model_validate(values)
    except ValidationError as error:
        told = "; ".join(
            f"{CONFIG_KEYS.get(str(problem['loc'][0]), '') if problem['loc'] else ''}: {problem['msg']}"
            for problem in error.errors()
        )
        raise CheckpointError(f"{where} describes an encoder that cannot be built: {told}.") from error


def to_hf(model: MultiTaskModel) -> dict[str, Tensor]:
    """Their names (with `ernie.`) → tensors, as `transformers` has them; heads it has no place for are left out."""
    state = model.state_dict()
    tensors: dict[str, Tensor] = {}
    for entry in entries_for(model.settings.layers, _masked_task(model)):
        if entry.ours not in state:
            continue
        tensor = state[entry.ours][: model.vocab_size] if entry.vocabulary else state[entry.ours]
        for theirs, part in zip(entry.parts, tensor.chunk(len(entry.parts)), strict=True):
            name = theirs if theirs.startswith("cls.") else f"ernie.{theirs}"
            tensors[name] = part.detach().cpu().clone()
    return tensors


def save_hf(folder: str | Path, model: MultiTaskModel, config: Mapping[str, Any]) -> None:
    """Writes `model.safetensors`, `task_heads.safetensors` (where there are such heads) and `config.json`.

    All are written aside and then moved into place, the configuration last. Raises `StorageError` where they cannot be.
    """
    folder = Path(folder)
    placed = {entry.ours for entry in entries_for(model.settings.layers, _masked_task(model))}
    heads = {name: tensor.cpu().clone() for name, tensor in model.state_dict().items() if name not in placed}
    aside = {name: folder / f"{name}.tmp" for name in (WEIGHTS, TASK_HEADS, CONFIG)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(to_hf(model), aside[WEIGHTS], metadata={"format": "pt"})
        if heads:
            save_file(heads, aside[TASK_HEADS], metadata={"format": "pt"})
        aside[CONFIG].write_text(json.dumps(dict(config), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        for name, path in aside.items():
            if path.exists():
                os.replace(path, folder / name)
    except (OSError, SafetensorError) as error:
        for path in aside.values():
            with suppress(OSError):
                path.unlink(missing_ok=True)
        raise StorageError(
            f"could not write the Hugging Face folder {folder}: {error}. Free some space or choose a folder you may "
            "write to; nothing was replaced half-way."
        ) from error


def load_hf(
    folder: str | Path,
    specs: Sequence[HeadSpec] | None = None,
    seed: int = 0,
    settings: EncoderSettings | None = None,
) -> LoadedHf:
    """Reads an ERNIE or BERT folder (`config.json` and `model.safetensors`).

    `specs`: the heads to build; by default those the folder has. `settings`: by default the file's, with its task
    table; where given, they must agree with the file on every shape, and say how many task ids and how much dropout
    there are.
    A head or pooler the file lacks is initialised from `seed`, a task table it lacks is zero; both are named in `new`.
    Raises `CheckpointError` where the folder is not one, is damaged, or does not fit.
    """
    folder = Path(folder)
    config = _read_config(folder / CONFIG)
    stated = settings_of(config, str(folder / CONFIG))
    chosen = stated if settings is None else _agreeing(settings, stated, folder)
    found = _read_tensors(folder / WEIGHTS)
    if (folder / TASK_HEADS).exists():
        found |= _read_tensors(folder / TASK_HEADS)
    if specs is None:
        specs = _stated_heads(config, masked="cls.predictions.bias" in found)
    if "embeddings.word_embeddings.weight" not in found:
        raise CheckpointError(f"{folder / WEIGHTS} has no word embeddings; is it an ERNIE or BERT model?")
    model = MultiTaskModel(chosen, len(found["embeddings.word_embeddings.weight"].tensor), specs, seed)
    usable = dict(found)
    if not config.get("use_task_id"):
        usable.pop("embeddings.task_type_embeddings.weight", None)  # the file itself says it is not used
    used, new = _fill(model, usable, str(folder / WEIGHTS))
    used |= {
        copy for copy, original in TIED.items() if copy in found and original in used and _equal(found, copy, original)
    }
    return LoadedHf(
        model,
        config,
        used=tuple(sorted(found[key].name for key in used)),
        left_out=tuple(sorted(found[key].name for key in found.keys() - used)),
        new=tuple(sorted(new)),
    )


def _fill(model: MultiTaskModel, found: Mapping[str, _Found], where: str) -> tuple[set[str], list[str]]:
    """Copies what was found into `model` -> canonical names used, our names of parameters not found."""
    used: set[str] = set()
    new: list[str] = []
    state = model.state_dict()
    entries = {entry.ours: entry for entry in entries_for(model.settings.layers, _masked_task(model))}
    for ours, parameter in state.items():
        entry = entries.get(ours, Same(ours, ours, optional=True))
        missing = [part for part in entry.parts if part not in found]
        if missing and not entry.optional:
            raise CheckpointError(f"{where} lacks {', '.join(missing)}; it is damaged or no ERNIE or BERT model.")
        if missing:
            new.append(ours)
            if ours == TASK_TABLE:
                parameter.zero_()
            continue
        stored = torch.cat([found[part].tensor for part in entry.parts]).to(parameter.dtype)
        place = parameter[: model.vocab_size] if entry.vocabulary else parameter
        if ours == TASK_TABLE and len(stored) < len(place):
            new.append(f"{ours}[{len(stored)}:]")
            stored = torch.cat([stored, stored[:1].expand(len(place) - len(stored), -1)])
        if stored.shape != place.shape:
            raise CheckpointError(
                f"{where}: {' + '.join(found[part].name for part in entry.parts)} has shape {tuple(stored.shape)}, but "
                f"{tuple(place.shape)} fits its configuration and the settings asked for."
            )
        place.copy_(stored)
        used.update(entry.parts)
    return used, new


def _masked_task(model: MultiTaskModel) -> str | None:
    return next((spec.name for spec in model.specs.values() if spec.classes is None), None)


def _equal(found: Mapping[str, _Found], one: str, other: str) -> bool:
    return torch.equal(found[one].tensor, found[other].tensor)


def _stated_heads(config: Mapping[str, Any], masked: bool) -> list[HeadSpec]:
    heads = config.get("ernie2_heads")
    if heads is not None:
        return [HeadSpec(name, head["level"], head["classes"]) for name, head in heads.items()]
    return [HeadSpec("knowledge_masking", "token", None)] if masked else []


def _agreeing(settings: EncoderSettings, stated: EncoderSettings, folder: Path) -> EncoderSettings:
    ours = settings.model_dump() | {"ffn": settings.ffn_width}
    theirs = stated.model_dump() | {"ffn": stated.ffn_width}
    differing = [name for name in ours if name not in _FREE and ours[name] != theirs[name]]
    if differing:
        told = "; ".join(f"encoder.{name}={ours[name]!r}, there {theirs[name]!r}" for name in differing)
        raise CheckpointError(
            f"the encoder asked for differs from that of {folder}: {told}. Set these as the folder has them."
        )
    return settings


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"{path.parent} is no Hugging Face folder: it has no {CONFIG}.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} is not a mapping of configuration keys.")
    return config


def _read_tensors(path: Path) -> dict[str, _Found]:
    """Canonical name → tensor: without `ernie.` or `bert.`, norms' `gamma` and `beta` as `weight` and `bias`."""
    if not path.is_file():
        raise CheckpointError(
            f"{path.parent} has no {path.name}; a pytorch_model.bin is not read, since such a file can run code: "
            "load the folder with transformers and call save_pretrained."
        )
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file: {error}") from error
    return {_canonical(name): _Found(name, tensor) for name, tensor in tensors.items()}


def _canonical(name: str) -> str:
    bare = name.removeprefix("ernie.").removeprefix("bert.")
    return re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", bare))
