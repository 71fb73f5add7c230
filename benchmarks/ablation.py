"""Speed of each optimisation of the model: training steps with all optimisations and without one, alternating.

    python benchmarks/ablation.py SHARDS [OVERRIDES …] --optimizations a,b --rounds 5 --precision bf16
    python benchmarks/ablation.py my-recipe.yaml [OVERRIDES …]

SHARDS is a folder written by `ernie2 prepare`. The encoder then has 6 layers × 384 and a step 4,096 tokens, in
sequences of up to 512, unless overrides such as encoder.layers=12 change it. A recipe keeps its own sizes.

Steps are complete training steps (forward, backward, clipping, optimiser) on the real stream. Every variant trains on
the same packs in every round, after 24 to 64 warm-up steps each if nothing is compiled. "without / with" is the time of
a step without the optimisation over the time with it: the median over rounds, with the smallest and largest in
brackets. Run nothing else meanwhile.

`ernie2.model.optimizations` lists the optimisations. By default each one is turned off by itself, then all together;
`--optimizations none` measures the step as it is. With --json every step is written as one line as soon as it is
measured.
"""

from __future__ import annotations

import argparse
import platform
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from comparisons.ablation import Variant, VariantTimes, ablation_variants, slowdown, time_variants
from comparisons.script import count, output_file, reported_errors
from comparisons.shards_recipe import FOUR_TASKS, recipe_of_shards
from ernie2.benchmarking.mix import MeasuredStep
from ernie2.console import log_result, progress, terminal_output
from ernie2.model.optimizations import OPTIMIZATIONS
from ernie2.runs.prepare import prepare_shards
from ernie2.runs.recipes import load_recipe
from ernie2.shards.store import Shards
from ernie2.storage.line_files import append_line
from ernie2.training.measuring import TaskSet
from ernie2.training.step import choose_precision

SIZE = (
    "encoder.layers=6",
    "encoder.hidden=384",
    "encoder.heads=6",
    "batch.batch_tokens=4096",
    "batch.pack_tokens=4096",
)


def chosen_optimizations(given: str | None) -> list[str]:
    """Return the optimisations named in `given`, or all for None; exit with a message for an unknown name."""
    if given is None:
        return list(OPTIMIZATIONS)
    names = [name for name in given.split(",") if name and name != "none"]
    if unknown := [name for name in names if name not in OPTIMIZATIONS]:
        sys.exit(f"unknown optimisation: {', '.join(unknown)}; choose from {', '.join(OPTIMIZATIONS)}")
    return names


def rows_of(times: Sequence[VariantTimes], counts: Mapping[TaskSet, int]) -> list[dict[str, Any]]:
    """Return one row per variant: tokens/s in the plan's mix, and without / with, overall and by task set."""
    rows = []
    for each in times:
        rates = each.steps.rates(counts)
        assert rates is not None
        ratios = {"the plan's mix": slowdown(times[0], each, counts)}
        ratios |= {" + ".join(chosen.active): slowdown(times[0], each, counts, chosen) for chosen in times[0].rounds[0]}
        rows.append(
            {
                "form": each.form.name,
                "off": list(each.form.off),
                "tokens_per_second": rates.tokens_per_second,
                "median_seconds": rates.median_seconds,
                "without_over_with": {name: [r.median, r.least, r.most] for name, r in ratios.items()},
                "seconds": {
                    " + ".join(chosen.active): [round(done[chosen], 4) for done in each.rounds]
                    for chosen in times[0].rounds[0]
                },
            }
        )
    return rows


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print one line per variant for the plan's mix, then one per task set."""
    print(f"{'':40} {'tokens/s':>9}  without / with")
    for row in rows:
        (mix, *by_set) = row["without_over_with"].items()
        print(f"{row['form']:40} {row['tokens_per_second']:>9,.0f}  {_shown(mix[1])}")
        if row["off"]:
            for name, ratio in by_set:
                print(f"    {_shown(ratio)}  {name}")


