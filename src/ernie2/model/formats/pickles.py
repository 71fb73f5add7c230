"""Read Paddle's pickles of numpy arrays without running code; arrays are returned, other entries only listed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ernie2.errors import CheckpointError
from ernie2.model.formats.layouts import unwrap_state_dict
from ernie2.model.formats.restricted import COMMON, ForbiddenPickle, RestrictedUnpickler, checkpoint_errors

_NAME_TABLE = "StructuredToParameterName@@"
"""Paddle's table of internal tensor names, ignored."""

_NUMBERS = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "b1"}


def read_pickle(path: Path) -> tuple[dict[str, NDArray[Any]], tuple[str, ...]]:
    """Return the arrays of a pickled mapping by name, and the names of its other entries.

    Raises `CheckpointError` for a file that is damaged, not a mapping, or refers to anything except numpy arrays; the
    message then contains that name. No code is run in any case.
    """
    with checkpoint_errors(path, "not a pickle of arrays"):
        with path.open("rb") as file:
            content = RestrictedUnpickler(file, _ALLOWED, encoding="latin1").load()
        if not isinstance(content, dict):
            raise CheckpointError(
                f"{path} does not contain a mapping of names to arrays, so it is not a model checkpoint."
            )
        content, others = unwrap_state_dict(content, lambda value: _as_array_stub(value) is not None, path)
        stubs = {str(name): stub for name, value in content.items() if (stub := _as_array_stub(value)) is not None}
        if sum(len(stub.data) for stub in stubs.values()) > path.stat().st_size:
            raise CheckpointError(f"{path} is damaged: its arrays need more bytes than the file has.")
        arrays = {name: stub.numpy() for name, stub in stubs.items()}
    others += [str(name) for name in content if str(name) not in arrays and name != _NAME_TABLE]
    return arrays, tuple(others)


class _DtypeStub:
    """Stub for `numpy.dtype`: a type code such as 'f4' and a byte order."""

    __slots__ = ("code", "order")

    def __init__(self, code: str, *_: object) -> None:
        self.code, self.order = code, "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def numpy(self) -> np.dtype[Any]:
        code = str(self.code).lstrip("<>|=")
        if code not in _NUMBERS or self.order not in "<>|=":
            raise ForbiddenPickle(f"an array of type {self.code!r}")
        return np.dtype(("<" if self.order in "|=" else self.order) + code)


class _ArrayStub:
    """Stub for `numpy.ndarray`: stores the description until the file is fully read."""

    __slots__ = ("data", "fortran", "kind", "shape")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.shape, self.kind, self.fortran, self.data = state[-4:]  # newer files have a version first

    def numpy(self) -> NDArray[Any]:
        if not isinstance(self.kind, _DtypeStub):
            raise ForbiddenPickle("an array of objects")
        kind = self.kind.numpy()
        data = self.data.encode("latin1") if isinstance(self.data, str) else self.data
        flat = np.frombuffer(data, kind) if len(data) else np.zeros(0, kind)
        shaped = flat.reshape(tuple(self.shape), order="F" if self.fortran else "C")
        return np.ascontiguousarray(shaped, dtype=kind.newbyteorder("=")).reshape(shaped.shape).copy()


def _from_buffer(data: Any, kind: Any, shape: Any, order: Any) -> _ArrayStub:
    """Stub for `numpy.core.numeric._frombuffer`, used by protocol 5 for arrays."""
    array = _ArrayStub()
    array.__setstate__((shape, kind, order == "F", bytes(data)))
    return array


def _encode_latin1(text: str, encoding: str) -> bytes:
    """Stub for `_codecs.encode`, used by protocol 2 for bytes."""
    if encoding != "latin1":
        raise ForbiddenPickle(f"_codecs.encode to {encoding}")
    return text.encode("latin1")


_ALLOWED: Mapping[str, Callable[..., Any] | None] = {
    **COMMON,
    "numpy.ndarray": None,
    "numpy.dtype": _DtypeStub,
    "numpy.core.multiarray._reconstruct": lambda *_: _ArrayStub(),
    "numpy._core.multiarray._reconstruct": lambda *_: _ArrayStub(),
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy._core.numeric._frombuffer": _from_buffer,
    "_codecs.encode": _encode_latin1,
    "__builtin__.bytes": lambda: b"",  # empty bytes in protocols up to 2
    "builtins.tuple": tuple,  # Paddle pickles a tensor outside a state dict as (name, array)
    "__builtin__.tuple": tuple,
}


def _as_array_stub(value: object) -> _ArrayStub | None:
    if isinstance(value, tuple) and len(value) == 2:
        value = value[1]
    return value if isinstance(value, _ArrayStub) else None
