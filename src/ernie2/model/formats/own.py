"""Our own folder: every parameter by our name, bit for bit, with what it takes to build the model again.

ernie2.json          encoder settings, vocabulary size, heads, task ids
ernie2.safetensors   the parameters; of the word table and the masked head's bias, the rows of the vocabulary
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
from ernie2.model.formats.sniffing import read_json
from ernie2.model.heads import HeadSpec
from ernie2.storage.arrays import save_tensors
from ernie2.storage.atomic import staged_files, write_json

OWN, OWN_WEIGHTS = "ernie2.json", "ernie2.safetensors"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Described:
    """What ernie2.json says. `carried`: our keys of a Hugging Face configuration (`ernie2_task_ids` and so on)."""

    encoder: EncoderSettings
    vocab_size: PositiveInt
    heads: tuple[HeadSpec, ...]
    carried: Mapping[str, Any]
    pad_id: NonNegativeInt


def save_own(folder: Path, described: Described, tensors: Mapping[str, Tensor]) -> None:
    """Write both files atomically, the description last. Raises `StorageError`."""
    told = {
        "format": FORMAT,
        "encoder": described.encoder.model_dump(mode="json"),
        "vocab_size": described.vocab_size,
        "heads": [asdict(spec) for spec in described.heads],
        "pad_id": described.pad_id,
        **described.carried,
    }
    with staged_files(folder, (OWN_WEIGHTS, OWN)) as staging:
        save_tensors(staging / OWN_WEIGHTS, tensors)
        write_json(staging / OWN, told)


def read_own(folder: Path) -> tuple[Described, dict[str, Tensor]]:
    """The description and the tensors by our names; `CheckpointError` where either is damaged."""
    path = folder / OWN
    try:
        told = read_json(path)
        if told.get("format") != FORMAT:
            raise CheckpointError(f"{path} has format {told.get('format')!r}; this version reads {FORMAT}.")
        carried = {key: value for key, value in told.items() if key.startswith("ernie2_")}
        described = TypeAdapter(Described).validate_python(told | {"carried": carried})
        return described, load_file(folder / OWN_WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder / OWN_WEIGHTS} cannot be read: {error}.") from error
    except (ValueError, ValidationError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}.") from error