def print_round(times: Sequence[VariantTimes], counts: Mapping[TaskSet, int]) -> None:
    """Log without / with of every variant for the last round, so that an interrupted run has shown it."""
    last = [VariantTimes(each.form, rounds=each.rounds[-1:]) for each in times]
    ratios = [f"{each.form.name} {slowdown(last[0], each, counts).median:.3f}" for each in last[1:]]
    log_result(f"round {len(times[0].rounds)}, without / with: {', '.join(ratios) or 'no variant to compare with'}")


def _shown(ratio: Sequence[float]) -> str:
    return f"{ratio[0]:.3f} ({ratio[1]:.3f} to {ratio[2]:.3f})"


@reported_errors()
def main() -> None:
    """Run the measurement and print a table."""
    named = "\n".join(f"  {name:26}{what}" for name, what in OPTIMIZATIONS.items())
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog=f"optimisations:\n{named}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", help="a folder of shards, a recipe file, or the name of a shipped recipe")
    parser.add_argument("overrides", nargs="*", help="values of the recipe, such as encoder.layers=12")
    parser.add_argument("--optimizations", help="comma-separated names, or none; default: all")
    parser.add_argument("--rounds", type=count, default=5, help="rounds to measure; default: %(default)s")
    steps = "task sets per round, most frequent first; default: %(default)s"
    parser.add_argument("--steps", type=count, default=4, help=steps)
    tasks = "tasks, if the source is a folder of shards; default: %(default)s"
    parser.add_argument("--tasks", default=",".join(FOUR_TASKS), help=tasks)
    precision = "auto is bf16 if the device supports it; default: %(default)s"
    parser.add_argument("--precision", default="auto", choices=["auto", "bf16", "fp16", "fp32"], help=precision)
    parser.add_argument("--json", type=output_file, help="append one line per step and a summary to this file")
    given = parser.parse_intermixed_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    overrides = [f"train.precision={given.precision}", *given.overrides]
    if (Path(given.source) / "shards.json").exists():
        recipe = recipe_of_shards(given.source, [*SIZE, *overrides], given.tasks.split(","))
        shards = Shards(given.source)
    else:
        recipe = load_recipe(given.source, overrides)
        shards = prepare_shards(recipe, None)
    measured = ablation_variants(chosen_optimizations(given.optimizations))
    began, identity = time.monotonic(), secrets.token_hex(4)
    precision = choose_precision(recipe.train.precision, device)

    def write(what: str, **facts: object) -> None:
        if given.json:
            append_line(given.json, {"ablation": identity, "what": what, **facts})

    def note(form: Variant, chosen: TaskSet, step: MeasuredStep) -> None:
        write("step", form=form.name, **asdict(chosen), **asdict(step))

    facts = {"machine": platform.machine(), "torch": torch.__version__, "threads": torch.get_num_threads()}
    facts |= {"precision": precision, "recipe": recipe.model_dump(mode="json"), "rounds": given.rounds}
    write("begin", **facts)
    with terminal_output(), progress("Measuring", None, "steps") as bar:
        times, counts = time_variants(
            recipe,
            shards,
            device,
            measured,
            steps=given.steps,
            rounds=given.rounds,
            note=note,
            advance=lambda what: bar.advance(note=what),
            after_round=print_round,
        )
    rows = rows_of(times, counts)
    encoder = recipe.encoder
    print(
        f"{encoder.layers} layers × {encoder.hidden}, {recipe.batch.batch_tokens:,} tokens a step, {precision}, "
        f"{device.type}, {torch.get_num_threads()} threads, torch {torch.__version__}; {given.rounds} rounds of "
        f"{len(times[0].rounds[0])} of {len(counts)} task sets; {time.monotonic() - began:.0f} s"
    )
    print_table(rows)
    write("summary", **facts, forms=rows)


if __name__ == "__main__":
    main()
