"""Commands about checkpoints: convert."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

import ernie2
from ernie2.cli.app import app
from ernie2.cli.shared import finished


class Kind(StrEnum):
    """What `convert` can write."""

    hf = "hf"
    ernie2 = "ernie2"


@app.command()
def convert(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="A run, a Hugging Face folder (BERT, ERNIE), or a Paddle model.")
    ],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="The folder to write; it must not exist.")],
    to: Annotated[Kind, typer.Option(help="hf: transformers loads it. ernie2: all by our own names.")] = Kind.hf,
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
    made = ernie2.convert(source, destination, to.value, task_ids, segment_types, position_rows, vocabulary)
    step = f"ernie2 pretrain RECIPE --init-from {destination}"
    if to is Kind.hf:
        finished(
            {"model": made.folder}, step, f'transformers.ErnieModel.from_pretrained("{destination}")      in Python'
        )
    else:
        finished({"model": made.folder}, step)
