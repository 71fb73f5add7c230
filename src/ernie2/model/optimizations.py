"""Faster forms of the same arithmetic; benchmarks and tests can switch each one off to compare with the plain form.

Results equal those of the plain form except for the rounding of sums. All are on by default.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

OPTIMIZATIONS: dict[str, str] = {
    "vocabulary_logsumexp": "compiled: the vocabulary's gradient from log-sum-exp, without float32 softmax or scatter",
    "vocabulary_tiles": "CPU: the vocabulary's softmax over tiles of 64 rows, in less memory",
    "vocabulary_skip_padding": "static shapes: chunks that are all padding skip the vocabulary",
    "small_table_gradients": "CUDA or compiled: gradients of segment and task tables by a matrix product, not atomics",
    "scored_rows": "the last layer computes only the rows that a head reads",
    "attention_products": "CPU: attention by matrix products over groups, not by torch's fused kernel",
    "dropout_bit_masks": "CPU: dropout by a bitwise AND, not by a product with a mask of bools",
}
"""Optimisations of a pre-training step: name → one-line description."""

FINE_TUNING_OPTIMIZATIONS: dict[str, str] = {
    "pruned_embedding": "fine-tuning leaves out the rows of the token embedding that no training text uses",
}
"""Optimisations of fine-tuning only."""

_off: frozenset[str] = frozenset()


def is_enabled(name: str) -> bool:
    """Return whether optimisation `name` is on; a change recompiles compiled code."""
    return name not in _off


@contextmanager
def disabled(*names: str) -> Iterator[None]:
    """Turn optimisations off inside the `with` block, in this process. Raises `KeyError` for an unknown name."""
    global _off
    known = OPTIMIZATIONS | FINE_TUNING_OPTIMIZATIONS
    if unknown := [name for name in names if name not in known]:
        raise KeyError(f"unknown optimisation: {', '.join(unknown)}; choose from {', '.join(known)}")
    before, _off = _off, _off | set(names)
    try:
        yield
    finally:
        _off = before
