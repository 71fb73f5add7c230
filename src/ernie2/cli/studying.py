"""Commands that compare learning methods: study."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

import ernie2
from ernie2.cli.app import app
from ernie2.cli.shared import finished, when_interrupted
from ernie2.errors import Ernie2Error


class Study(StrEnum):
    """What can be studied."""

    table7 = "table7"


class Preset(StrEnum):
    """Sizes of a study; `ernie2/studies/presets` holds one file each."""

    smoke = "smoke"
    laptop = "laptop"
    small = "small"
    base = "base"


OVERRIDES = typer.Argument(
    metavar="KEY=VALUE",
    help="Values that replace those of the preset: seeds=3, finetuning.data=glue_data, recipe.train.peak_lr=1e-3.",
    show_default=False,
)


@app.command()
def study(
    which: Annotated[Study, typer.Argument(metavar="STUDY", help="table7: the learning methods of Table 7.")],
    overrides: Annotated[list[str] | None, OVERRIDES] = None,
    preset: Annotated[
        Preset, typer.Option(help="smoke: minutes; laptop: an hour or two; small: one GPU; base: the paper's size.")
    ] = Preset.small,
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
        with when_interrupted(lambda: "run the same command to continue where it stopped."):
            folder = ernie2.study(preset.value, overrides or (), parallel)
    finished(
        {"page": folder / "study.html", "tables": folder / "study.md", "record": folder / "study.json"},
        f"open {folder / 'study.html'} in a browser",
        f"ernie2 study table7 --from {folder / 'study.json'}",
    )
