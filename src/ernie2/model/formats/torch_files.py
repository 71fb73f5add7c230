"""Read files of `torch.save` without running code and without more memory than the file size.

The description of every tensor is read first and checked against the bytes in the file. Two formats: a zip of data.pkl
and one file per storage, uncompressed; and the older one, five pickles followed by the storages.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from ernie2.errors import CheckpointError
from ernie2.model.formats.layouts import unwrap_state_dict
from ernie2.model.formats.restricted import (
    COMMON,
    Allowed,
    AllowedName,
    IgnoredObject,
    RestrictedUnpickler,
    checkpoint_errors,
)

ZIP, OLD = b"PK\x03\x04", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""First bytes of the two formats."""

_STORAGES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}  # fmt: skip
_DTYPES = {str(kind): kind for kind in {*_STORAGES.values(), torch.float8_e4m3fn, torch.float8_e5m2}}


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    kind: torch.dtype
    count: int

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.count * self.kind.itemsize


@dataclass(frozen=True, slots=True)
class _TensorEntry:
    """Description of a tensor in the file, unchecked."""

    storage: _Storage
    kind: torch.dtype
    offset: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]


class _Unreadable(str):
    """Reason why a tensor is not supported."""

    __slots__ = ()


def read_torch_file(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the tensors of a saved mapping by name, and the names of its other entries.

    Raises `CheckpointError` for a file that is damaged, compressed or not a mapping, that refers to anything except
    tensors, or that describes a tensor larger than its bytes.
    """
    with checkpoint_errors(path, "not written by torch"), path.open("rb") as file:
        start = file.read(len(ZIP))
        file.seek(0)
        return _read_zip(file, path) if start == ZIP else _read_old(file, path)


def _read_zip(file: IO[bytes], path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    with zipfile.ZipFile(file) as archive:
        entries = {one.filename: one for one in archive.infolist()}
        if packed := [one.filename for one in entries.values() if one.compress_type != zipfile.ZIP_STORED]:
            raise CheckpointError(
                f"{path} is a compressed archive ({packed[0]}), which torch never writes. Unpack it, or save the state "
                "dict again with torch.save."
            )
        if sum(one.file_size for one in entries.values()) > path.stat().st_size:
            raise CheckpointError(f"{path} is damaged: its entries need more bytes than the file has.")
        root = next((name.removesuffix("data.pkl") for name in entries if name.endswith("/data.pkl")), None)
        if root is None:
            raise CheckpointError(f"{path} is a zip archive without data.pkl, so not a file of torch.save.")
        if any(name.startswith(f"{root}code/") for name in entries):
            raise CheckpointError(f"{path} is a TorchScript program. Save its state dict with torch.save instead.")
        if f"{root}byteorder" in entries and archive.read(f"{root}byteorder") != b"little":
            raise CheckpointError(f"{path} has big-endian numbers. Save it again on a little-endian machine.")
        content, _ = _load(io.BytesIO(archive.read(f"{root}data.pkl")))
        return _tensors(content, lambda storage: archive.read(f"{root}data/{storage.key}"), path)


def _read_old(file: IO[bytes], path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Read magic number, protocol, system, content and storage keys; then count and numbers of each storage."""
    for _ in range(3):
        RestrictedUnpickler(file, COMMON).load()
    content, storages = _load(file)
    places: dict[str, int] = {}
    end = path.stat().st_size
    for key in RestrictedUnpickler(file, COMMON).load():
        (count,) = struct.unpack("<q", file.read(8))
        places[key] = file.tell()
        if count != storages[key].count or file.tell() + storages[key].size > end:
            raise CheckpointError(f"{path} is damaged: storage {key} does not have its declared length.")
        file.seek(storages[key].size, io.SEEK_CUR)

    def numbers(storage: _Storage) -> bytes:
        file.seek(places[storage.key])
        return file.read(storage.size)

    return _tensors(content, numbers, path)


def _load(file: IO[bytes]) -> tuple[Any, dict[str, _Storage]]:
    """Read one pickle; return its content and its storages by key."""
    storages: dict[str, _Storage] = {}

    class Unpickler(RestrictedUnpickler):
        def persistent_load(self, pid: Any) -> _Storage:
            tag, kind, key, _, count, *view = pid
            if tag != "storage" or not isinstance(kind, AllowedName) or any(one is not None for one in view):
                raise pickle.UnpicklingError("unknown reference to a storage")
            storages[str(key)] = _Storage(str(key), _STORAGES[kind.name.rpartition(".")[2]], int(count))
            return storages[str(key)]

    return Unpickler(file, _ALLOWED).load(), storages


def _tensors(
    content: object, numbers: Callable[[_Storage], bytes], path: Path
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path} does not contain a mapping of names to tensors, so it is not a model checkpoint."
        )
    state, outer_names = unwrap_state_dict(content, lambda value: isinstance(value, _TensorEntry | _Unreadable), path)
    described: dict[str, _TensorEntry] = {}
    others = [*outer_names]
    for name, one in ((str(name), one) for name, one in state.items()):
        if problem := one if isinstance(one, _Unreadable) else _layout_problem(one):
            raise CheckpointError(f"{path}: {name} {problem}.")
        if isinstance(one, _TensorEntry):
            described[name] = one
        else:
            others.append(name)
    storages: dict[str, Tensor] = {}
    tensors: dict[str, Tensor] = {}
    for name, one in described.items():
        if one.storage.key not in storages:
            content_bytes = numbers(one.storage)
            if len(content_bytes) != one.storage.size:
                raise CheckpointError(
                    f"{path} is damaged: {name} needs {one.storage.size:,} bytes and has {len(content_bytes):,}."
                )
            storages[one.storage.key] = torch.from_numpy(np.frombuffer(content_bytes, np.uint8).copy())
        if prod(one.sizes):
            tensors[name] = storages[one.storage.key].view(one.kind).as_strided(one.sizes, one.strides, one.offset)
        else:
            tensors[name] = torch.empty(one.sizes, dtype=one.kind)
    return tensors, tuple(others)


