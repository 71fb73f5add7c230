"""A data set with fewer training examples, which then stands as a subset of itself."""

from __future__ import annotations

from dataclasses import replace

from ernie2.batches.order import generator
from ernie2.datasets.examples import STANDINGS, LabelledData, Standing


def with_train_examples(data: LabelledData, count: int | None) -> LabelledData:
    """`data` with `count` of its training examples, always the same ones, in their order; itself where it has no more.

    What was official is a subset then, so that no figure of the paper stands beside it as if it were comparable.
    """
    train = data.need("train")
    if count is None or count >= len(train.examples):
        return data
    chosen = sorted(generator("training examples", count).permutation(len(train.examples))[:count])
    standing: Standing = max(train.standing, "own" if train.standing == "own" else "subset", key=STANDINGS.index)
    notes = (*train.notes, f"{count:,} of {len(train.examples):,} training examples")
    fewer = replace(train, examples=tuple(train.examples[i] for i in chosen), standing=standing, notes=notes)
    return replace(data, splits={**data.splits, "train": fewer})
