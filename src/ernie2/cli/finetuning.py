"""Commands on fine-tuned models: finetune, predict, export."""

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
"""Kinds of tasks; each has its own head."""

CHECKPOINT = typer.Argument(metavar="CHECKPOINT", help="A run, a Hugging Face folder (BERT, ERNIE) or a Paddle model.")
CHANGES = typer.Argument(metavar="KEY=VALUE", help="Settings to override, such as epochs=2.", show_default=False)
DATASET = typer.Option(help="A dataset, such as mrpc or msra_ner, or a group: glue, chinese.", show_default=False)
DATA = typer.Option(help="Folder of the dataset, as published or from the Hub.", show_default=False)
TRAIN = typer.Option(help="Training file: your own, or of the dataset.", show_default=False)
DEV = typer.Option(help="Development file, to score on.", show_default=False)
TEST = typer.Option(help="Test file; scored too if it has labels.", show_default=False)
FILE = typer.Option(metavar="SPLIT=PATH", help="File of any split of the dataset.", show_default=False)
TEXT = typer.Option(metavar="A[,B]", help="Text columns of your own files, one or two.")
LABEL = typer.Option(help="Label column of your own files.")
HEAD = typer.Option(help="Kind of task.", show_default="detected from the labels")
SCHEME = typer.Option(help="Tag scheme: IOB2, BIOES …, none.", show_default="detected")
SEEDS = typer.Option(min=1, max=1_000, help="Number of runs.", show_default="5; 1 for your own files")
SETTINGS = typer.Option(metavar="KEY=VALUE", help="Same as the argument KEY=VALUE.", show_default=False)
TASK_ID = typer.Option(help="Task id: a task's name or a row.", show_default="the paper's, mostly 0")
TOKENIZER = typer.Option(help="A tokenizer.json or vocab.txt.", show_default="from CHECKPOINT")
OUT = typer.Option(help="Folder for results and models.", show_default="finetuned/CHECKPOINT")
SUBMISSION = typer.Option(
    metavar="FILE.zip", help="Write a zip for the GLUE server; needs --dataset glue.", show_default=False
)
PARALLEL = typer.Option(min=1, max=1_024, help="Number of parallel runs.", show_default="one per GPU, 1 on a CPU")
CONTINUE_ADVICE = "run the same command to continue; the interrupted seed restarts, finished seeds are skipped."


def _files(train: str | None, dev: str | None, test: str | None, named: list[str] | None) -> dict[str, str]:
    files = {split: path for split, path in (("train", train), ("dev", dev), ("test", test)) if path is not None}
    for one in named or ():
        split, equals, path = one.partition("=")
        if not (split and equals and path):
            raise Ernie2Error(f"--file {one!r}: expected SPLIT=PATH, such as dev_matched=dev.tsv.")
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
    """Fine-tune a checkpoint on labelled data and score it, with several seeds.

    With --dataset, the paper's settings for the model size are used. For your own
    files the kind of task is detected and shown. Finished seeds are skipped.

    Reads    CHECKPOINT, and DATA or your files
    Writes   OUT/DATASET/seed-0/model … for transformers, OUT/results.html
    Example  [bold]ernie2 finetune my-run --dataset mrpc --data glue_data --seeds 5[/bold]
             [bold]ernie2 finetune my-run --train a.tsv --dev b.tsv --label y[/bold]
    """
    pairs = [part for one in (*(settings or ()), *(overrides or ())) for part in one.split()]
    with advise_on_interrupt(lambda: CONTINUE_ADVICE):
        result = ernie2.finetune(
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
    first = next(iter(result.models.values()))[0]
    print_results(
        {"results": result.folder / "results.html", "model": first},
        f"ernie2 predict {first} FILE",
        f"ernie2 export {first} my-onnx",
    )


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A folder that `finetune` wrote: …/seed-0/model.")],
    source: Annotated[str, typer.Argument(metavar="FILE", help="A table, a .txt of lines, or - for standard input.")],
    text: Annotated[
        str | None, typer.Option(metavar="A[,B]", help="Text columns to read.", show_default="as in training")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Output file.", show_default="standard output")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite OUT even if it holds other data.")] = False,
) -> None:
    """Predict texts with a fine-tuned model; one JSON object per text.

    Tags come with their entities, answers with their position in the context.

    Reads    MODEL and FILE; in a .txt, a tab separates the two texts of a pair
    Writes   JSON lines on standard output, or in OUT
    Example  [bold]echo "What a film." | ernie2 predict out/sst2/seed-0/model -[/bold]
    """
    if out is None and isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="strict")  # JSON is UTF-8 whatever the locale
    file = getattr(sys.stdin, "buffer", sys.stdin) if source == "-" else source
    for one in ernie2.predict(model, file, text, out, replace=replace):
        if out is None:
            print_line(json_line(one))
    if out is not None:
        log_result(f"\npredictions: {out}")


@app.command()
def export(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A fine-tuned model, or any checkpoint, to export its encoder.")
    ],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="Folder to write; must not exist.")],
    task_id: Annotated[
        str | None, typer.Option(help="Task id of the encoder, for a checkpoint.", show_default="0")
    ] = None,
) -> None:
    r"""Export a model to ONNX and check its outputs against torch.

    Batch and length are dynamic; the inputs are input_ids, attention_mask and
    token_type_ids. Needs the extra onnx:
    pip install -c constraints.txt -e '.\[onnx]' in the ernie2 checkout.

    Reads    MODEL
    Writes   DST/model.onnx with tokeniser and config.json
    Example  [bold]ernie2 export finetuned/my-run/mrpc/seed-0/model mrpc-onnx[/bold]
    """
    result = ernie2.export(model, destination, task_id)
    print_results(
        {"model": result.folder}, f'onnxruntime.InferenceSession("{result.folder / "model.onnx"}")      in Python'
    )
