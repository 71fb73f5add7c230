"""Measure how fast a recipe trains on this machine, and its input pipeline: the implementation of `ernie2 bench`."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from ernie2.benchmarking.flops import device_peak
from ernie2.benchmarking.input_pipeline import measure_input_pipeline
from ernie2.benchmarking.measured_trainer import MeasuredTrainer
from ernie2.benchmarking.mix import MeasuredStep, MeasuredSteps, sample_task_sets
from ernie2.benchmarking.warm_up import MAX_STEPS, MIN_STEPS, Side, warm_up
from ernie2.config.settings import Recipe
from ernie2.console import log_info, progress
from ernie2.errors import ConfigError
from ernie2.formatting import join_words
from ernie2.model.attention.fused import active_flash
from ernie2.model.encoders import ENCODERS
from ernie2.processes import cores
from ernie2.runs.build import Pretraining, build
from ernie2.runs.prepare import RecipeSource, prepare_shards
from ernie2.runs.recipes import load_recipe
from ernie2.shards.store import Shards
from ernie2.storage.line_files import append_line, check_appendable
from ernie2.training.measuring import TaskSet, task_sets
from ernie2.training.run_record import RunRecord
from ernie2.training.step import choose_precision

BENCH_FILE = "bench.jsonl"
MIN_INPUT_STEPS = 3

Note = Callable[[str, Mapping[str, Any]], None]
"""Callback for every measurement: its kind and its figures."""


class Bench:
    """A run built from `recipe` and `shards`, measured part by part after a warm-up.

    Callbacks: `begin` after the run is built, before the warm-up; `advance` with a progress text; `note` with each
    measurement at once.
    """

    def __init__(
        self,
        recipe: Recipe,
        shards: Shards,
        device: torch.device,
        steps: int,
        advance: Callable[[str], None] = lambda _: None,
        note: Note = lambda *_: None,
        begin: Callable[[Bench], None] = lambda _: None,
    ) -> None:
        self.recipe, self.shards, self.device, self.advance, self.note = recipe, shards, device, advance, note
        self.pretraining: Pretraining = build(recipe, shards)
        self.precision = self.pretraining.record.precision
        self.trainer = self.pretraining.trainer
        self.counts = task_sets(self.trainer.plans)
        self.sets = sample_task_sets(self.counts, steps)
        self.ours = MeasuredTrainer(self.trainer, self.precision, device)
        begin(self)
        self._warm_up_steps = self.warm_up([self.ours])
        self._warm_graphs = self.ours.graphs
        self._own_memory = self.ours.memory  # on a CPU that of the process, so measured before other sides run

    def warm_up(self, sides: Sequence[Side]) -> int:
        """Train `sides` on packs of the recipe until their steps get no faster; return the steps per side."""
        compiled, packs_of, names = self.trainer.model.static_shapes, self.ours.runner.packs, _names(sides)

        def advance(number: int, least: int, chosen: TaskSet, steps: Sequence[MeasuredStep]) -> None:
            for side, step in zip(sides, steps, strict=True):
                self.note("warm_up", {"side": side.name, **chosen.as_json(), **asdict(step)})
            self.advance(f"warm-up of {names}, step {number} of {least} to {max(least, MAX_STEPS)}")

        return warm_up(sides, packs_of, self.sets, compiled=compiled, advance=advance)

    def measure_steps(self) -> dict[str, Any]:
        """Measure the training step; return its figures."""
        return {"step": self.summarise(self.measure_in_turns([self.ours])[self.ours.name])}

    def measure_in_turns(self, sides: Sequence[Side]) -> dict[str, MeasuredSteps]:
        """Measure all `sides` on the same packs, alternating; return their steps by name."""
        measured = {side.name: MeasuredSteps() for side in sides}
        for number, chosen in enumerate(self.sets):
            packs = self.ours.runner.packs(chosen)
            self.ours.record_kernels(packs)
            first = number % len(sides)
            for side in [*sides[first:], *sides[:first]]:  # rotate, so that no side always follows the same one
                step = side.step(packs)
                measured[side.name].add(chosen, step)
                self.note("step", {"side": side.name, **chosen.as_json(), **asdict(step)})
            self.advance(f"{_names(sides)}, step {number + 1} of {len(self.sets)}")
        return measured

    def summarise(self, measured: MeasuredSteps) -> dict[str, Any]:
        """Return the figures of our steps: rates, MFU, memory, kernels and graphs."""
        rates = measured.rates(self.counts)
        assert rates is not None
        peak = device_peak(self.device, self.precision)
        return {
            **asdict(rates),
            "warm_up_steps": self._warm_up_steps,
            "task_sets": len(self.counts),
            "measured_sets": len(measured.steps),
            "mfu": rates.flops_per_second / peak.flops_per_second,
            "flops": ENCODERS[self.recipe.encoder.kind].layer.formula(self.recipe.encoder),
            "peak_flops_per_second": peak.flops_per_second,
            "peak_source": peak.source,
            "memory_bytes": self.ours.memory if self.device.type == "cuda" else self._own_memory,
            "kernels": {name: asdict(use) for name, use in self.ours.kernels.items()},
            "flash_attention": active_flash(),
            "compiled": self.ours.graphs is not None,
            "graphs": self.ours.graphs,
            "recompilations": None if self.ours.graphs is None else self.ours.graphs - (self._warm_graphs or 0),
        }

    def measure_input(self, steps: int, seconds: float = 2.0) -> dict[str, Any]:
        """Measure the input pipeline; return the figures of `measure_input_pipeline`."""
        return measure_input_pipeline(
            self.ours.runner, self.sets, steps, seconds, lambda: self.advance("input pipeline"), self.note
        )


def _names(sides: Sequence[Side]) -> str:
    return join_words([side.name for side in sides])


def bench(
    recipe: RecipeSource = "demo-en",
    overrides: Sequence[str] = (),
    steps: int = 30,
    json_file: str | Path = BENCH_FILE,
    measure_steps: Callable[[Bench], dict[str, Any]] = Bench.measure_steps,
) -> dict[str, Any]:
    """Measure training of a recipe on its real stream, and append lines of JSON to `json_file`.

    Missing shards are prepared. After a warm-up, `steps` steps are trained in the plan's mix of task sets, on a model
    that is discarded. A third as many, at least three, measure the input pipeline with each number of workers.
    `measure_steps` returns the figures of the steps; it can be replaced to train other implementations alternately, as
    in `benchmarks/bench_against_hf.py`.

    Every measurement is written at once as one line. The last line is a summary, which is returned.

    Raises `ConfigError` for fewer than one step, `StorageError` if a line cannot be written, and the errors of
    `prepare` and `pretrain`.
    """
    if steps < 1:
        raise ConfigError(f"--steps {steps}: must be at least 1.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    checked = load_recipe(recipe, overrides)
    file = Path(json_file)
    check_appendable(file, advice="Name another file with --json.")
    shards = prepare_shards(checked, None)
    log_info(
        f"Measuring {checked.name} in {choose_precision(checked.train.precision, device)}: a warm-up of every side, "
        f"{MIN_STEPS} to {MAX_STEPS} steps if nothing is compiled, then {steps} steps each; the model is discarded"
    )
    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    few = max(MIN_INPUT_STEPS, steps // 3)
    identity = secrets.token_hex(4)

    def note(what: str, facts: Mapping[str, Any]) -> None:
        append_line(file, {"bench": identity, "what": what, **facts}, advice="Earlier figures are in the file.")

    with progress("Measuring", None, "steps") as bar:
        described: dict[str, Any] = {}

        def begin(built: Bench) -> None:
            described.update(_describe_run(checked, built.pretraining.record, built.counts, load))
            note("begin", described)

        measured = Bench(checked, shards, device, steps, lambda what: bar.advance(note=what), note, begin)
        figures = measure_steps(measured) | {"input": measured.measure_input(few)}
    line = {"bench": identity, "what": "summary", **described, **figures}
    append_line(file, line, advice="Earlier figures are in the file.")
    return line


def _describe_run(
    recipe: Recipe, record: RunRecord, counts: Mapping[TaskSet, int], load: Sequence[float] | None
) -> dict[str, Any]:
    """Return the first part of the line: what was measured, where and when."""
    return {
        "format": 4,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": record.device,
        "threads": torch.get_num_threads(),
        "cores": cores(),
        "load": list(load) if load else None,
        "versions": record.versions,
        "git": record.git,
        "recipe": recipe.name,
        "precision": record.precision,
        "tasks": list(recipe.tasks),
        "encoder": recipe.encoder.model_dump(mode="json"),
        "parameters": record.parameters,
        "vocab_size": record.data.vocab_size,
        "batch": recipe.batch.model_dump(mode="json"),
        "plan": [{**chosen.as_json(), "steps": steps} for chosen, steps in counts.items()],
    }
