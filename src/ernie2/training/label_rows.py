"""Rows of a head by the names of its classes: on a warm start a label keeps its row wherever it stands in the list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ernie2.model.multitask import MultiTaskModel
from ernie2.tasks.reading import listed

Labels = Sequence[str]


@dataclass(frozen=True, slots=True)
class Moved:
    """Heads filled by label: names of their tensors, and in words what was left out and what is new."""

    tensors: frozenset[str]
    left_out: tuple[str, ...]
    new: tuple[str, ...]


def other_labels(
    theirs: Mapping[str, Labels | None], ours: Mapping[str, Labels]
) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Task → (their classes, our classes), for tasks both sides have, whose classes or their order differ."""
    return {
        name: (tuple(known), tuple(labels))
        for name, labels in ours.items()
        if (known := theirs.get(name)) and tuple(known) != tuple(labels)
    }


def rows_by_label(
    theirs: Mapping[str, Tensor],
    model: MultiTaskModel,
    others: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]],
) -> Moved:
    """Copies rows of `theirs`, tensors by our names, into the heads of `model` whose classes are `others`.

    A class they do not have keeps the start it has in `model`, which follows from the seed and the task's name.
    """
    tensors, left_out, new = set(), [], []
    state = model.state_dict()
    for task, (known, wanted) in others.items():
        shared = [label for label in wanted if label in known]
        to = torch.tensor([wanted.index(label) for label in shared], dtype=torch.long)
        come_from = torch.tensor([known.index(label) for label in shared], dtype=torch.long)
        for part in ("weight", "bias"):
            name = f"heads.{task}.linear.{part}"
            if name in theirs:
                state[name][to] = theirs[name][come_from].to(state[name].dtype)
                tensors.add(name)
        if unknown := [label for label in wanted if label not in known]:
            new.append(f"heads.{task}, labels {listed(unknown)}")
        if dropped := [label for label in known if label not in wanted]:
            left_out.append(f"heads.{task}, labels {listed(dropped)}")
    return Moved(frozenset(tensors), tuple(left_out), tuple(new))
