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
from ernie2.console import answer, progress, say
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
    """Measure training of a recipe on its real stream, print tables, and append lines of JSON to `json_file`.

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
    for row in _machine_rows(line) + _step_rows(line):
        _say_row(*row)
    print_input(line["input"])
    append_line(file, line, what_now="The figures above were not written.")
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


def _machine_rows(line: Mapping[str, Any]) -> list[tuple[str, str]]:
    encoder, batch = line["encoder"], line["batch"]
    load = f", load {line['load'][0]:.1f} before it began" if line["load"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in line["versions"].items())
    size = f"{encoder['layers']} layers × {encoder['hidden']}, {line['parameters']:,} parameters"
    return [
        ("device", f"{line['device']}; {line['threads']} threads, {line['cores']} cores{load}"),
        ("versions", versions),
        ("encoder", f"{encoder['kind']}, {size}, vocabulary {line['vocab_size']:,}"),
        ("tasks", ", ".join(line["tasks"])),
        (
            "a step",
            f"{batch['batch_tokens']:,} tokens in packs of {batch['pack_tokens']:,}, sequences up to "
            f"{batch['sequence_tokens']:,}, {line['precision']}",
        ),
    ]


def _step_rows(line: Mapping[str, Any]) -> list[tuple[str, str]]:
    step = line["step"]
    kernels = "; ".join(
        f"{name} for {use['packs']:,} packs of {use['fewest']:,} to {use['most']:,} sequences, each up to "
        f"{use['longest']:,} tokens"
        for name, use in step["kernels"].items()
    )
    if step["flash_attention"]:
        kernels += f"; packed by {step['flash_attention']}"
    compiled = "nothing is compiled"
    if step["compiled"]:
        compiled = f"{step['recompilations']} while measured, {step['graphs']} graphs in all"
    memory = "could not be measured"
    if step["memory_bytes"]:
        of = "of the GPU" if line["device"][:3] != "cpu" else "of the process, Python and its libraries included"
        memory = f"{step['memory_bytes'] / 2**30:,.2f} GiB {of}"
    return [
        (
            "training",
            f"{step['tokens_per_second']:,.0f} tokens/s without padding; median step {step['median_seconds']:.3f} s of "
            f"{step['steps']}, after {step['warm_up_steps']} of warm-up; {step['measured_sets']} of "
            f"{step['task_sets']} task sets, weighed as the plan has them",
        ),
        ("MFU", f"{step['mfu']:.1%} of {step['peak_flops_per_second'] / 1e12:.3g} TFLOP/s ({step['peak_source']})"),
        ("operations", step["flops"]),
        ("peak memory", memory),
        ("attention", kernels),
        ("recompilations", compiled),
    ]


def print_input(side: Mapping[str, Any]) -> None:
    """Print what `input_side` measured."""
    alone = side["one_process"]
    answer("\nInput side: one loader process alone, and the share of the time in which training waits for packs")
    answer(
        f"  {alone['instance_tokens']:.0f} tokens an instance: {alone['instances_per_second']:,.0f} instances/s, "
        f"{alone['tokens_per_second']:,.0f} tokens/s"
    )
    for fed in side["waiting"]:
        usual = " (the default here)" if fed["workers"] == side["default_workers"] else ""
        answer(
            f"    {fed['workers']} workers{usual}: waits {fed['share']:.2%}, {fed['tokens_per_second']:,.0f} tokens/s "
            f"over {fed['steps']} steps"
        )


def _say_row(name: str, value: str) -> None:
    answer(f"{name:<15} {value}")
