"""Commands from a checkpoint to scores and back to texts: finetune, predict, export."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Literal

import typer

import ernie2
from ernie2.cli.app import HOOK, advise_on_interrupt, app, print_results
from ernie2.console import log_result, print_line
from ernie2.errors import Ernie2Error
from ernie2.escaping import json_line

HeadKind = Literal["classification", "regression", "multi_label", "tagging", "span"]
"""What can be put on an encoder."""

CHECKPOINT = typer.Argument(metavar="CHECKPOINT", help="A run, a Hugging Face folder (BERT, ERNIE), or a Paddle model.")
CHANGES = typer.Argument(metavar="KEY=VALUE", help="Settings in place of the paper's: epochs=2.", show_default=False)
DATASET = typer.Option(help="A set, such as mrpc or msra_ner, or a group: glue, chinese.", show_default=False)
DATA = typer.Option(help="The folder that holds it, as published or from the Hub.", show_default=False)
TRAIN = typer.Option(help="A file of your own, or of the set.", show_default=False)
DEV = typer.Option(help="What to measure on.", show_default=False)
TEST = typer.Option(help="Measured too where it has labels.", show_default=False)
FILE = typer.Option(metavar="SPLIT=PATH", help="Any split of a set.", show_default=False)
TEXT = typer.Option(metavar="A[,B]", help="One or two columns of your own files.")
LABEL = typer.Option(help="The column of the label.")
HEAD = typer.Option(help="The kind of task, where the guess is wrong.", show_default="guessed")
SCHEME = typer.Option(help="Tag scheme: IOB2, BIOES …, none.", show_default="that of the tags")
SEEDS = typer.Option(min=1, max=1_000, help="Runs.", show_default="5; 1 for your own files")
SETTINGS = typer.Option(metavar="KEY=VALUE", help="As the argument of that form.", show_default=False)
TASK_ID = typer.Option(help="Task id: a task's name, or a row.", show_default="the paper's, mostly 0")
TOKENIZER = typer.Option(help="A tokenizer.json or vocab.txt.", show_default="that beside CHECKPOINT")
OUT = typer.Option(help="Folder for results and models.", show_default="finetuned/CHECKPOINT")
SUBMISSION = typer.Option(metavar="FILE.zip", help="Of glue: a zip for its server.", show_default=False)
PARALLEL = typer.Option(min=1, max=1_024, help="Runs side by side.", show_default="one a GPU, 1 on a CPU")
AGAIN = "run the same command to continue; the interrupted seed restarts, finished seeds are skipped."


def _files(train: str | None, dev: str | None, test: str | None, named: list[str] | None) -> dict[str, str]:
    files = {split: path for split, path in (("train", train), ("dev", dev), ("test", test)) if path is not None}
    for one in named or ():
        split, equals, path = one.partition("=")
        if not (split and equals and path):
            raise Ernie2Error(f"--file {one!r} is not a SPLIT=PATH, such as dev_matched=dev.tsv.")
        files[split] = path
    return files


@app.command()
def finetune(
    checkpoint: Annotated[Path, CHECKPOINT],
    overrides: Annotated[list[str] | None, CHANGES] = None,
    dataset: Annotated[str | None, DATASET] = None,
    data: Annotated[str | None, DATA] = None,
    train: Annotated[str | None, TRAIN] = None,
    dev: Annotated[str | None, DEV] = None,
    test: Annotated[str | None, TEST] = None,
    file: Annotated[list[str] | None, FILE] = None,
    text: Annotated[str, TEXT] = "text",
    label: Annotated[str, LABEL] = "label",
    head: Annotated[HeadKind | None, HEAD] = None,
    scheme: Annotated[str | None, SCHEME] = None,
    seeds: Annotated[int | None, SEEDS] = None,
    settings: Annotated[list[str] | None, SETTINGS] = None,
    task_id: Annotated[str | None, TASK_ID] = None,
    tokenizer: Annotated[str | None, TOKENIZER] = None,
    out: Annotated[Path | None, OUT] = None,
    submission: Annotated[Path | None, SUBMISSION] = None,
    parallel: Annotated[int | None, PARALLEL] = None,
    hooks: Annotated[list[str] | None, HOOK] = None,
) -> None:
    """Fine-tune a checkpoint on labelled data and score it, several seeds in one command.

    Declared sets take the paper's settings for a model of this size; files of
    your own are guessed and told. Finished seeds are skipped.

    Reads    CHECKPOINT, and DATA or your files
    Writes   OUT/SET/seed-0/model …, which transformers loads, OUT/results.html
    Example  [bold]ernie2 finetune my-run --dataset mrpc --data glue_data --seeds 5[/bold]
             [bold]ernie2 finetune my-run --train a.tsv --dev b.tsv --label y[/bold]
    """
    pairs = [part for one in (*(settings or ()), *(overrides or ())) for part in one.split()]
    with advise_on_interrupt(lambda: AGAIN):
        made = ernie2.finetune(
            checkpoint,
            dataset,
            data,
            files=_files(train, dev, test, file),
            text=text,
            label=label,
            head=head,
            scheme=scheme,
            seeds=seeds,
            settings=pairs,
            task_id=task_id,
            out=out,
            submission=submission,
            tokenizer=tokenizer,
            parallel=parallel,
            hooks=hooks or (),
        )
    first = next(iter(made.models.values()))[0]
    print_results(
        {"results": made.folder / "results.html", "model": first},
        f"ernie2 predict {first} FILE",
        f"ernie2 export {first} my-onnx",
    )


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A folder that `finetune` left: …/seed-0/model.")],
    source: Annotated[str, typer.Argument(metavar="FILE", help="A table, a .txt of lines, or - for standard input.")],
    text: Annotated[
        str | None, typer.Option(metavar="A[,B]", help="The columns to read.", show_default="those of training")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write there instead.", show_default="standard output")] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Overwrite OUT even where it holds no predictions.")
    ] = False,
) -> None:
    """Ask a fine-tuned model; one JSON object a text: label, probabilities.

    Tags come with their entities, answers with their place in the context.

    Reads    MODEL and FILE, or a text a line (two with a tab) from a pipe
    Writes   JSON lines on standard output, or in OUT
    Example  [bold]echo "What a film." | ernie2 predict tuned/sst2/seed-0/model -[/bold]
    """
    if out is None and isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="strict")  # JSON is UTF-8 whatever the locale
    given = getattr(sys.stdin, "buffer", sys.stdin) if source == "-" else source
    for one in ernie2.predict(model, given, text, out, replace=replace):
        if out is None:
            print_line(json_line(one))
    if out is not None:
        log_result(f"\npredictions: {out}")


@app.command()
def export(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A fine-tuned model, or any checkpoint, for its bare encoder.")
    ],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="The folder to write; it must not exist.")],
    task_id: Annotated[
        str | None, typer.Option(help="Of a bare encoder: the task id to bake in.", show_default="0")
    ] = None,
) -> None:
    r"""Write a model as ONNX, checked against torch before it is kept.

    Batch and length are dynamic; inputs are input_ids, attention_mask and
    token_type_ids. Needs the extra onnx:
    pip install -c constraints.txt -e '.\[onnx]' in the ernie2 checkout.

    Reads    MODEL
    Writes   DST/model.onnx with tokeniser and config.json
    Example  [bold]ernie2 export finetuned/my-run/mrpc/seed-0/model mrpc-onnx[/bold]
    """
    made = ernie2.export(model, destination, task_id)
    print_results(
        {"model": made.folder}, f'onnxruntime.InferenceSession("{made.folder / "model.onnx"}")      in Python'
    )
