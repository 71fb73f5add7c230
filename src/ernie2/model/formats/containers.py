"""Find the files of a checkpoint and read their tensors.

The first bytes of a file decide its type, not its name: safetensors, torch's zip or older format, or a pickle.
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
    """Tensors of the file or folder `where` by name; `unread`: names of other entries."""

    where: Path
    tensors: dict[str, Tensor]
    unread: tuple[str, ...] = ()


def read_weights(source: Path) -> Container:
    """Read all tensors of a checkpoint: a weights file, or a folder with one file, shards, or one file per variable.

    Raises `CheckpointError` if there are none, a file is damaged or missing, or a pickle contains more than arrays.
    """
    try:
        if not source.is_dir():
            return read_file(source)
        for name in _SINGLE_FILES:
            if (source / name).is_file():
                return read_file(source / name)
            if (source / f"{name}.index.json").is_file():
                return _read_shards(source / f"{name}.index.json")
        if len(files := sorted(source.glob("*.pdparams"))) > 1:
            listed = ", ".join(path.name for path in files)
            raise CheckpointError(f"{source} has {len(files)} weights files ({listed}). Name one of them.")
        if files:
            return read_file(files[0])
        if (variables := fluid_folder(source)) is not None:
            return _read_variables(variables)
    except OSError as error:
        raise CheckpointError(f"cannot read {error.filename or source}: {error.strerror or error}.") from error
    raise CheckpointError(
        f"{source} has no weights: none of {', '.join(_SINGLE_FILES)} (single or sharded), no *.pdparams, no Paddle "
        f"variables ({FLUID_WORD_TABLE} and others, in it or in params/).{unread_weights_hint(source)}"
    )


def read_file(path: Path) -> Container:
    """Read the tensors of one file; its first bytes decide the type."""
    with path.open("rb") as file:
        start = file.read(len(OLD))
    if start.startswith(ZIP) or start == OLD:
        return Container(path, *read_torch_file(path))
    check_is_weights(path)
    if start[8:9] == b"{" or path.suffix == ".safetensors":
        try:
            return Container(path, load_file(path))
        except (SafetensorError, ValueError) as error:
            raise CheckpointError(f"{path} is damaged or not a safetensors file: {error}.") from error
    arrays, others = read_pickle(path)
    return Container(path, {name: _tensor(array) for name, array in arrays.items()}, others)


def fluid_folder(source: Path) -> Path | None:
    """Return the folder with one file per variable, `source` or its params/, or None."""
    return next((folder for folder in (source, source / "params") if (folder / FLUID_WORD_TABLE).is_file()), None)


def _read_shards(index: Path) -> Container:
    content = read_json(index)
    files = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise CheckpointError(
            f"{index} is not an index of shards: its weight_map does not give a file for every tensor."
        )
    names = set(files.values())
    if outside := sorted(name for name in names if Path(name).name != name):
        raise CheckpointError(f"{index} refers to {outside[0]!r}, which is not in the same folder.")
    if lacking := sorted(name for name in names if not (index.parent / name).is_file()):
        raise CheckpointError(f"{index.parent} lacks {', '.join(lacking)}, listed in {index.name}. Download it again.")
    shards = [read_file(index.parent / name) for name in sorted(names)]
    tensors = {name: tensor for shard in shards for name, tensor in shard.tensors.items()}
    if lost := sorted(files.keys() - tensors.keys()):
        raise CheckpointError(f"{index.parent} lacks the tensors {', '.join(lost[:5])}, listed in {index.name}.")
    return Container(index, tensors, tuple(name for shard in shards for name in shard.unread))


def _read_variables(folder: Path) -> Container:
    """Read the model variables of a fluid folder; others (optimiser state, counters) are only listed."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    ours = [name for name in names if to_hf_name("Paddle fluid", name)]
    others = (name for name in names if name not in ours and not name.endswith((".json", ".txt", ".npz", ".md")))
    return Container(folder, {name: _tensor(read_variable(folder / name)) for name in ours}, tuple(others))


def _tensor(array: NDArray[Any]) -> Tensor:
    """Paddle stores bfloat16 as uint16, because numpy has no bfloat16."""
    if array.dtype == "uint16":
        return torch.from_numpy(array.view("int16")).view(torch.bfloat16)
    return torch.from_numpy(array)
