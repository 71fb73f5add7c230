from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from ernie2.errors import CheckpointError
from ernie2.model.formats.lod_tensors import read_variable

FLUID = Path(__file__).parent / "paddle/fluid/params"
NUMBERS = np.array([[1, 2, 3], [4, 5, 6]], dtype="<f4")
BYTES = NUMBERS.tobytes()
DIMENSIONS = b"\x08\x05\x10\x02\x10\x03"  # type 5 (float32), sizes 2 and 3


def variable(description=DIMENSIONS, numbers=BYTES, levels=(), version=0, inner=0):
    nested = b"".join(struct.pack("<Q", len(level)) + level for level in levels)
    head = struct.pack("<IQ", version, len(levels)) + nested
    return head + struct.pack("<Ii", inner, len(description)) + description + numbers


def read(tmp_path, content):
    (tmp_path / "word_embedding").write_bytes(content)
    return read_variable(tmp_path / "word_embedding")


@pytest.mark.parametrize(
    "content",
    [
        variable(),
        variable(levels=(bytes(16), bytes(24))),
        variable(b"\x08\x05\x12\x02\x02\x03"),  # sizes packed into one field
    ],
)
def test_a_variable_is_read_as_described(tmp_path, content):
    assert read(tmp_path, content).tolist() == NUMBERS.tolist()


def test_a_size_above_127_takes_two_bytes(tmp_path):
    numbers = np.arange(211, dtype="<i8")
    found = read(tmp_path, variable(b"\x08\x03\x10\xd3\x01", numbers.tobytes()))
    assert found.dtype == np.int64
    assert found.tolist() == list(range(211))


def test_a_file_written_by_paddle_is_read():
    table = read_variable(FLUID / "word_embedding")
    assert table.shape == (211, 32)
    assert table.dtype == np.float32
    assert 0 < abs(table).max() < 10


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged or not a Paddle variable"),
        (variable()[:-4], r"shape \(2, 3\) needs 24 bytes, but it has 20"),
        (variable() + b"\0", r"24 bytes, but it has 25"),
        (variable(b"\x08\x63\x10\x02\x10\x03"), "numbers of type 99"),
        (variable(b"\x08\x05\x10\x02\x18\x03"), "unknown field"),
        (variable(version=1), "version 1"),
        (variable(inner=2), "version 2"),
        (variable()[:22], "truncated"),
        (variable(levels=(bytes(8),))[:18], "damaged or not a Paddle variable"),
        (variable(b"\x08\x05\x10\x82", b""), "damaged or not a Paddle variable"),
    ],
)
def test_a_truncated_or_other_file_is_refused(tmp_path, content, message):
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path, content)
