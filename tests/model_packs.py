"""Small packs and their padded counterparts for the tests of this package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ernie2.batches.batch import PackedBatch, Targets
from ernie2.config.settings import EncoderSettings
from ernie2.model.heads import HeadSpec

VOCABULARY = 70
SPECS = (
    HeadSpec("knowledge_masking", "token", None),
    HeadSpec("capitalization_prediction", "token", 2),
    HeadSpec("sentence_reordering", "sentence", 33),
)


def small_settings(**changes: object) -> EncoderSettings:
    """Two layers of width 24, no dropout."""
    values: dict[str, object] = {"layers": 2, "hidden": 24, "heads": 3, "position_rows": 64, "dropout": 0.0}
    return EncoderSettings.model_validate(values | changes)


def make_pack(
    lengths: Sequence[int],
    seed: int = 0,
    tail: int = 0,
    target_tail: int = 0,
    longest: int = 64,
    tasks: Sequence[HeadSpec] = SPECS,
) -> PackedBatch:
    """Random ids in sequences of `lengths`, `tail` tokens of padding; every task scores something."""
    rng = np.random.default_rng(seed)
    real = sum(lengths)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)

    def ids(high: int) -> np.ndarray:
        return np.concatenate([rng.integers(0, high, real), np.zeros(tail)]).astype(np.int32)

    positions = np.concatenate([*(np.arange(length) for length in lengths), np.zeros(tail)]).astype(np.int32)
    task_ids = np.concatenate([np.repeat(rng.integers(0, 16, len(lengths)), lengths), np.zeros(tail)]).astype(np.int32)
    targets: dict[str, Targets] = {}
    for spec in tasks:
        scored = starts[:-1] if spec.level == "sentence" else np.flatnonzero(rng.random(real) < 0.4)
        scored = scored if len(scored) else starts[:1]
        labels = rng.integers(0, spec.classes or VOCABULARY, len(scored))
        targets[spec.name] = Targets(
            np.concatenate([scored, np.zeros(target_tail)]).astype(np.int32),
            np.concatenate([labels, np.zeros(target_tail)]).astype(np.int64),
            len(scored),
        )
    return PackedBatch(ids(VOCABULARY), positions, ids(4), task_ids, starts, longest, targets)


def only_sequences(batch: PackedBatch, chosen: Sequence[int]) -> PackedBatch:
    """A pack of some sequences of `batch`, in the order of `chosen`, with their targets."""
    spans = [np.arange(batch.starts[i], batch.starts[i + 1]) for i in chosen]
    tokens = np.concatenate(spans)
    place = {int(old): new for new, old in enumerate(tokens)}
    targets: dict[str, Targets] = {}
    for name, old in batch.targets.items():
        kept = [i for i in range(old.count) if int(old.positions[i]) in place]
        positions = np.array([place[int(old.positions[i])] for i in kept], dtype=np.int32)
        targets[name] = Targets(positions, old.labels[kept], len(kept))
    starts = np.concatenate([[0], np.cumsum([len(span) for span in spans])]).astype(np.int32)
    return PackedBatch(
        batch.tokens[tokens],
        batch.positions[tokens],
        batch.segments[tokens],
        batch.task_ids[tokens],
        starts,
        batch.longest,
        targets,
    )


def with_targets(batch: PackedBatch, targets: Mapping[str, Targets]) -> PackedBatch:
    """The same tokens, other targets."""
    return PackedBatch(
        batch.tokens, batch.positions, batch.segments, batch.task_ids, batch.starts, batch.longest, targets
    )


def padded(values: np.ndarray, starts: np.ndarray, fill: int = 0) -> np.ndarray:
    """A packed column (T,) as rows of sequences (S, longest), `fill` behind each."""
    lengths = np.diff(starts)
    rows = np.full((len(lengths), lengths.max()), fill, dtype=np.int64)
    for i, length in enumerate(lengths):
        rows[i, :length] = values[starts[i] : starts[i] + length]
    return rows
