"""Commands that train: demo, pretrain, resume, extend."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

import ernie2
from ernie2.cli.app import HOOK, OVERRIDES, RECIPE, WORKERS, advise_on_interrupt, app, print_run_results

EXTEND_OVERRIDES = typer.Argument(
    metavar="KEY=VALUE",
    help="run, stages.steps (iterations of the new task), train.*, tasks.TASK.*; what a finished run can still take.",
    show_default=False,
)


@app.command()
def demo(
    language: Annotated[str, typer.Option(help="Language of the shipped text: en or zh.")] = "en",
    folder: Annotated[
        Path, typer.Option(help="Where everything goes; what is there already is not made again.")
    ] = Path("ernie2-demo"),
) -> None:
    """See the whole way on text that comes with the package, within minutes and without a network.

    Reads    the corpus of that language inside the package
    Leaves   FOLDER with shards, a small encoder trained through four stages,
             its held-out metrics, and a classification it learned from a few
             labels, beside the same encoder untrained
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
            help="Start from the parameters of a checkpoint: a run, a Hugging Face folder, a Paddle model.",
            show_default="random",
        ),
    ] = None,
    grow: Annotated[
        list[str] | None,
        typer.Option(
            help="A table that may get more rows than that checkpoint has, untrained at first: segment_types, "
            "position_rows, vocabulary. May be given several times.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[int | None, WORKERS] = None,
    hooks: Annotated[list[str] | None, HOOK] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Train nothing: check data and arguments; print schedule, epochs, memory and time.",
            show_default=False,
        ),
    ] = False,
) -> None:
    """Pre-train an encoder through the stages of a recipe.

    Reads    the shards of RECIPE
    Leaves   a run folder (run in the recipe) with hf/ for Hugging Face,
             report.html, metrics.jsonl, run.json and checkpoints/;
             with --dry-run nothing
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
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder that `ernie2 pretrain` began.")],
    mirror: Annotated[
        str | None,
        typer.Option(
            "--from", help="Where its checkpoints were copied to (train.mirror), if RUN is gone.", show_default=False
        ),
    ] = None,
    hooks: Annotated[list[str] | None, HOOK] = None,
) -> None:
    """Go on with a run that was stopped, exactly as if it had not been.

    Reads    the newest checkpoint in RUN
    Leaves   the run finished
    Example  [bold]ernie2 resume runs/b[/bold]
    """
    with advise_on_interrupt(lambda: _resume_advice(run)):
        run = ernie2.resume(run, mirror, hooks or ())
    print_run_results(run)


@app.command()
def extend(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run; it stays as it is.")],
    task: Annotated[str, typer.Option(help="The task that arrives (`ernie2 tasks`).")],
    data: Annotated[Path, typer.Option(help="Shards for it, made with the tokeniser of RUN; or those of RUN.")],
    overrides: Annotated[list[str] | None, EXTEND_OVERRIDES] = None,
    replay: Annotated[
        int | None,
        typer.Option(min=0, help="Iterations of each earlier task; 0: none.", show_default="as planned stages give"),
    ] = None,
    hooks: Annotated[list[str] | None, HOOK] = None,
) -> None:
    """Let a finished run learn a task that arrives later, without forgetting the earlier ones.

    Reads    RUN, its shards for the earlier tasks, and the shards of --data
             for the new one
    Leaves   a new run folder, RUN+TASK or run=FOLDER, with one stage more;
             its report shows all stages
    Example  [bold]ernie2 extend runs/b --task sentence_distance --data new-shards stages.steps=5000[/bold]
    """
    given = overrides or []
    with advise_on_interrupt(lambda: _resume_advice(_target_run(run, task, given))):
        new = ernie2.extend(run, task, data, given, replay, hooks or ())
    print_run_results(new)


def _target_run(run: Path, task: str, overrides: Sequence[str]) -> Path:
    from ernie2.runs.extend import extended_run_dir

    named = [override.removeprefix("run=") for override in overrides if override.startswith("run=")]
    return Path(named[-1]) if named else extended_run_dir(run, task)


def _run_of(recipe: str, overrides: Sequence[str]) -> Path:
    from ernie2.runs.recipes import load_recipe

    return Path(load_recipe(recipe, overrides).run)


def _resume_advice(run: Path) -> str:
    if (run / "checkpoints").is_dir() and any((run / "checkpoints").iterdir()):
        return f"the run goes on from its last checkpoint with: ernie2 resume {run}"
    return "no checkpoint was written yet; the same command starts again."
