"""Order without state: random generators and permutations as pure functions of names and numbers.

Nothing here remembers anything, so a run resumes in O(1) from a handful of integers, on any number of workers.
"""

from __future__ import annotations

from hashlib import blake2b

from numpy.random import Generator, Philox

Key = str | int


def seed_of(*key: Key) -> int:
    """A 128-bit seed from names and numbers: equal for equal keys on every machine, unrelated for any other key."""
    text = "\x1f".join(map(str, key)).encode()
    return int.from_bytes(blake2b(text, digest_size=16).digest(), "little")


def generator(*key: Key) -> Generator:
    """A fresh random generator for this key (counter-based, so making one costs microseconds)."""
    return Generator(Philox(key=seed_of(*key)))


def permuted(index: int, size: int, seed: int) -> int:
    """Where `index` goes under the permutation of 0 … size-1 that `seed` names; O(1) time and memory.

    A four-round Feistel network over the next even power of two, walked until it lands inside (cycle walking), so it is
    a bijection for every size. Example: {permuted(i, 5, 7) for i in range(5)} == {0, 1, 2, 3, 4}.
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
