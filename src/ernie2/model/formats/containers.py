"""Where the files of a checkpoint are, and what tensors are in them, whatever program wrote them.

What a file is follows from its first bytes, not from its name: safetensors, a zip or an old file of torch, a pickle.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ernie2.errors import CheckpointError
from ernie2.model.formats.file_types import check_is_weights, read_json, unread_weights_hint
from ernie2.model.formats.lod_tensors import read_variable
from ernie2.model.formats.pickles import read_pickle
from ernie2.model.formats.torch_files import OLD, ZIP, read_torch_file
from ernie2.model.tensor_names import FLUID_WORD_TABLE, to_hf_name

_SINGLE_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True, slots=True)
class Container:
    """Tensors by the names they have in the file or folder `where`; `unread`: what else is there by name."""

    where: Path
    tensors: dict[str, Tensor]
    unread: tuple[str, ...] = ()


def read_weights(source: Path) -> Container:
    """All tensors of a checkpoint: a folder, or a file of weights; sharded and one file a variable included.

    Raises `CheckpointError` where there are none, where a file is damaged or lacking, and for a pickle that would do
    more than hold arrays.
    """
    try:
        if not source.is_dir():
            return read_file(source)
        for name in _SINGLE_FILES:
            if (source / name).is_file():
                return read_file(source / name)
            if (source / f"{name}.index.json").is_file():
                return _read_shards(source / f"{name}.index.json")
        if len(found := sorted(source.glob("*.pdparams"))) > 1:
            listed = ", ".join(path.name for path in found)
            raise CheckpointError(f"{source} has {len(found)} files of weights ({listed}); name one of them.")
        if found:
            return read_file(found[0])
        if (variables := fluid_folder(source)) is not None:
            return _read_variables(variables)
    except OSError as error:
        raise CheckpointError(f"{error.filename or source} cannot be read: {error.strerror or error}.") from error
    raise CheckpointError(
        f"{source} has no weights: none of {', '.join(_SINGLE_FILES)} (whole or sharded), no *.pdparams, and no Paddle "
        f"variables ({FLUID_WORD_TABLE} and so on, there or in params/).{unread_weights_hint(source)}"
    )


def read_file(path: Path) -> Container:
    """The tensors of one file, told by its first bytes."""
    with path.open("rb") as file:
        start = file.read(len(OLD))
    if start.startswith(ZIP) or start == OLD:
        return Container(path, *read_torch_file(path))
    check_is_weights(path)
    if start[8:9] == b"{" or path.suffix == ".safetensors":
        try:
            return Container(path, load_file(path))
        except (SafetensorError, ValueError) as error:
            raise CheckpointError(f"{path} is damaged or no safetensors file: {error}.") from error
    arrays, others = read_pickle(path)
    return Container(path, {name: _tensor(array) for name, array in arrays.items()}, others)


def fluid_folder(source: Path) -> Path | None:
    """The folder with one file a variable: `source` or its params/; None where it is neither."""
    return next((folder for folder in (source, source / "params") if (folder / FLUID_WORD_TABLE).is_file()), None)


def _read_shards(index: Path) -> Container:
    told = read_json(index)
    places = told.get("weight_map") if isinstance(told, dict) else None
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise CheckpointError(f"{index} is not an index of shards: its weight_map lacks the file of some tensor.")
    names = set(places.values())
    if outside := sorted(name for name in names if Path(name).name != name):
        raise CheckpointError(f"{index} names {outside[0]!r}, which is not a file beside it.")
    if lacking := sorted(name for name in names if not (index.parent / name).is_file()):
        raise CheckpointError(f"{index.parent} lacks {', '.join(lacking)}, which {index.name} names; fetch it again.")
    shards = [read_file(index.parent / name) for name in sorted(names)]
    tensors = {name: tensor for shard in shards for name, tensor in shard.tensors.items()}
    if lost := sorted(places.keys() - tensors.keys()):
        raise CheckpointError(f"{index.parent} lacks {', '.join(lost[:5])}, which {index.name} names.")
    return Container(index, tensors, tuple(name for shard in shards for name in shard.unread))


def _read_variables(folder: Path) -> Container:
    """A fluid folder: variables of the model are read, all others (an optimiser's, counters) only named."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    ours = [name for name in names if to_hf_name("Paddle fluid", name)]
    others = (name for name in names if name not in ours and not name.endswith((".json", ".txt", ".npz", ".md")))
    return Container(folder, {name: _tensor(read_variable(folder / name)) for name in ours}, tuple(others))


def _tensor(array: NDArray[Any]) -> Tensor:
    """uint16 is how Paddle stores bfloat16: numpy has no such type."""
    if array.dtype == "uint16":
        return torch.from_numpy(array.view("int16")).view(torch.bfloat16)
    return torch.from_numpy(array)
