"""A study's record → `study.html`, one file that needs nothing else, and `forgetting.svg`; reads `study.json` only."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ernie2.errors import DataError
from ernie2.reporting.report import environment
from ernie2.reporting.study_dots import plots
from ernie2.reporting.study_picture import MARKS, picture, style
from ernie2.reporting.study_verdict import better, differences, restart, standing
from ernie2.storage.atomic import write_text
from ernie2.storage.json_files import parse_json
from ernie2.studies.analysis.analyse import analyse
from ernie2.studies.analysis.facts import facts
from ernie2.studies.analysis.paper_table7 import PAPER_WORDS
from ernie2.studies.analysis.results import Analysis, TaskFigure
from ernie2.studies.analysis.statistics import Estimate
from ernie2.studies.analysis.wording import DASH, number

NAME, PAGE, PICTURE = "study.json", "study.html", "forgetting.svg"


@dataclass(frozen=True)
class Table:
    """One held-out figure: a row a task, a cell an arm (None where it is not defined), the mean over tasks below.

    `good` is +1 where more of it is better, −1 where less is, 0 where its sign says nothing.
    """

    id: str
    title: str
    about: str
    good: int
    rows: tuple[tuple[str, float | None, tuple[Estimate | None, ...]], ...]
    means: tuple[Estimate | None, ...]

    @property
    def known(self) -> bool:
        """Some cell has a figure."""
        return any(cell is not None for _, _, cells in self.rows for cell in cells)


def write_study_page(folder: Path) -> Path:
    """Makes the page of a study, finished or not, and its picture `forgetting.svg`; returns the page's path.

    Both are written aside and renamed, so earlier ones stay whole until then. Raises `DataError` where `study.json`
    is missing, damaged or compares unlikes, `StorageError` where the page cannot be written.
    """
    file = folder / NAME
    try:
        record = parse_json(file.read_bytes())
        drawn, page = picture(record), render(record)
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError, jinja2.TemplateError) as error:
        raise DataError(
            f"{file} cannot be read as the record of a study: {error!r}. Give the folder in which "
            "`ernie2 study` ran, or run that command again: it goes on where it was."
        ) from error
    advice = f"Free some space or allow writing there; the study itself is in {file}."
    for name, text in ((PICTURE, drawn), (PAGE, page)):
        write_text(folder / name, text, what_now=advice)
    return folder / PAGE


def render(record: Mapping[str, Any]) -> str:
    """The page as HTML; the same record gives the same text. Raises `DataError` as `analyse` does."""
    found = analyse(record)
    titles = {arm["name"]: arm["title"] for arm in record["arms"]}
    pages = environment()
    pages.filters |= {"figure": _figure, "change": _change}
    return pages.get_template("study.html.jinja").render(
        record=record,
        analysis=found,
        titles=titles,
        colour={name: f"arm-{place % len(MARKS)}" for place, name in enumerate(titles)},
        standing=standing(found, titles),
        differences=differences(found.comparisons),
        better=better,
        restart=restart(found.comparisons),
        facts=[tuple(line.split(": ", 1)) if ": " in line else ("State", line) for line in facts(record, found)],
        plots=plots(found.arms),
        paper_words=PAPER_WORDS,
        picture=Markup(picture(record)),
        style=Markup(style()),
        tables=[table for table in tables(found) if table.known],
        most={
            part: max((getattr(one.cost, part).mean for one in found.arms), default=0.0)
            for part in ("passes", "tokens", "seconds")
        },
        seeds=sorted({seed for one in found.arms for seed in one.arm.seeds}),
        settings=json.dumps(record.get("settings", {}), indent=2, ensure_ascii=False),
    )  # fmt: skip


def _figure(value: float | None, digits: int) -> str:
    return DASH if value is None else number(value, digits)


def _change(value: float | None, digits: int) -> str:
    """With a sign, which what rounds to zero has not."""
    text = _figure(value, digits)
    return f"+{text}" if value is not None and value > 0 and float(text) != 0 else text


def tables(analysis: Analysis) -> tuple[Table, ...]:
    """Final accuracy, forgetting, backward and forward transfer: tasks by arms, in the analysis' order."""
    arms = analysis.arms
    figures = {(one.arm.name, figure.task): figure for one in arms for figure in one.tasks}
    names = {figure.task: figure.title for one in arms for figure in one.tasks}

    def table(
        id: str, title: str, about: str, good: int, part: Callable[[TaskFigure], Estimate | None], mean: str
    ) -> Table:
        rows = []
        for task, shown in names.items():
            cells = [figures.get((one.arm.name, task)) for one in arms]
            baseline = next((cell.baseline for cell in cells if cell is not None), None)
            rows.append((shown, baseline, tuple(None if cell is None else part(cell) for cell in cells)))
        return Table(id, title, about, good, tuple(rows), tuple(getattr(one, mean) for one in arms))

    return (
        table("final", "Accuracy at the end", "On held-out documents, after the last stage.", 0,
              lambda figure: figure.final, "heldout"),
        table("lost", "Forgetting", "The best accuracy at a stage’s end since the task entered, minus the accuracy at "
              "the end. Never below 0, so an interval above 0 alone says little; a task of the last stage has none.",
              0, lambda figure: figure.forgetting, "forgetting"),
        table("backward", "Backward transfer", "The accuracy at the end minus that at the end of the stage in which "
              "the task entered: below 0, later stages cost it something; above 0, they helped it.",
              1, lambda figure: figure.backward, "backward"),
        table("forward", "Forward transfer", "The accuracy early in the task’s own training minus that of the task "
              "trained alone for as long: above 0, what came before gave it a start.",
              1, lambda figure: figure.forward, "forward"),
    )  # fmt: skip
