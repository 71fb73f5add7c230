"""Commands for benchmarks and studies: bench, study."""

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
    help="Override values of the preset: seeds=3, finetuning.data=glue_data, recipe.train.peak_lr=1e-3.",
    show_default=False,
)


@app.command()
def bench(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A YAML file, or the name of a shipped recipe.")
    ] = "demo-en",
    overrides: Annotated[list[str] | None, OVERRIDES] = None,
    steps: Annotated[int, typer.Option(min=1, help="Number of steps to measure, after 24 to 64 warm-up steps.")] = 30,
    json_file: Annotated[
        Path, typer.Option("--json", help="File to append to: one line of JSON per measurement, then a summary.")
    ] = Path("bench.jsonl"),
) -> None:
    """Measure training speed: tokens/s, MFU, memory, and the rate of the loader.

    Trains for a short time on the recipe's data with all its tasks and saves
    no model. Padding is not counted.

    Reads    the shards of RECIPE; prepares them if there are none
    Writes   bench.jsonl (--json), and the shards it prepares (without RECIPE,
             in ernie2-demo/en/shards)
    Example  [bold]ernie2 bench my-recipe.yaml train.precision=bf16[/bold]
    """
    with advise_on_interrupt(lambda: f"finished measurements are in {json_file}; run the same command to start again."):
        summary = ernie2.bench(recipe, overrides or (), steps, json_file)
    show_measurement(summary)
    print_results({"figures": json_file}, "run the same command after a change and compare the summaries in the file")


@app.command()
def study(
    which: Annotated[
        Literal["table7"], typer.Argument(metavar="STUDY", help="table7: the learning methods of the paper's Table 7.")
    ],
    overrides: Annotated[list[str] | None, STUDY_OVERRIDES] = None,
    preset: Annotated[
        Literal["smoke", "laptop", "small", "base"],
        typer.Option(help="Size: smoke (minutes), laptop (1 to 2 hours), small (one GPU), base (as in the paper)."),
    ] = "small",
    parallel: Annotated[
        int | None, typer.Option(min=1, max=1_024, help="Number of parallel runs.", show_default="one per GPU, else 1")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Only analyse an existing study.json again.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="With --from: folder for tables and page.", show_default="that of FILE")
    ] = None,
) -> None:
    """Compare learning methods over several seeds: accuracy, forgetting, fine-tuning.

    Methods: continual, multi-task and continual multi-task learning, the last
    also with combined steps; all with equal iterations. Reports accuracy after
    each stage and fine-tuning scores, with intervals over seeds. Run the same
    command again to continue a stopped study.

    Reads    the corpora of the preset's recipe, finetuning.data
    Writes   FOLDER (key folder): study.json, study.md, study.html, forgetting.svg
    Example  [bold]ernie2 study table7 --preset smoke[/bold]
             [bold]ernie2 study table7 --from study.json --out again[/bold]
    """
    del which  # there is only one
    if source is not None:
        if overrides:
            raise Ernie2Error(f"{overrides[0]!r} has no effect with --from, which trains nothing. Remove it.")
        folder = ernie2.analyse_study(source, out)
    elif out is not None:
        raise Ernie2Error(f"--out is only valid with --from; to choose the folder of a study, use folder={out}.")
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
    load = f", load {line['load'][0]:.1f} at the start" if line["load"] else ""
    threads = "" if "thread" in line["device"] else f", {quantity(line['threads'], 'thread')}"
    versions = ", ".join(f"{name} {version}" for name, version in line["versions"].items())
    size = f"{quantity(encoder['layers'], 'layer')} × {encoder['hidden']}, {line['parameters']:,} parameters"
    step = line["step"]
    kernels = "; ".join(
        f"{name} for {quantity(use['packs'], 'pack')} of {use['fewest']:,} to {use['most']:,} sequences of up to "
        f"{use['longest']:,} tokens"
        for name, use in step["kernels"].items()
    )
    if step["flash_attention"]:
        kernels += f"; packed by {step['flash_attention']}"
    compiled = "none, not compiled"
    if step["compiled"]:
        compiled = f"{step['recompilations']} during measurement, {quantity(step['graphs'], 'graph')} in total"
    memory = "could not be measured"
    if step["memory_bytes"]:
        of = "of the GPU" if line["device"][:3] != "cpu" else "of the process, including Python and its libraries"
        memory = f"{step['memory_bytes'] / 2**30:,.2f} GiB {of}"
    return [
        ("device", f"{line['device']}{threads}, {quantity(line['cores'], 'core')}{load}"),
        ("versions", versions),
        ("encoder", f"{encoder['kind']}, {size}, vocabulary {line['vocab_size']:,}"),
        ("tasks", ", ".join(line["tasks"])),
        (
            "step",
            f"{batch['batch_tokens']:,} tokens in packs of {batch['pack_tokens']:,}, sequences up to "
            f"{batch['sequence_tokens']:,}, {line['precision']}",
        ),
        (
            "training",
            f"{step['tokens_per_second']:,.0f} tokens/s without padding; median step {step['median_seconds']:.3f} s of "
            f"{step['steps']}, after {step['warm_up_steps']} warm-up steps; {step['measured_sets']} of "
            f"{quantity(step['task_sets'], 'task set')}, weighted by their share of the plan",
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
    log_result("\nData loading: rate of one loader worker, and share of the time in which training waits for packs")
    log_result(
        f"  {alone['instance_tokens']:.0f} tokens per instance: {alone['instances_per_second']:,.0f} instances/s, "
        f"{alone['tokens_per_second']:,.0f} tokens/s"
    )
    for result in side["waiting"]:
        default = " (the default here)" if result["workers"] == side["default_workers"] else ""
        log_result(
            f"    {quantity(result['workers'], 'worker')}{default}: waits {result['share']:.2%}, "
            f"{result['tokens_per_second']:,.0f} tokens/s over {quantity(result['steps'], 'step')}"
        )
