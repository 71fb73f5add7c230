"""Everything `ernie2 bench` measures, in the order in which it is measured, as one plain value."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch

from ernie2.batches.batch import PackedBatch
from ernie2.benchmarking.flops import formula
from ernie2.benchmarking.mix import Rates, Step, Taken, sample
from ernie2.benchmarking.opponents import Opponent, OpponentSettings, opponents
from ernie2.benchmarking.ours import Ours
from ernie2.benchmarking.pairs import pairs_recipe, write_pairs
from ernie2.benchmarking.peaks import peak_of
from ernie2.benchmarking.waiting import loader_rate, waiting
from ernie2.config.settings import Recipe
from ernie2.model.attention.fused import active_flash
from ernie2.runs.build import Pretraining, build
from ernie2.shards.store import Shards
from ernie2.training.measuring import Taker, TaskSet, task_sets
from ernie2.training.trainer import Trainer, loader_workers

WARM_UP = 3
"""Steps before the clock, where nothing is compiled; where it is, every task set comes once."""

Advance = Callable[[str], None]
Note = Callable[[str, Mapping[str, Any]], None]
"""Is given every single measurement when it is made: what it is, and its figures."""


class Side(Protocol):
    """One that trains on packs and tells how long it took."""

    name: str

    def step(self, packs: Sequence[PackedBatch]) -> Step:
        """One optimiser step on the instances of `packs`."""


class Bench:
    """Measures a run built from `recipe` and `shards`, part by part.

    `advance` is called with what was just done, `note` with each measurement as soon as it is made.
    """

    def __init__(
        self,
        recipe: Recipe,
        shards: Shards,
        device: torch.device,
        steps: int,
        advance: Advance = lambda _: None,
        note: Note = lambda *_: None,
    ) -> None:
        self.recipe, self.shards, self.device, self.advance, self.note = recipe, shards, device, advance, note
        self.made: Pretraining = build(recipe, shards)
        self.precision = self.made.record.precision
        self.counts = task_sets(self.made.trainer.plans)
        self.sets = sample(self.counts, steps)
        self.ours = Ours(self.trainer, self.precision, device)
        self._warm_up([self.ours])
        self._warm_graphs = self.ours.graphs
        self._own_memory = self.ours.memory  # on a CPU that of the process, so before anyone else is in it

    @property
    def trainer(self) -> Trainer:
        """The trainer measured."""
        return self.made.trainer

    def steps(
        self, against: Sequence[str] = (), sequences: int | None = None, backend: str = "inductor"
    ) -> dict[str, Any]:
        """Rates of our step and of Hugging Face on the same instances, all sides taking turns.

        `against`: keys of `hugging_face.SIDES`. `sequences`: how many a batch of theirs holds to begin with.
        `backend` compiles those of theirs that are compiled.
        """
        if not against:
            return {"step": self._own_figures(self._in_turns([self.ours])[self.ours.name])}
        pad, longest = self.trainer.stream.vocabulary.pad, self.recipe.batch.sequence_tokens
        setting = OpponentSettings(self.trainer.settings, pad, self.precision, self.device, longest, sequences, backend)
        with opponents(self.trainer.model, setting, against) as theirs:
            self._warm_up(theirs.sides)
            taken = self._in_turns([self.ours, *theirs.sides])
            sides = [self._their_figures(side, taken) for side in theirs.sides]
        own = self._own_figures(taken[self.ours.name])
        return {"step": own, "against": {"library": theirs.library, "sides": sides}}

    def _in_turns(self, sides: Sequence[Side]) -> dict[str, Taken]:
        """Steps of all `sides` on the same packs, by the name of each."""
        taken = {side.name: Taken() for side in sides}
        for number, chosen in enumerate(self.sets):
            packs = self.ours.taker.packs(chosen)
            self.ours.note_kernels(packs)
            first = number % len(sides)
            for side in [*sides[first:], *sides[:first]]:  # nobody always comes after the same other
                step = side.step(packs)
                taken[side.name].add(chosen, step)
                self.note("step", {"side": side.name, **asdict(chosen), **asdict(step)})
            self.advance("steps")
        return taken

    def inputs(self, steps: int, seconds: float = 2.0) -> dict[str, Any]:
        """The input side of the recipe's stream, and that of labelled pairs of 50 tokens."""
        made = {"stream": self._input_side("stream", self.trainer, self.ours.taker, self.sets, steps, seconds)}
        with tempfile.TemporaryDirectory(prefix="ernie2-bench-") as aside:
            folder = Path(aside)
            recipe = pairs_recipe(self.recipe, folder)
            pairs = write_pairs(folder / "shards", self.shards, self.trainer.stream.vocabulary)
            trainer = build(recipe, pairs).trainer
            taker, sets = Taker(trainer, self.precision, self.device), list(task_sets(trainer.plans))
            for _ in range(WARM_UP):
                taker.train(taker.packs(sets[0]))
            made["pairs_of_50"] = self._input_side("pairs_of_50", trainer, taker, sets, steps, seconds)
        return made

    def _warm_up(self, sides: Sequence[Side]) -> None:
        compiled = self.trainer.model.static_shapes
        different = list(dict.fromkeys(self.sets))
        for chosen in different if compiled else (different * WARM_UP)[:WARM_UP]:
            packs = self.ours.taker.packs(chosen)
            for side in sides:
                side.step(packs)
            self.advance("warm-up")

    def _input_side(
        self, name: str, trainer: Trainer, taker: Taker, sets: Sequence[TaskSet], steps: int, seconds: float
    ) -> dict[str, Any]:
        """One loader process alone, then training fed by none and by as many as a run has (one where it has none)."""
        usual = loader_workers(trainer.settings.workers, self.device, trainer.stream.lanes, trainer.plans)
        alone = loader_rate(trainer.stream, sets, seconds)
        self.note("one_process", {"stream": name, **asdict(alone)})
        fed = []
        for workers in (0, usual or 1):
            fed.append(waiting(taker, trainer.stream, sets, workers, steps, lambda: self.advance("input")))
            self.note("waiting", {"stream": name, **asdict(fed[-1])})
        return {"one_process": asdict(alone), "default_workers": usual, "waiting": [asdict(each) for each in fed]}

    def _own_figures(self, taken: Taken) -> dict[str, Any]:
        rates = taken.rates(self.counts)
        assert rates is not None
        peak = peak_of(self.device, self.precision)
        return {
            **_told(rates),
            "task_sets": len(self.counts),
            "measured_sets": len(taken.steps),
            "mfu": rates.flops_per_second / peak.flops_per_second,
            "flops": formula(self.recipe.encoder),
            "peak_flops_per_second": peak.flops_per_second,
            "peak_source": peak.source,
            "memory_bytes": self.ours.memory if self.device.type == "cuda" else self._own_memory,
            "kernels": {name: asdict(use) for name, use in self.ours.kernels.items()},
            "flash_attention": active_flash(),
            "compiled": self.ours.graphs is not None,
            "graphs": self.ours.graphs,
            "recompilations": None if self.ours.graphs is None else self.ours.graphs - (self._warm_graphs or 0),
        }

    def _their_figures(self, side: Opponent, taken: dict[str, Taken]) -> dict[str, Any]:
        masked = [spec.name for spec in self.trainer.model.specs.values() if spec.classes is None]
        rates, own = (taken[name].rates(self.counts) for name in (side.name, self.ours.name))
        assert rates is not None
        assert own is not None
        made = {
            "name": side.name,
            **_told(rates),
            "ratio": own.tokens_per_second / rates.tokens_per_second,
            "ratio_where_masked": None,
            "sequences_at_once": side.largest,
            "memory_bytes": side.memory,
        }
        if masked:
            theirs, ours = (taken[name].rates(self.counts, masked) for name in (side.name, self.ours.name))
            if theirs is not None and ours is not None:
                made["ratio_where_masked"] = ours.tokens_per_second / theirs.tokens_per_second
        return made


def _told(rates: Rates) -> dict[str, Any]:
    return {
        "tokens_per_second": rates.tokens_per_second,
        "median_seconds": rates.median_seconds,
        "real_share": rates.real_share,
        "steps": rates.steps,
    }
