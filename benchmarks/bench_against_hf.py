"""`ernie2 bench` compared with Hugging Face: steps of a recipe and of `ErnieForMaskedLM` on the same instances.

    python benchmarks/bench_against_hf.py [RECIPE] [OVERRIDES …] [--against hf] [--steps 30] [--json bench.jsonl]

Measures, prints and writes the same as `ernie2 bench RECIPE`, with steps of transformers alternating with ours.
docs/bench.md explains the figures and the values of --against. Every side trains 24 to 64 warm-up steps if nothing is
compiled, and then --steps: `--steps 2` trains at least 26 steps per side. Run nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

import ernie2
from comparisons.hf_sides import measure_with_hf
from comparisons.hugging_face import SIDES, chosen_sides, require_hugging_face
from comparisons.process_settings import restart_with_variables
from ernie2.cli.measuring import show_measurement
from ernie2.console import log_result, terminal_output
from ernie2.errors import ConfigError, Ernie2Error
from ernie2.runs.recipes import load_recipe


def main() -> int:
    """Compare a recipe with Hugging Face; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", nargs="?", default="demo-en", help="recipe file, or name of a shipped recipe")
    parser.add_argument("overrides", nargs="*", help="recipe values, such as train.precision=bf16")
    sides = f"hf (the default): all that suit the device; or some of {','.join(SIDES)}"
    parser.add_argument("--against", default="hf", help=sides)
    steps = "measured steps per side, after 24 to 64 warm-up steps; default: %(default)s"
    parser.add_argument("--steps", type=int, default=30, help=steps)
    parser.add_argument("--sequences", type=int, help="initial maximum of sequences per batch of Hugging Face")
    file = "file for one line per measurement; default: %(default)s"
    parser.add_argument("--json", type=Path, default=Path("bench.jsonl"), help=file)
    given = parser.parse_intermixed_args()
    with terminal_output():
        try:
            line = bench(given)
        except Ernie2Error as error:
            print(f"{error.heading}: {error}", file=sys.stderr)
            return error.exit_code
        show_measurement(line)
        print_comparison(line)
    return 0


def bench(given: argparse.Namespace) -> dict[str, Any]:
    """Run the measurement; return the summary.

    Raises `ConfigError` for an unknown side, fewer than one sequence, or if transformers is missing.
    """
    if given.sequences is not None and given.sequences < 1:
        raise ConfigError(f"--sequences {given.sequences}: must be at least 1.")
    sides = chosen_sides(given.against, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    require_hugging_face(load_recipe(given.recipe, given.overrides).encoder)
    beside = partial(measure_with_hf, names=sides, sequences=given.sequences)
    return ernie2.bench(given.recipe, given.overrides, given.steps, given.json, beside)


def print_comparison(line: Mapping[str, Any]) -> None:
    """Print a table; a ratio is our real tokens/s over theirs on the same instances."""
    against = line["against"]
    log_result(f"\nOn the same instances, alternating: {against['library']}, {line['precision']}")
    head = ("", "tokens/s", "real share", "memory", "warm-up", "ours / theirs", "where tokens are masked")
    rows = [head, _row("ernie2", line["step"])]
    rows += [_row(side["name"], side) for side in against["sides"]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        log_result("  " + "  ".join([name.ljust(widths[0]), *map(str.rjust, cells, widths[1:])]))
    log_result("  Hugging Face trains only masked tokens, in every step; ernie2 trains all tasks of the step.")


def _row(name: str, side: Mapping[str, Any]) -> tuple[str, ...]:
    memory = f"{side['memory_bytes'] / 2**30:.1f} GiB" if side["memory_bytes"] else "–"
    ratios = [side.get(key) for key in ("ratio", "ratio_where_masked")]
    shown = ["–" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
    rate, real, warm_up = f"{side['tokens_per_second']:,.0f}", f"{side['real_share']:.0%}", side["warm_up_steps"]
    return (name, rate, real, memory, f"{warm_up} steps", *shown)


if __name__ == "__main__":
    restart_with_variables()
    sys.exit(main())
