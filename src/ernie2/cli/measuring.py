"""Commands that measure and compare: bench, study."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import ernie2
from ernie2.cli.app import OVERRIDES, advise_on_interrupt, app, print_columns, print_results
from ernie2.console import log_result
from ernie2.errors import Ernie2Error
from ernie2.formatting import quantity

STUDY_OVERRIDES = typer.Argument(
    metavar="KEY=VALUE",
    help="Values that replace those of the preset: seeds=3, finetuning.data=glue_data, recipe.train.peak_lr=1e-3.",
    show_default=False,
)


@app.command()
def bench(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A YAML file, or the name of a shipped recipe.")
    ] = "demo-en",
    overrides: Annotated[list[str] | None, OVERRIDES] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps to measure, after 24 to 64 of warm-up.")] = 30,
    json_file: Annotated[
        Path, typer.Option("--json", help="The file that gets a line of JSON for every measurement, and a summary.")
    ] = Path("bench.jsonl"),
) -> None:
    """Measure how fast a recipe trains here: tokens/s, MFU, memory, what feeds it.

    Trains for a while on the recipe's real stream with all its tasks and
    keeps nothing of it. Padding is never counted.

    Reads    the shards of RECIPE, which are made where there are none
    Leaves   a line of JSON a measurement in bench.jsonl (--json), then one that
             sums up; shards that it made (without RECIPE ernie2-demo/en/shards)
    Example  [bold]ernie2 bench my-recipe.yaml train.precision=bf16[/bold]
    """
    with advise_on_interrupt(lambda: "what was measured is in " + str(json_file) + "; the same command starts again."):
        line = ernie2.bench(recipe, overrides or (), steps, json_file)
    show_measurement(line)
    print_results({"figures": json_file}, "give the same command after a change: the summaries in one file compare")


@app.command()
def study(
    which: Annotated[
        Literal["table7"], typer.Argument(metavar="STUDY", help="table7: the learning methods of Table 7.")
    ],
    overrides: Annotated[list[str] | None, STUDY_OVERRIDES] = None,
    preset: Annotated[
        Literal["smoke", "laptop", "small", "base"],
        typer.Option(help="smoke: minutes; laptop: an hour or two; small: one GPU; base: the paper's size."),
    ] = "small",
    parallel: Annotated[
        int | None, typer.Option(min=1, max=1_024, help="Runs side by side.", show_default="one a GPU, 1 on a CPU")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Train nothing: analyse a study.json anew.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="With --from: the folder of tables and page.", show_default="beside FILE")
    ] = None,
) -> None:
    """Compare learning methods at equal iterations, over seeds, and see forgetting.

    Continual, multi-task and continual multi-task learning, and the last with
    combined steps: what every task keeps after each stage, what fine-tuning
    makes of it, intervals over seeds. The same command goes on where it stopped.

    Reads    the corpora of the preset's recipe, finetuning.data
    Leaves   FOLDER with study.json, study.md, study.html, forgetting.svg
    Example  [bold]ernie2 study table7 --preset smoke[/bold]
             [bold]ernie2 study table7 --from study.json --out again[/bold]
    """
    del which  # there is one
    if source is not None:
        if overrides:
            raise Ernie2Error(f"--from analyses what is recorded; {overrides[0]!r} would change nothing. Leave it out.")
        folder = ernie2.study_again(source, out)
    elif out is not None:
        raise Ernie2Error(f"--out belongs to --from; a study goes into folder={out}.")
    else:
        with advise_on_interrupt(lambda: "run the same command to continue where it stopped."):
            folder = ernie2.study(preset, overrides or (), parallel)
    print_results(
        {"page": folder / "study.html", "tables": folder / "study.md", "record": folder / "study.json"},
        f"open {folder / 'study.html'} in a browser",
        f"ernie2 study table7 --from {folder / 'study.json'}",
    )


def show_measurement(line: Mapping[str, Any]) -> None:
    """Print the summary that `ernie2.bench` returns."""
    print_columns(_rows(line), log_result)
    show_input(line["input"])


def _rows(line: Mapping[str, Any]) -> list[tuple[str, str]]:
    encoder, batch = line["encoder"], line["batch"]
    load = f", load {line['load'][0]:.1f} before it began" if line["load"] else ""
    threads = "" if "thread" in line["device"] else f", {quantity(line['threads'], 'thread')}"
    versions = ", ".join(f"{name} {version}" for name, version in line["versions"].items())
    size = f"{quantity(encoder['layers'], 'layer')} × {encoder['hidden']}, {line['parameters']:,} parameters"
    step = line["step"]
    kernels = "; ".join(
        f"{name} for {quantity(use['packs'], 'pack')} of {use['fewest']:,} to {use['most']:,} sequences, each up to "
        f"{use['longest']:,} tokens"
        for name, use in step["kernels"].items()
    )
    if step["flash_attention"]:
        kernels += f"; packed by {step['flash_attention']}"
    compiled = "nothing is compiled"
    if step["compiled"]:
        compiled = f"{step['recompilations']} while measured, {quantity(step['graphs'], 'graph')} in all"
    memory = "could not be measured"
    if step["memory_bytes"]:
        of = "of the GPU" if line["device"][:3] != "cpu" else "of the process, Python and its libraries included"
        memory = f"{step['memory_bytes'] / 2**30:,.2f} GiB {of}"
    return [
        ("device", f"{line['device']}{threads}, {quantity(line['cores'], 'core')}{load}"),
        ("versions", versions),
        ("encoder", f"{encoder['kind']}, {size}, vocabulary {line['vocab_size']:,}"),
        ("tasks", ", ".join(line["tasks"])),
        (
            "a step",
            f"{batch['batch_tokens']:,} tokens in packs of {batch['pack_tokens']:,}, sequences up to "
            f"{batch['sequence_tokens']:,}, {line['precision']}",
        ),
        (
            "training",
            f"{step['tokens_per_second']:,.0f} tokens/s without padding; median step {step['median_seconds']:.3f} s of "
            f"{step['steps']}, after {step['warm_up_steps']} of warm-up; {step['measured_sets']} of "
            f"{quantity(step['task_sets'], 'task set')}, weighed as the plan has them",
        ),
        ("MFU", f"{step['mfu']:.1%} of {step['peak_flops_per_second'] / 1e12:.3g} TFLOP/s ({step['peak_source']})"),
        ("operations", step["flops"]),
        ("peak memory", memory),
        ("attention", kernels),
        ("recompilations", compiled),
    ]


def show_input(side: Mapping[str, Any]) -> None:
    """Print the input pipeline figures."""
    alone = side["one_process"]
    log_result("\nInput side: one loader process alone, and the share of the time in which training waits for packs")
    log_result(
        f"  {alone['instance_tokens']:.0f} tokens an instance: {alone['instances_per_second']:,.0f} instances/s, "
        f"{alone['tokens_per_second']:,.0f} tokens/s"
    )
    for fed in side["waiting"]:
        usual = " (the default here)" if fed["workers"] == side["default_workers"] else ""
        log_result(
            f"    {quantity(fed['workers'], 'worker')}{usual}: waits {fed['share']:.2%}, "
            f"{fed['tokens_per_second']:,.0f} tokens/s over {quantity(fed['steps'], 'step')}"
        )
