"""Hugging Face beside ours: on a CPU in a process of its own, as its users run it.

What makes our steps faster there is set for the whole process (the C library's allocator, how OpenMP threads wait), and
would speed up theirs as well.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Protocol

import torch

from ernie2.batches.batch import PackedBatch
from ernie2.benchmarking.hugging_face import HuggingFace, Theirs, contestants, require_hugging_face
from ernie2.benchmarking.mix import Step
from ernie2.config.settings import TrainSettings
from ernie2.model.multitask import MultiTaskModel
from ernie2.processes import without_main

OUR_VARIABLES = ("GOMP_SPINCOUNT", "THP_MEM_ALLOC_ENABLE")
"""Environment variables that the `ernie2` command sets for itself."""


class Opponent(Protocol):
    """One way to train with Hugging Face: see `hugging_face.Theirs`."""

    name: str
    largest: int
    memory: int | None

    def step(self, packs: Sequence[PackedBatch]) -> Step:
        """One optimiser step on the instances of `packs`."""


@dataclass(frozen=True, slots=True)
class Opponents:
    """The `sides` to compare with, and the `library` they are, with its version and attention."""

    library: str
    sides: Sequence[Opponent]


@dataclass(frozen=True, slots=True)
class OpponentSettings:
    """How all sides train: arguments of `HuggingFace` and `contestants`; `backend` compiles those that are compiled."""

    settings: TrainSettings
    pad: int
    precision: str
    device: torch.device
    longest: int
    sequences: int | None = None
    backend: str = "inductor"


@contextmanager
def opponents(ours: MultiTaskModel, setting: OpponentSettings, names: Sequence[str]) -> Iterator[Opponents]:
    """Yield the sides called `names` in `hugging_face.SIDES`, with the parameters of `ours`.

    On CUDA they are in this process, so that all share the memory of the card. On a CPU they have a process of their
    own, without the settings of ours, and it waits while ours trains. Raises `ConfigError` as `require_hugging_face`.
    """
    require_hugging_face(ours.settings)
    if setting.device.type == "cuda":
        yield _made(ours, setting, names)
        return
    with _plain_environment(), without_main():
        process = ProcessPoolExecutor(1, get_context("spawn"))
        begun = process.submit(_begin, ours, setting, tuple(names), torch.get_num_threads())
    with process:
        library, found = begun.result()
        yield Opponents(library, [_Elsewhere(process, number, name) for number, name in enumerate(found)])


def _made(ours: MultiTaskModel, setting: OpponentSettings, names: Sequence[str]) -> Opponents:
    shared = HuggingFace(ours, setting.settings, setting.pad, setting.device, setting.backend)
    sides = contestants(shared, setting.precision, setting.device, setting.longest, names, setting.sequences)
    return Opponents(f"transformers {shared.version}, ErnieForMaskedLM, {shared.attention} attention", sides)


@contextmanager
def _plain_environment() -> Iterator[None]:
    """Without `OUR_VARIABLES`, for a process that starts inside."""
    kept = {name: os.environ.pop(name) for name in OUR_VARIABLES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


class _Elsewhere:
    """A side in another process, seen from ours."""

    def __init__(self, process: ProcessPoolExecutor, number: int, name: str) -> None:
        self.name, self.largest = name, 0
        self.memory: int | None = None
        self._process, self._number = process, number

    def step(self, packs: Sequence[PackedBatch]) -> Step:
        made, self.largest, self.memory = self._process.submit(_step, self._number, packs).result()
        return made


_sides: list[Theirs] = []
"""In the other process: its sides."""


def _begin(
    ours: MultiTaskModel, setting: OpponentSettings, names: Sequence[str], threads: int
) -> tuple[str, list[str]]:
    torch.set_num_threads(threads)
    made = _made(ours, setting, names)
    _sides.extend(made.sides)  # type: ignore[arg-type]
    return made.library, [side.name for side in made.sides]


def _step(number: int, packs: Sequence[PackedBatch]) -> tuple[Step, int, int | None]:
    side = _sides[number]
    return side.step(packs), side.largest, side.memory
