"""Stateless randomness: generators and permutations as pure functions of names and numbers.

Without state, a run resumes in O(1) from a few integers, with any number of workers.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.random import Generator, Philox
from numpy.random.bit_generator import ISeedSequence

Key = str | int


def seed_of(*key: Key) -> int:
    """Return a 128-bit seed from names and numbers: the same for the same key on every machine."""
    return int.from_bytes(_digest(key), "little")


def generator(*key: Key) -> Generator:
    """Return a new random generator for a key (counter-based, so it takes only microseconds)."""
    return Generator(Philox(_Key(_digest(key))))  # type: ignore[arg-type]  # numpy takes any ISeedSequence


class _Key(ISeedSequence):
    """Passes Philox its key like `Philox(key=seed_of(...))`, without drawing a seed from the system first."""

    def __init__(self, digest: bytes) -> None:
        self._digest = digest

    def generate_state(self, n_words: int, dtype: Any = np.uint64) -> Any:
        return np.frombuffer(self._digest, "<u8")


def _digest(key: tuple[Key, ...]) -> bytes:
    return blake2b("\x1f".join(map(str, key)).encode(), digest_size=16).digest()


def permuted(index: int, size: int, seed: int) -> int:
    """Map `index` by the permutation of 0 … size-1 given by `seed`, in O(1) time and memory.

    A four-round Feistel network over the next even power of two, repeated until the result is in range (cycle walking),
    so it is a bijection for every size. Example: {permuted(i, 5, 7) for i in range(5)} == {0, 1, 2, 3, 4}.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    keys = [(seed >> (32 * i)) & 0xFFFF_FFFF for i in range(4)]
    while True:
        left, right = index >> half, index & mask
        for key in keys:
            mixed = (right * 0x9E37_79B1 + key) & 0xFFFF_FFFF
            mixed = ((mixed ^ (mixed >> 15)) * 0x85EB_CA6B) & 0xFFFF_FFFF
            left, right = right, left ^ ((mixed ^ (mixed >> 13)) & mask)
        index = (left << half) | right
        if index < size:
            return index
