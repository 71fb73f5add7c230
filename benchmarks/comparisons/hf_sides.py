"""Hugging Face beside ours: on a CPU in a process of its own, as its users run it.

What makes our steps faster there is set for the whole process (the C library's allocator, how OpenMP threads wait), and
would speed up theirs as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch

from comparisons.hugging_face import HuggingFaceModel, HuggingFaceSide, build_sides, require_hugging_face
from comparisons.side_process import side_process
from ernie2.batches.batch import PackedBatch
from ernie2.benchmarking.bench import Bench
from ernie2.benchmarking.mix import MeasuredStep, MeasuredSteps
from ernie2.benchmarking.warm_up import Side
from ernie2.config.settings import TrainSettings
from ernie2.model.multitask import MultiTaskModel
from ernie2.processes import hidden_main_module


class HFSide(Side, Protocol):
    """One way to train with Hugging Face: see `hugging_face.HuggingFaceSide`."""

    largest: int
    memory: int | None


@dataclass(frozen=True, slots=True)
class HFSides:
    """The `sides` to compare with, and the `library` they are, with its version and attention."""

    library: str
    sides: Sequence[HFSide]


@dataclass(frozen=True, slots=True)
class HFSideSettings:
    """Training settings of all sides: arguments of `HuggingFaceModel` and `build_sides`; `backend`: the compiler."""

    settings: TrainSettings
    pad: int
    precision: str
    device: torch.device
    longest: int
    sequences: int | None = None
    backend: str = "inductor"


def measure_with_hf(
    bench: Bench, names: Sequence[str], sequences: int | None = None, backend: str = "inductor"
) -> dict[str, Any]:
    """Rates of our step, as `Bench.steps` gives them, and of Hugging Face on the same instances, all taking turns.

    `names`: keys of `hugging_face.SIDES`. `sequences`: how many a batch of theirs holds to begin with. `backend`
    compiles those of theirs that are compiled. They warm up by the same rule as ours did.
    """
    pad, longest = bench.trainer.streams.vocabulary.pad, bench.recipe.batch.sequence_tokens
    setting = HFSideSettings(bench.trainer.settings, pad, bench.precision, bench.device, longest, sequences, backend)
    with hf_sides(bench.trainer.model, setting, names) as theirs:
        warm_up_steps = bench.warm_up(theirs.sides)
        taken = bench.measure_in_turns([bench.ours, *theirs.sides])
        sides = [_figures(bench, side, taken) | {"warm_up_steps": warm_up_steps} for side in theirs.sides]
    own = bench.summarise(taken[bench.ours.name])
    return {"step": own, "against": {"library": theirs.library, "sides": sides}}


def _figures(bench: Bench, side: HFSide, taken: Mapping[str, MeasuredSteps]) -> dict[str, Any]:
    """Rates of `side`, and ours over theirs: in the plan's mix, and in steps where tokens are masked."""
    masked = [spec.name for spec in bench.trainer.model.specs.values() if spec.classes is None]
    rates, own = (taken[name].rates(bench.counts) for name in (side.name, bench.ours.name))
    theirs, ours = (taken[name].rates(bench.counts, masked) for name in (side.name, bench.ours.name))
    assert rates is not None
    assert own is not None
    both = bool(masked) and theirs is not None and ours is not None
    return {
        "name": side.name,
        **asdict(rates),
        "ratio": own.tokens_per_second / rates.tokens_per_second,
        "ratio_where_masked": ours.tokens_per_second / theirs.tokens_per_second if both else None,
        "sequences_at_once": side.largest,
        "memory_bytes": side.memory,
    }


@contextmanager
def hf_sides(ours: MultiTaskModel, setting: HFSideSettings, names: Sequence[str]) -> Iterator[HFSides]:
    """Yield the sides called `names` in `hugging_face.SIDES`, with the parameters of `ours`.

    On CUDA they are in this process, so that all share the memory of the card. On a CPU they have a process of their
    own, without the settings of ours, and it waits while ours trains. Raises `ConfigError` as `require_hugging_face`.
    """
    require_hugging_face(ours.settings)
    if setting.device.type == "cuda":
        yield _made(ours, setting, names)
        return
    with ExitStack() as stack:
        with hidden_main_module():
            process = stack.enter_context(side_process({}))
        library, found = process.submit(_begin, ours, setting, tuple(names), torch.get_num_threads()).result()
        yield HFSides(library, [_RemoteSide(process, number, name) for number, name in enumerate(found)])


def _made(ours: MultiTaskModel, setting: HFSideSettings, names: Sequence[str]) -> HFSides:
    shared = HuggingFaceModel(ours, setting.settings, setting.pad, setting.device, setting.backend)
    sides = build_sides(shared, setting.precision, setting.device, setting.longest, names, setting.sequences)
    return HFSides(f"transformers {shared.version}, ErnieForMaskedLM, {shared.attention} attention", sides)


class _RemoteSide:
    """A side in another process, seen from ours."""

    def __init__(self, process: ProcessPoolExecutor, number: int, name: str) -> None:
        self.name, self.largest = name, 0
        self.memory: int | None = None
        self._process, self._number = process, number

    def step(self, packs: Sequence[PackedBatch]) -> MeasuredStep:
        made, self.largest, self.memory = self._process.submit(_step, self._number, packs).result()
        return made


_sides: list[HuggingFaceSide] = []
"""In the other process: its sides."""


def _begin(ours: MultiTaskModel, setting: HFSideSettings, names: Sequence[str], threads: int) -> tuple[str, list[str]]:
    torch.set_num_threads(threads)
    made = _made(ours, setting, names)
    _sides.extend(made.sides)  # type: ignore[arg-type]
    return made.library, [side.name for side in made.sides]


def _step(number: int, packs: Sequence[PackedBatch]) -> tuple[MeasuredStep, int, int | None]:
    side = _sides[number]
    return side.step(packs), side.largest, side.memory
