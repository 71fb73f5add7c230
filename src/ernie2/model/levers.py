"""Faster forms of the same arithmetic, each with a switch by which benchmarks and tests compare it with the plain form.

A lever gives what the plain form gives, but for the rounding of sums. All are on; nothing but measuring turns one off.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

LEVERS: dict[str, str] = {
    "vocabulary_logsumexp": "compiled: the vocabulary's gradient from log-sum-exp, without float32 odds or scatter",
    "vocabulary_tiles": "CPU: the vocabulary's softmax over tiles of 64 rows, in less memory",
    "vocabulary_stop_at_count": "static shapes: chunks of padding only never reach the vocabulary",
    "small_table_gradients": "CUDA or compiled: gradients of segment and task tables by a matrix product, not atomics",
    "scored_rows": "the last layer computes only the rows that a head reads",
    "attention_products": "attention on a CPU by matrix products over groups, not by torch's fused kernel",
    "bit_masks": "dropout on a CPU zeroes by an AND of bits, not by a product with a mask of bools",
}
"""Every lever of a pre-training step by name, with what it does in one line."""

FINE_TUNING_LEVERS: dict[str, str] = {
    "used_rows": "fine-tuning leaves out the rows of the word table that no training text uses",
}
"""Levers that only fine-tuning has."""

_off: frozenset[str] = frozenset()


def enabled(lever: str) -> bool:
    """Return whether `lever`, a key of the tables above, is on; compiled code is compiled again when this changes."""
    return lever not in _off


@contextmanager
def without(*levers: str) -> Iterator[None]:
    """Turn `levers` off inside the `with` block, in this process. Raise `KeyError` for a name that is no lever."""
    global _off
    known = LEVERS | FINE_TUNING_LEVERS
    if unknown := [lever for lever in levers if lever not in known]:
        raise KeyError(f"no lever is called {', '.join(unknown)}; there are {', '.join(known)}")
    before, _off = _off, _off | set(levers)
    try:
        yield
    finally:
        _off = before
