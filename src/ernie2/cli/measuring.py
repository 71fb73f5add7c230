"""Commands that measure: bench."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

import ernie2
from ernie2.cli.app import app
from ernie2.cli.console import OVERRIDES, finished, when_interrupted


class Opponent(StrEnum):
    """Whom `bench` can compare with."""

    hf = "hf"


@app.command()
def bench(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A YAML file, or the name of a shipped recipe.")
    ] = "demo-en",
    overrides: Annotated[list[str] | None, OVERRIDES] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps to measure, after a warm-up.")] = 30,
    against: Annotated[
        Opponent | None,
        typer.Option(help="hf: Hugging Face transformers on the same instances, in turns.", show_default=False),
    ] = None,
    json_file: Annotated[Path, typer.Option("--json", help="The file that gets one line of JSON more.")] = Path(
        "bench.jsonl"
    ),
) -> None:
    """Measure how fast a recipe trains here: tokens/s, MFU, memory, what feeds it; beside Hugging Face.

    Trains for a while on the recipe's real stream with all its tasks and
    keeps nothing of it. Padding is never counted.

    Reads    the shards of RECIPE, which are made where there are none
    Leaves   one line more in bench.jsonl (--json)
    Example  [bold]ernie2 bench my-recipe.yaml train.precision=bf16 --against hf[/bold]
    """
    with when_interrupted(lambda: "nothing was written; the same command starts again."):
        ernie2.bench(recipe, overrides or (), steps, None if against is None else against.value, json_file)
    finished({"figures": json_file}, "give the same command after a change: the lines of one file compare")
