"""Commands for training: demo, pretrain, resume, extend."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

import ernie2
from ernie2.cli.app import HOOK, OVERRIDES, RECIPE, WORKERS, advise_on_interrupt, app, print_run_results

EXTEND_OVERRIDES = typer.Argument(
    metavar="KEY=VALUE",
    help="Override run, stages.steps (iterations of the new task), train.* or tasks.TASK.*.",
    show_default=False,
)


@app.command()
def demo(
    language: Annotated[str, typer.Option(help="Language of the shipped text: en or zh.")] = "en",
    folder: Annotated[Path, typer.Option(help="Folder for all results. Finished parts in it are not repeated.")] = Path(
        "ernie2-demo"
    ),
) -> None:
    """Run the complete pipeline on the shipped text, in minutes and offline.

    Reads    the corpus of that language in the package
    Writes   FOLDER with shards, a small encoder trained in four stages, a report
             with held-out metrics, and the accuracy of a small classifier
             compared with the same encoder untrained
    Example  [bold]ernie2 demo --language zh[/bold]
    """
    with advise_on_interrupt(lambda: "run the same command to continue where it stopped."):
        ernie2.demo(language, folder)


@app.command()
def pretrain(
    recipe: Annotated[str, RECIPE],
    overrides: Annotated[list[str] | None, OVERRIDES] = None,
    init_from: Annotated[
        Path | None,
        typer.Option(
            help="Initialise from a checkpoint: a run, a Hugging Face folder, or a Paddle model.",
            show_default="random",
        ),
    ] = None,
    grow: Annotated[
        list[str] | None,
        typer.Option(
            help="Allow new, untrained rows in a table of that checkpoint: segment_types, position_rows or vocabulary. "
            "Can be repeated.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[int | None, WORKERS] = None,
    hooks: Annotated[list[str] | None, HOOK] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Only check data and arguments, and print schedule, epochs, memory and time.",
            show_default=False,
        ),
    ] = False,
) -> None:
    """Pre-train an encoder from a recipe.

    Prepares the shards first if there are none. Start it with torchrun to
    train on several ranks.

    Reads    the shards of RECIPE
    Writes   a run folder (run in the recipe) with hf/ for Hugging Face,
             report.html, metrics.jsonl, run.json and checkpoints/;
             nothing with --dry-run
    Example  [bold]ernie2 pretrain my-recipe.yaml run=runs/b train.peak_lr=3e-4[/bold]
    """
    if dry_run:
        ernie2.plan(recipe, overrides or (), init_from=init_from, grow=grow or (), hooks=hooks or ())
        return
    with advise_on_interrupt(lambda: _resume_advice(_run_of(recipe, overrides or ()))):
        run = ernie2.pretrain(recipe, overrides or (), init_from, workers, grow or (), hooks or ())
    print_run_results(run)


@app.command()
def resume(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")],
    mirror: Annotated[
        str | None,
        typer.Option(
            "--from", help="URL of the copied checkpoints (train.mirror), if RUN is lost.", show_default=False
        ),
    ] = None,
    hooks: Annotated[list[str] | None, HOOK] = None,
) -> None:
    """Resume a stopped run, with the same result as without the stop.

    Reads    the newest checkpoint in RUN
    Writes   RUN, until the run is finished
    Example  [bold]ernie2 resume runs/b[/bold]
    """
    with advise_on_interrupt(lambda: _resume_advice(run)):
        run = ernie2.resume(run, mirror, hooks or ())
    print_run_results(run)


@app.command()
def extend(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run; it is not changed.")],
    task: Annotated[str, typer.Option(help="The new task (`ernie2 tasks` lists them).")],
    data: Annotated[Path, typer.Option(help="Shards for the new task, with RUN's tokeniser; they can be RUN's own.")],
    overrides: Annotated[list[str] | None, EXTEND_OVERRIDES] = None,
    replay: Annotated[
        int | None,
        typer.Option(
            min=0, help="Iterations of each earlier task; 0: none.", show_default="iterations so far / (stages + 1)"
        ),
    ] = None,
    hooks: Annotated[list[str] | None, HOOK] = None,
) -> None:
    """Train a finished run on one more task, with replay of the earlier tasks.

    Reads    RUN, its shards for the earlier tasks, and the shards of --data
             for the new task
    Writes   a new run folder, RUN+TASK or run=FOLDER, with one more stage;
             its report shows all stages
    Example  [bold]ernie2 extend runs/b --task sentence_distance --data new-shards[/bold]
    """
    overrides = overrides or []
    with advise_on_interrupt(lambda: _resume_advice(_target_run(run, task, overrides))):
        new_run = ernie2.extend(run, task, data, overrides, replay, hooks or ())
    print_run_results(new_run)


def _target_run(run: Path, task: str, overrides: Sequence[str]) -> Path:
    from ernie2.runs.extend import extended_run_dir

    named = [override.removeprefix("run=") for override in overrides if override.startswith("run=")]
    return Path(named[-1]) if named else extended_run_dir(run, task)


def _run_of(recipe: str, overrides: Sequence[str]) -> Path:
    from ernie2.runs.recipes import load_recipe

    return Path(load_recipe(recipe, overrides).run)


def _resume_advice(run: Path) -> str:
    if (run / "checkpoints").is_dir() and any((run / "checkpoints").iterdir()):
        return f"continue from the last checkpoint with: ernie2 resume {run}"
    return "no checkpoint was written yet; run the same command to start again."
