"""Everything `ernie2 bench` measures, in the order in which it is measured, as one plain value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from ernie2.benchmarking.flops import formula
from ernie2.benchmarking.input_side import input_side
from ernie2.benchmarking.mix import Taken, sample
from ernie2.benchmarking.ours import Ours
from ernie2.benchmarking.peaks import peak_of
from ernie2.benchmarking.warm_up import Side, warm_up
from ernie2.config.settings import Recipe
from ernie2.model.attention.fused import active_flash
from ernie2.runs.build import Pretraining, build
from ernie2.shards.store import Shards
from ernie2.training.measuring import task_sets

Advance = Callable[[str], None]
Note = Callable[[str, Mapping[str, Any]], None]
"""Is given every single measurement when it is made: what it is, and its figures."""


class Bench:
    """Measures a run built from `recipe` and `shards`, part by part, after a warm-up.

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
        self.trainer = self.made.trainer
        self.counts = task_sets(self.trainer.plans)
        self.sets = sample(self.counts, steps)
        self.ours = Ours(self.trainer, self.precision, device)
        self._warm_up_steps = self.warm_up([self.ours])
        self._warm_graphs = self.ours.graphs
        self._own_memory = self.ours.memory  # on a CPU that of the process, so before anyone else is in it

    def warm_up(self, sides: Sequence[Side]) -> int:
        """Train `sides` on packs of the recipe until their steps get no faster; return the steps each has taken."""
        compiled, packs_of = self.trainer.model.static_shapes, self.ours.taker.packs
        return warm_up(sides, packs_of, self.sets, compiled=compiled, advance=lambda: self.advance("warm-up"))

    def steps(self) -> dict[str, Any]:
        """Rates of our step."""
        return {"step": self.own_figures(self.in_turns([self.ours])[self.ours.name])}

    def in_turns(self, sides: Sequence[Side]) -> dict[str, Taken]:
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

    def own_figures(self, taken: Taken) -> dict[str, Any]:
        """The figures of our steps: rates, MFU, memory, kernels and graphs."""
        rates = taken.rates(self.counts)
        assert rates is not None
        peak = peak_of(self.device, self.precision)
        return {
            **asdict(rates),
            "warm_up_steps": self._warm_up_steps,
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

    def inputs(self, steps: int, seconds: float = 2.0) -> dict[str, Any]:
        """The input side of the recipe's stream, as `input_side` measures it."""
        return input_side(self.ours.taker, self.sets, steps, seconds, lambda: self.advance("input"), self.note)
