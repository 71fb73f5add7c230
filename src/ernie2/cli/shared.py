"""What commands share: what they take, how they end, and what they say then."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import typer

from ernie2.cli.app import INTERRUPTED
from ernie2.console import answer, say, show, warn

RECIPE = typer.Argument(metavar="RECIPE", help="A YAML file, or the name of a shipped recipe (`ernie2 recipes`).")
OVERRIDES = typer.Argument(
    metavar="KEY=VALUE", help="Values that replace those of the recipe, such as train.peak_lr=3e-4.", show_default=False
)
HOOK = typer.Option(
    "--hook",
    metavar="NAME|MODULE:CLASS",
    help="Code of yours that takes part: the name of an installed hook, or a class. May be given several times.",
    show_default=False,
)
WORKERS = typer.Option(min=1, max=1_024, help="Processes that make shards.", show_default="all cores")


def after_run(run: Path) -> tuple[str, ...]:
    steps = [f"open {run / 'report.html'} in a browser"]
    if (run / "hf" / "config.json").exists():  # not so for recurrent encoders
        steps.append(f'transformers.ErnieModel.from_pretrained("{run / "hf"}")      in Python')
    return tuple(steps)


@contextmanager
def when_interrupted(advice: Callable[[], str]) -> Iterator[None]:
    """Ctrl-C inside ends the command with what to do now instead of a traceback."""
    try:
        yield
    except KeyboardInterrupt:
        warn(f"\ninterrupted: {advice()}")
        raise typer.Exit(INTERRUPTED) from None


def finished(results: Mapping[str, Path], *steps: str) -> None:
    """Says where the results are and what to do next; of many ranks under torchrun the first does."""
    if os.environ.get("RANK", "0") != "0":
        return
    answer()
    columns([(f"{name}:", str(path)) for name, path in results.items()], answer)
    next_steps(*steps)


def next_steps(*steps: str) -> None:
    say("\nnext:")
    for step in steps:
        say(f"  {step}")


def columns(rows: Iterable[tuple[str, ...]], write: Callable[[str], None] = show) -> None:
    """Write rows so that their cells stand below each other."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
