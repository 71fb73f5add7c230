"""Read one variable of a Paddle fluid model: one file, named after the variable.

uint32 version · uint64 levels of detail, each uint64 bytes + content · uint32 version · int32 size of the
description · the description (protobuf: 1 = type, 2 = sizes) · the numbers, little-endian, row by row
"""

from __future__ import annotations

import struct
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ernie2.errors import CheckpointError

_TYPES = {0: "?", 1: "<i2", 2: "<i4", 3: "<i8", 4: "<f2", 5: "<f4", 6: "<f8", 20: "<u1", 21: "<i1", 22: "<u2"}
"""Paddle's type codes; 22 is bfloat16, returned as uint16."""

_VARINT, _BYTES = 0, 2


def read_variable(path: Path) -> NDArray[Any]:
    """Read the array in a variable's file; `CheckpointError` if the file is truncated or not a variable."""
    content = path.read_bytes()
    try:
        kind, sizes, begin = _description(content)
    except (struct.error, IndexError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or not a Paddle variable ({error}).") from error
    size = prod(sizes) * kind.itemsize
    if len(content) - begin != size:
        raise CheckpointError(
            f"{path} is damaged: its array of shape {sizes} needs {size:,} bytes, but it has {len(content) - begin:,}."
        )
    return np.frombuffer(content, kind, offset=begin).reshape(sizes).copy()


def _description(content: bytes) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Return type, shape and the offset of the numbers."""
    version, levels = struct.unpack_from("<IQ", content)
    at = 12
    for _ in range(levels if version == 0 else 0):
        (size,) = struct.unpack_from("<Q", content, at)
        at += 8 + size
    inner, size = struct.unpack_from("<Ii", content, at)
    if version or inner:
        raise ValueError(f"version {version or inner}")
    at += 8
    if not 0 < size <= len(content) - at:
        raise ValueError("its description is truncated")
    kind, sizes = 0, list[int]()
    end = at + size
    while at < end:
        key, at = _varint(content, at)
        value, at = _varint(content, at)
        if key == (1 << 3 | _VARINT):
            kind = value
        elif key == (2 << 3 | _VARINT):
            sizes.append(value)
        elif key == (2 << 3 | _BYTES):
            stop = at + value
            while at < stop:
                value, at = _varint(content, at)
                sizes.append(value)
        else:
            raise ValueError("its description has an unknown field")
    if kind not in _TYPES:
        raise ValueError(f"numbers of type {kind}")
    return np.dtype(_TYPES[kind]), tuple(sizes), end


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """Return the protobuf integer at `at` and the offset after it: b'\\xd3\\x01' -> 211."""
    value = shift = 0
    while True:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
