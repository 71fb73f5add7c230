"""ernie2's own checkpoint folder: every parameter by our name, bit for bit, and the settings to rebuild the model.

ernie2.json          encoder settings, vocabulary size, heads, task ids
ernie2.safetensors   the parameters; token embedding and vocabulary head bias without padding rows
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import NonNegativeInt, PositiveInt, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ernie2.config.settings import EncoderSettings
from ernie2.errors import CheckpointError
from ernie2.model.formats.file_types import read_json
from ernie2.model.heads import HeadSpec
from ernie2.storage.arrays import save_tensors
from ernie2.storage.atomic import staged_files, write_json

NATIVE_CONFIG, NATIVE_WEIGHTS = "ernie2.json", "ernie2.safetensors"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """Content of ernie2.json. `metadata`: our keys of a Hugging Face configuration (`ernie2_task_ids` and others)."""

    encoder: EncoderSettings
    vocab_size: PositiveInt
    heads: tuple[HeadSpec, ...]
    metadata: Mapping[str, Any]
    pad_id: NonNegativeInt


def save_native(folder: Path, described: ModelDescription, tensors: Mapping[str, Tensor]) -> None:
    """Write both files atomically, the description last. Raises `StorageError`."""
    content = {
        "format": FORMAT,
        "encoder": described.encoder.model_dump(mode="json"),
        "vocab_size": described.vocab_size,
        "heads": [asdict(spec) for spec in described.heads],
        "pad_id": described.pad_id,
        **described.metadata,
    }
    with staged_files(folder, (NATIVE_WEIGHTS, NATIVE_CONFIG)) as staging:
        save_tensors(staging / NATIVE_WEIGHTS, tensors)
        write_json(staging / NATIVE_CONFIG, content)


def read_native(folder: Path) -> tuple[ModelDescription, dict[str, Tensor]]:
    """Read the description and the tensors by our names; `CheckpointError` if either is damaged."""
    path = folder / NATIVE_CONFIG
    try:
        content = read_json(path)
        if content.get("format") != FORMAT:
            raise CheckpointError(f"{path} has format {content.get('format')!r}; this version reads format {FORMAT}.")
        metadata = {key: value for key, value in content.items() if key.startswith("ernie2_")}
        described = TypeAdapter(ModelDescription).validate_python(content | {"metadata": metadata})
        return described, load_file(folder / NATIVE_WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder / NATIVE_WEIGHTS} cannot be read: {error}.") from error
    except (ValueError, ValidationError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}.") from error
