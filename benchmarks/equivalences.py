"""Training curves that must coincide: packed, recomputed, compiled or bf16 against the plain form.

    python benchmarks/equivalences.py [--shards FOLDER] [--steps 200] [--json FILE] [--picture FILE.svg]
    python benchmarks/equivalences.py --ablation-only [--shards FOLDER] [--steps 200]

Trains the same real steps (four English tasks on the shipped demo text, one stage) several times from the same start,
without dropout. In fp32: sequences packed together against one sequence per pack, activation checkpointing against
stored activations, compiled against eager. Prints the largest relative difference of the step loss over all steps. In
bf16 against fp32: the mean loss of the last 20 steps, three seeds. Then, in fp32, with and without each optimisation
of `ernie2.model.optimizations`, eager and compiled; 0 if an optimisation is not used in that form or gives the same
bits.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import ernie2
from comparisons.script import count, output_file, reported_errors
from ernie2.batches.batch import PackedBatch, Targets
from ernie2.batches.streams import StreamState
from ernie2.config.overrides import as_override
from ernie2.config.settings import Recipe
from ernie2.model import vocabulary_loss
from ernie2.model.multitask import MultiTaskModel
from ernie2.model.optimizations import OPTIMIZATIONS, disabled
from ernie2.runs.build import build
from ernie2.runs.recipes import load_recipe
from ernie2.shards.store import Shards
from ernie2.training.optimizers import build_optimizer
from ernie2.training.schedules import noam
from ernie2.training.step import LocalBatch, StepSettings, take_step

LAST = 20
WARMUP = 40
BATCH = {"batch_tokens": 1024, "pack_tokens": 1024, "sequence_tokens": 128}
ENCODER = {"layers": 2, "hidden": 64, "heads": 2, "dropout": 0.0}


@dataclass(frozen=True)
class Curve:
    """One training: step losses, summed over tasks, and duration."""

    name: str
    seed: int
    losses: list[float]
    seconds: float


def recipe_of(shards: Path, seed: int, steps: int) -> Recipe:
    """Return the demo recipe on `shards`: small encoder, no dropout, all tasks in one stage of at least `steps`."""
    demo = load_recipe("demo-en").model_dump(mode="json")
    return load_recipe(
        demo
        | {
            "seed": seed,
            "shards": demo["shards"] | {"folder": str(shards)},
            "stages": demo["stages"] | {"method": "multitask", "steps": steps},
            "batch": demo["batch"] | BATCH,
            "encoder": demo["encoder"] | ENCODER,
            "train": demo["train"] | {"heldout_instances": 8},
        }
    )


def batches(recipe: Recipe, shards: Shards, steps: int) -> tuple[list[list[PackedBatch]], MultiTaskModel]:
    """Return the packs of every step as in a run, and the untrained model."""
    trainer = build(recipe, shards).trainer
    (plan,) = trainer.plans
    states, made = [StreamState() for _ in range(trainer.streams.count)], []
    for step in range(steps):
        active, main_task = plan.active_tasks(step), plan.main_task(step)
        filled = [trainer.streams.pack(j, state, main_task, active) for j, state in enumerate(states)]
        states = [state for _, state in filled]
        made.append([pack for pack, _ in filled])
    return made, trainer.model


def split_pack(pack: PackedBatch) -> list[PackedBatch]:
    """Split `pack` into one pack per sequence, without padding."""
    parts = []
    for begin, end in zip(pack.starts[:-1].tolist(), pack.starts[1:].tolist(), strict=True):
        targets = {}
        for name, scored in pack.targets.items():
            positions, labels = scored.positions[: scored.count], scored.labels[: scored.count]
            inside = (positions >= begin) & (positions < end)
            if inside.any():
                targets[name] = Targets(positions[inside] - begin, labels[inside], int(inside.sum()))
        columns = (column[begin:end] for column in (pack.tokens, pack.positions, pack.segments, pack.task_ids))
        parts.append(PackedBatch(*columns, np.array([0, end - begin], np.int32), pack.longest, targets))
    return parts


def train(
    name: str,
    recipe: Recipe,
    steps: Sequence[Sequence[PackedBatch]],
    start: MultiTaskModel,
    *,
    precision: str = "fp32",
    activation_checkpointing: bool = False,
    compiled: bool = False,
    off: Sequence[str] = (),
) -> Curve:
    """Train a copy of `start` on `steps`, without the optimisations `off`."""
    with disabled(*off):
        return _train(name, recipe, steps, start, precision, activation_checkpointing, compiled)


def _train(
    name: str,
    recipe: Recipe,
    steps: Sequence[Sequence[PackedBatch]],
    start: MultiTaskModel,
    precision: str,
    activation_checkpointing: bool,
    compiled: bool,
) -> Curve:
    model = MultiTaskModel(recipe.encoder, start.vocab_size, list(start.specs.values()), recipe.seed).train()
    model.load_state_dict(start.state_dict())
    model.encoder.activation_checkpointing = activation_checkpointing
    if compiled:
        model.compile_parts()
    weights = dict.fromkeys(model.specs, 1.0)
    settings = StepSettings(weights=weights, max_grad_norm=1.0, precision=precision, device=torch.device("cpu"))
    optimizer, losses, began = build_optimizer(model, recipe.train), [], time.monotonic()
    for number, packs in enumerate(steps, 1):
        batch = LocalBatch.of(packs, (recipe.seed, number))
        result = take_step(model, optimizer, batch, settings, 1e-3 * noam(number, len(steps), WARMUP, 0))
        losses.append(sum(float(total) / result.counts[task] for task, total in result.losses.items()))
    return Curve(name, recipe.seed, losses, time.monotonic() - began)


def largest_difference(one: Curve, other: Curve) -> float:
    """Return max over steps of |a - b| / a."""
    return max(abs(a - b) / a for a, b in zip(one.losses, other.losses, strict=True))


def ablation_curves(
    recipe: Recipe, packs: Sequence[Sequence[PackedBatch]], start: MultiTaskModel
) -> dict[str, dict[str, Curve]]:
    """Return by form (eager, compiled): trainings with all optimisations, without each one, and without any."""
    sets = {
        "all optimisations": (),
        **{f"without {name}": (name,) for name in OPTIMIZATIONS},
        "without any": tuple(OPTIMIZATIONS),
    }
    return {
        form: {
            name: train(f"{form}, {name}", recipe, packs, start, compiled=form == "compiled", off=off)
            for name, off in sets.items()
        }
        for form in ("eager", "compiled")
    }


def print_ablation(curves: Mapping[str, Mapping[str, Curve]], steps: int) -> None:
    """Print one row per optimisation."""
    table = Table(title=f"{steps} steps, fp32, against all optimisations: largest relative difference of the step loss")
    for column in ("without", "eager", "compiled"):
        table.add_column(column, justify="left" if column == "without" else "right")
    for name in list(curves["eager"])[1:]:
        differences = [largest_difference(curves[form]["all optimisations"], curves[form][name]) for form in curves]
        table.add_row(name, *(f"{difference:.1e}" for difference in differences))
    Console().print(table)


def last_mean(curve: Curve) -> float:
    """Return the mean loss of the last steps."""
    return sum(curve.losses[-LAST:]) / LAST


def picture(curves: Sequence[Curve]) -> str:
    """Return the curves as an SVG, one point per ten steps."""
    width, height, left, bottom = 720, 320, 48, 40
    colours = ("#1f4e79", "#c0504d", "#4f8f3a", "#8064a2", "#d98b1f")
    smooth = {c.name: [sum(c.losses[i : i + 10]) / 10 for i in range(0, len(c.losses) - 9, 10)] for c in curves}
    low = math.floor(min(min(points) for points in smooth.values()))
    high = math.ceil(max(max(points) for points in smooth.values()))
    steps = len(curves[0].losses)

    def x(step: float) -> float:
        return left + step / steps * (width - left - 12)

    def y(loss: float) -> float:
        return 12 + (high - loss) / (high - low) * (height - bottom - 12)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for loss in range(low, high + 1, max(1, (high - low) // 6)):
        parts.append(f'<path d="M{left} {y(loss):.1f}H{width - 12}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 8}" y="{y(loss) + 4:.1f}" text-anchor="end">{loss}</text>')
    parts.extend(
        f'<text x="{x(step):.1f}" y="{height - bottom + 18}" text-anchor="middle">{step}</text>'
        for step in range(0, steps + 1, max(1, steps // 4))
    )
    parts.append(f'<text x="{width / 2}" y="{height - 6}" text-anchor="middle">step (loss in nats, all tasks)</text>')
    for number, (name, points) in enumerate(smooth.items()):
        line = " ".join(f"{x(10 * i + 5):.1f},{y(loss):.1f}" for i, loss in enumerate(points))
        colour, wide = colours[number % len(colours)], 2 * (len(smooth) - number) - 0.5
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="{wide}"/>')
        parts.append(f'<text x="{width - 150}" y="{28 + 16 * number}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>\n"])


@reported_errors()
def main() -> None:
    """Train every variant and print tables."""
    parser = argparse.ArgumentParser(description="Training curves that must coincide.")
    parser.add_argument("--shards", type=Path, help="shards of demo-en; default: prepared in a temporary folder")
    parser.add_argument("--steps", type=count, default=200)
    parser.add_argument("--seeds", type=count, default=3, help="seeds for bf16 against fp32")
    parser.add_argument("--ablation-only", action="store_true", help="run only the ablation of optimisations")
    parser.add_argument("--json", type=output_file, help="also write curves and figures to this file")
    parser.add_argument("--picture", type=Path, help="also draw the curves of the first seed to this SVG")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as aside:
        folder = given.shards or Path(aside)
        if given.shards is None:
            ernie2.prepare("demo-en", [as_override("shards.folder", folder)])
        shards, steps = Shards(folder), given.steps
        recipe = recipe_of(folder, 0, steps)
        packs, start = batches(recipe, shards, steps)
        vocabulary_loss._MAX_CHUNK_ROWS["cpu"] = 96  # several chunks and tiles even for small packs
        by_form = ablation_curves(recipe, packs, start)
        print_ablation(by_form, steps)
        if given.ablation_only:
            return
        single = [[part for pack in step for part in split_pack(pack)] for step in packs]
        plain = replace(by_form["eager"]["all optimisations"], name="packed, eager, fp32")
        variants = [
            train("one sequence per pack", recipe, single, start),
            train("layers recomputed", recipe, packs, start, activation_checkpointing=True),
            replace(by_form["compiled"]["all optimisations"], name="compiled (inductor)"),
        ]
        pairs = [(plain, train("bf16", recipe, packs, start, precision="bf16"))]
        for seed in range(1, given.seeds):
            other = recipe_of(folder, seed, steps)
            packs, start = batches(other, shards, steps)
            runs = {
                precision: train(precision, other, packs, start, precision=precision) for precision in ("fp32", "bf16")
            }
            pairs.append((runs["fp32"], runs["bf16"]))
    table = Table(title=f"{steps} steps, fp32, against packed and eager: largest relative difference of the step loss")
    for column in ("variant", "difference", "seconds"):
        table.add_column(column, justify="left" if column == "variant" else "right")
    table.add_row(plain.name, "", f"{plain.seconds:.0f}")
    for curve in variants:
        table.add_row(curve.name, f"{largest_difference(plain, curve):.1e}", f"{curve.seconds:.0f}")
    Console().print(table)
    table = Table(title=f"bf16 against fp32: mean loss of the last {LAST} of {steps} steps")
    for column in ("seed", "fp32", "bf16", "difference"):
        table.add_column(column, justify="right")
    for exact, rough in pairs:
        means = last_mean(exact), last_mean(rough)
        table.add_row(str(exact.seed), f"{means[0]:.4f}", f"{means[1]:.4f}", f"{means[1] / means[0] - 1:+.2%}")
    Console().print(table)
    curves = [plain, *variants, pairs[0][1]]
    off = [curve for form in by_form.values() for curve in list(form.values())[1:]]
    if given.picture:
        given.picture.write_text(picture(curves), encoding="utf-8")
    if given.json:
        machine = {"processor": platform.processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}
        shown = [asdict(curve) for curve in (*curves, *(curve for pair in pairs[1:] for curve in pair), *off)]
        given.json.write_text(json.dumps({**machine, "curves": shown}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
