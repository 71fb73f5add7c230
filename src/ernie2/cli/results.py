"""Commands about a trained model: evaluate, report, convert."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import ernie2
from ernie2.cli.app import app, print_results
from ernie2.console import log_result
from ernie2.formatting import quantity
from ernie2.learned import BASELINES, verdict_of


@app.command()
def evaluate(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="A run, or a folder with heads of ours (RUN/hf).")
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="A folder of shards; their held-out documents are used.", show_default="those of the run"),
    ] = None,
) -> None:
    """Measure every task on held-out documents, beside three baselines.

    Reads    CHECKPOINT and the held-out documents of the shards
    Leaves   nothing
    Example  [bold]ernie2 evaluate runs/b --data my-shards[/bold]
    """
    show_figures(ernie2.evaluate(checkpoint, data))


@app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, finished or not.")],
    beside: Annotated[
        list[Path] | None,
        typer.Option(help="Another run to show beside it; may be given several times.", show_default=False),
    ] = None,
) -> None:
    """Write the report of a run anew: schedule, losses, held-out metrics, the forgetting matrix.

    With --beside, also what each task kept: runs that differ in nothing but
    the seed are one column, with a 95 % interval over the seeds.

    Reads    run.json and metrics.jsonl in RUN and each of the others
    Leaves   RUN/report.html, one file that needs no network
    Example  [bold]ernie2 report runs/b[/bold]
    """
    page = ernie2.report(run, beside or ())
    print_results({"report": page}, f"open {page} in a browser")


@app.command()
def convert(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="A run, a Hugging Face folder (BERT, ERNIE), or a Paddle model.")
    ],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="The folder to write; it must not exist.")],
    to: Annotated[
        Literal["hf", "ernie2"], typer.Option(help="hf: transformers loads it. ernie2: all by our own names.")
    ] = "hf",
    task_ids: Annotated[int | None, typer.Option(min=1, help="Rows of the task table.", show_default="as is")] = None,
    segment_types: Annotated[
        int | None, typer.Option(min=1, help="Rows of the segment-type table.", show_default="as is")
    ] = None,
    position_rows: Annotated[
        int | None, typer.Option(min=16, help="Rows of the position table.", show_default="as is")
    ] = None,
    vocabulary: Annotated[
        int | None,
        typer.Option(min=1, help="Rows of the word table; fewer only beyond the last token.", show_default="as is"),
    ] = None,
) -> None:
    """Turn a checkpoint into a Hugging Face folder or one of ours, and say what became of every tensor.

    Weights are read without running anything a file may contain, and written
    bit for bit; what SRC lacks is named and not made up.

    Reads    SRC: model.safetensors or pytorch_model.bin, whole or sharded; a
             *.pdparams; a folder with one Paddle variable a file; a run
    Leaves   DST with weights, configuration and tokeniser
    Example  [bold]ernie2 convert ERNIE_1.0_max-len-512 ernie-hf --vocabulary 17964[/bold]
    """
    made = ernie2.convert(source, destination, to, task_ids, segment_types, position_rows, vocabulary)
    steps = [f"ernie2 pretrain RECIPE --init-from {destination}"]
    if to == "hf":
        steps.append(f'transformers.ErnieModel.from_pretrained("{destination}")      in Python')
    print_results({"model": made.folder}, *steps)


def show_figures(figures: Mapping[str, Mapping[str, Any]]) -> None:
    """Print of every task its accuracy with its interval, the baselines, and whether it is learned."""
    for name, f in figures.items():
        interval = f"{f['accuracy']:.3f} ({f['low']:.3f} to {f['high']:.3f})"
        baselines = ", ".join(f"{title} {f[key]['accuracy']:.3f}" for key, title in BASELINES.items())
        log_result(
            f"{name}: accuracy {interval}, loss {f['loss']:.3f} "
            f"({quantity(f['instances'], 'instance')}, {f['scored']:,} scored)"
        )
        log_result(f"  baselines: {baselines} ({f['cheap']['rule']})")
        log_result(f"  {verdict_of(f).reason}")
