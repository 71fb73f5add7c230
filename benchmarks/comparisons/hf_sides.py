"""Hugging Face sides of a comparison with ernie2; on a CPU in a separate process, as its users run it.

Two process-wide settings speed up our steps on a CPU: the C library's allocator and the waiting of OpenMP threads. They
would speed up Hugging Face as well.
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
    """One way to train with Hugging Face; see `hugging_face.HuggingFaceSide`."""

    largest: int
    memory: int | None


@dataclass(frozen=True, slots=True)
class HFSides:
    """The `sides` to compare with, and the `library` with its version and attention."""

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
    """Measure our step, as `Bench.measure_steps` does, and Hugging Face on the same instances, alternating.

    `names`: keys of `hugging_face.SIDES`. `sequences`: initial number per batch of Hugging Face. `backend`: compiler of
    its compiled sides. The warm-up rule is the same for all sides.
    """
    pad, longest = bench.trainer.streams.vocabulary.pad, bench.recipe.batch.sequence_tokens
    setting = HFSideSettings(bench.trainer.settings, pad, bench.precision, bench.device, longest, sequences, backend)
    with hf_sides(bench.trainer.model, setting, names) as theirs:
        warm_up_steps = bench.warm_up(theirs.sides)
        measured = bench.measure_in_turns([bench.ours, *theirs.sides])
        sides = [_figures(bench, side, measured) | {"warm_up_steps": warm_up_steps} for side in theirs.sides]
    own = bench.summarise(measured[bench.ours.name])
    return {"step": own, "against": {"library": theirs.library, "sides": sides}}


def _figures(bench: Bench, side: HFSide, measured: Mapping[str, MeasuredSteps]) -> dict[str, Any]:
    """Return the rates of `side` and our rate over it: in the plan's mix, and in steps with masked tokens."""
    masked = [spec.name for spec in bench.trainer.model.specs.values() if spec.classes is None]
    rates, own = (measured[name].rates(bench.counts) for name in (side.name, bench.ours.name))
    theirs, ours = (measured[name].rates(bench.counts, masked) for name in (side.name, bench.ours.name))
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
    """Yield the sides `names` of `hugging_face.SIDES`, with the parameters of `ours`.

    On CUDA they run in this process and share the GPU memory. On a CPU they run in a separate process without our
    process settings, which waits while ours trains. Raises `ConfigError` as `require_hugging_face` does.
    """
    require_hugging_face(ours.settings)
    if setting.device.type == "cuda":
        yield _build_sides(ours, setting, names)
        return
    with ExitStack() as stack:
        with hidden_main_module():
            process = stack.enter_context(side_process({}))
        library, side_names = process.submit(_begin, ours, setting, tuple(names), torch.get_num_threads()).result()
        yield HFSides(library, [_RemoteSide(process, number, name) for number, name in enumerate(side_names)])


def _build_sides(ours: MultiTaskModel, setting: HFSideSettings, names: Sequence[str]) -> HFSides:
    shared = HuggingFaceModel(ours, setting.settings, setting.pad, setting.device, setting.backend)
    sides = build_sides(shared, setting.precision, setting.device, setting.longest, names, setting.sequences)
    return HFSides(f"transformers {shared.version}, ErnieForMaskedLM, {shared.attention} attention", sides)


class _RemoteSide:
    """Proxy of a side in another process."""

    def __init__(self, process: ProcessPoolExecutor, number: int, name: str) -> None:
        self.name, self.largest = name, 0
        self.memory: int | None = None
        self._process, self._number = process, number

    def step(self, packs: Sequence[PackedBatch]) -> MeasuredStep:
        step, self.largest, self.memory = self._process.submit(_step, self._number, packs).result()
        return step


_sides: list[HuggingFaceSide] = []
"""The sides of the other process, set there."""


def _begin(ours: MultiTaskModel, setting: HFSideSettings, names: Sequence[str], threads: int) -> tuple[str, list[str]]:
    torch.set_num_threads(threads)
    built = _build_sides(ours, setting, names)
    _sides.extend(built.sides)  # type: ignore[arg-type]
    return built.library, [side.name for side in built.sides]


def _step(number: int, packs: Sequence[PackedBatch]) -> tuple[MeasuredStep, int, int | None]:
    side = _sides[number]
    return side.step(packs), side.largest, side.memory