def _layout_problem(one: object) -> str:
    """Return what is wrong with the layout of a tensor, or ''. Elements must be inside the storage, without overlap."""
    if not isinstance(one, _TensorEntry):
        return ""
    numbers = [one.offset, *one.sizes, *one.strides]
    if len(one.sizes) != len(one.strides) or any(not isinstance(n, int) or n < 0 for n in numbers):
        return f"has an invalid shape, {one.sizes} with strides {one.strides}"
    if not prod(one.sizes):
        return ""
    axes = sorted((stride, size) for stride, size in zip(one.strides, one.sizes, strict=True) if size > 1)
    reach = 1
    for stride, size in axes:
        if stride < reach:
            return f"of shape {one.sizes} has overlapping elements (strides {one.strides})"
        reach = stride * (size - 1) + reach
    if (one.offset + reach) * one.kind.itemsize > one.storage.size:
        return f"of shape {one.sizes} is larger than its {one.storage.size:,} bytes"
    return ""


def _rebuild_tensor(
    storage: Any, offset: Any, sizes: Any, strides: Any, _gradient: Any, _hooks: Any, kind: Any = None, *_: object
) -> _TensorEntry:
    """Stub for `torch._utils._rebuild_tensor_v2`, and for `_v3`, which adds the dtype to an untyped storage."""
    dtype = _DTYPES[kind.name] if isinstance(kind, AllowedName) else storage.kind
    return _TensorEntry(storage, dtype, offset, tuple(sizes), tuple(strides))


_ALLOWED: Allowed = {
    **COMMON,
    **{f"torch.{name}": None for name in _STORAGES},
    "torch.storage.UntypedStorage": None,
    **dict.fromkeys(_DTYPES),
    "torch.Size": tuple,
    "torch.device": IgnoredObject,
    "torch.serialization._get_layout": IgnoredObject,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    "torch._utils._rebuild_parameter_with_state": lambda tensor, *_: tensor,
    "torch._utils._rebuild_meta_tensor_no_storage": lambda *_: _Unreadable("was saved without values (device meta)"),
    "torch._utils._rebuild_sparse_tensor": lambda *_: _Unreadable("is sparse; save it as a dense tensor"),
    "torch._utils._rebuild_qtensor": lambda *_: _Unreadable("is quantised; save it in a floating-point dtype"),
    "_codecs.encode": lambda text, *_: text.encode("latin1"),
    "builtins.set": IgnoredObject,
    "__builtin__.set": IgnoredObject,
}
