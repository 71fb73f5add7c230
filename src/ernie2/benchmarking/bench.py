"""Measure how fast a recipe trains on this machine, and what feeds it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from ernie2.benchmarking.measure import Bench
from ernie2.config.settings import Recipe
from ernie2.console import progress, say
from ernie2.errors import ConfigError
from ernie2.processes import cores
from ernie2.runs.prepare import RecipeSource, shards_of
from ernie2.storage.line_files import append_line, check_appendable
from ernie2.tasks.recipe import load_recipe
from ernie2.training.run_record import RunRecord
from ernie2.training.step import choose_precision

BENCH_FILE = "bench.jsonl"
LEAST_INPUT_STEPS = 3


def bench(
    recipe: RecipeSource = "demo-en",
    overrides: Sequence[str] = (),
    steps: int = 30,
    json_file: str | Path = BENCH_FILE,
    measure_steps: Callable[[Bench], dict[str, Any]] = Bench.steps,
) -> dict[str, Any]:
    """Measure training of a recipe on its real stream, and append lines of JSON to `json_file`.

    Shards are made where they are absent. `steps` steps, in the mix of task sets the plan has, are trained after a
    warm-up on a model that is thrown away; a third as many, three at least, measure each way of feeding it.
    `measure_steps` returns the figures of the steps; another one can train others in turns with ours, as
    `benchmarks/bench_against_hf.py` does.

    Every measurement is a line as soon as it is made; the last line sums up, and is returned.

    Raises `ConfigError` for fewer than one step, `StorageError` where a line cannot be written, and whatever `prepare`
    and `pretrain` would refuse.
    """
    if steps < 1:
        raise ConfigError(f"--steps {steps}: at least one step has to be measured.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    checked = load_recipe(recipe, overrides)
    file = Path(json_file)
    check_appendable(file, what_now="Name another file with --json.")
    shards = shards_of(checked, None)
    say(f"Measuring {checked.name} in {choose_precision(checked.train.precision, device)}; nothing of it is kept")
    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    few = max(LEAST_INPUT_STEPS, steps // 3)
    identity = secrets.token_hex(4)

    def note(what: str, facts: Mapping[str, Any]) -> None:
        append_line(file, {"bench": identity, "what": what, **facts}, what_now="The figures so far are in it.")

    with progress("Measuring", None, "steps") as bar:
        measured = Bench(checked, shards, device, steps, lambda what: bar.advance(note=what), note)
        described = _described(checked, measured.made.record, load)
        note("begin", described)
        figures = measure_steps(measured) | {"input": measured.inputs(few)}
    line = {"bench": identity, "what": "summary", **described, **figures}
    append_line(file, line, what_now="The figures so far are in it.")
    return line


def _described(recipe: Recipe, record: RunRecord, load: Sequence[float] | None) -> dict[str, Any]:
    """What was measured, where and when: the part of the line before its figures."""
    return {
        "format": 3,
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
    }
