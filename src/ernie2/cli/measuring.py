"""Commands that measure: bench."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import ernie2
from ernie2.cli.app import app
from ernie2.cli.shared import OVERRIDES, finished, when_interrupted


@app.command()
def bench(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A YAML file, or the name of a shipped recipe.")
    ] = "demo-en",
    overrides: Annotated[list[str] | None, OVERRIDES] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps to measure, after a warm-up.")] = 30,
    json_file: Annotated[
        Path, typer.Option("--json", help="The file that gets a line of JSON for every measurement, and a summary.")
    ] = Path("bench.jsonl"),
) -> None:
    """Measure how fast a recipe trains here: tokens/s, MFU, memory, what feeds it.

    Trains for a while on the recipe's real stream with all its tasks and
    keeps nothing of it. Padding is never counted.

    Reads    the shards of RECIPE, which are made where there are none
    Leaves   a line of JSON a measurement in bench.jsonl (--json), then one that sums up
    Example  [bold]ernie2 bench my-recipe.yaml train.precision=bf16[/bold]
    """
    with when_interrupted(lambda: "what was measured is in " + str(json_file) + "; the same command starts again."):
        ernie2.bench(recipe, overrides or (), steps, json_file)
    finished({"figures": json_file}, "give the same command after a change: the summaries in one file compare")
