"""Commands for trained models: evaluate, report, convert."""

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
        Path, typer.Argument(metavar="CHECKPOINT", help="A run, or a Hugging Face folder with task heads (RUN/hf).")
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="A folder of shards with held-out documents.", show_default="that of the run"),
    ] = None,
) -> None:
    """Evaluate every task on held-out documents and compare with three baselines.

    Reads    CHECKPOINT and the held-out documents of the shards
    Writes   nothing
    Example  [bold]ernie2 evaluate runs/b --data my-shards[/bold]
    """
    show_figures(ernie2.evaluate(checkpoint, data))


@app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, finished or not.")],
    compare: Annotated[
        list[Path] | None,
        typer.Option(help="Another run to compare with. Can be repeated.", show_default=False),
    ] = None,
) -> None:
    """Write the report of a run: schedule, losses, held-out metrics, forgetting.

    With --compare, it also compares the forgetting of several runs. Runs that
    differ only in the seed share a column, with a 95 % interval over seeds.

    Reads    run.json and metrics.jsonl in RUN and the other runs
    Writes   RUN/report.html, one file that needs no network
    Example  [bold]ernie2 report runs/b[/bold]
    """
    page = ernie2.report(run, compare or ())
    print_results({"report": page}, f"open {page} in a browser")


@app.command()
def convert(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="A run, a Hugging Face folder (BERT, ERNIE), or a Paddle model.")
    ],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="The folder to write; it must not exist.")],
    to: Annotated[
        Literal["hf", "ernie2"], typer.Option(help="Format: hf for transformers, or ernie2 with all tensors.")
    ] = "hf",
    task_ids: Annotated[
        int | None, typer.Option(min=1, help="Rows of the task embedding.", show_default="unchanged")
    ] = None,
    segment_types: Annotated[
        int | None, typer.Option(min=1, help="Rows of the segment-type table.", show_default="unchanged")
    ] = None,
    position_rows: Annotated[
        int | None, typer.Option(min=16, help="Rows of the position table.", show_default="unchanged")
    ] = None,
    vocabulary: Annotated[
        int | None,
        typer.Option(min=1, help="Rows of the token embedding, at least one per token.", show_default="unchanged"),
    ] = None,
) -> None:
    """Convert a checkpoint to the Hugging Face or ernie2 format, and list every tensor.

    Weights are read without executing code in the file, and written bit for
    bit. Tensors that SRC lacks are listed and not initialised.

    Reads    SRC: model.safetensors or pytorch_model.bin, one file or sharded;
             a *.pdparams; a folder with one Paddle variable per file; a run
    Writes   DST with weights, configuration and tokeniser
    Example  [bold]ernie2 convert ERNIE_1.0_max-len-512 ernie-hf --vocabulary 17964[/bold]
    """
    result = ernie2.convert(source, destination, to, task_ids, segment_types, position_rows, vocabulary)
    steps = [f"ernie2 pretrain RECIPE --init-from {destination}"]
    if to == "hf":
        steps.append(f'transformers.ErnieModel.from_pretrained("{destination}")      in Python')
    print_results({"model": result.folder}, *steps)


def show_figures(figures: Mapping[str, Mapping[str, Any]]) -> None:
    """Print each task's accuracy with its interval, the baselines, and the verdict."""
    for name, f in figures.items():
        interval = f"{f['accuracy']:.3f} ({f['low']:.3f} to {f['high']:.3f})"
        baselines = ", ".join(f"{title} {f[key]['accuracy']:.3f}" for key, title in BASELINES.items())
        log_result(
            f"{name}: accuracy {interval}, loss {f['loss']:.3f} "
            f"({quantity(f['instances'], 'instance')}, {f['scored']:,} scored positions)"
        )
        log_result(f"  baselines: {baselines} ({f['feature_baseline']['feature']})")
        log_result(f"  {verdict_of(f).reason}")
