"""A study's record → `study.html`, one file that needs nothing else, and `forgetting.svg`; reads `study.json` only.

The page has the tables of `study.md` and the picture, laid out in `assets/study.html.jinja`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ernie2.errors import DataError
from ernie2.reporting.report import environment
from ernie2.reporting.study_chart import chart
from ernie2.storage.atomic import write_text
from ernie2.storage.json_files import parse_json
from ernie2.studies.analysis.analyse import analyse
from ernie2.studies.analysis.tables import blocks

NAME, PAGE, PICTURE = "study.json", "study.html", "forgetting.svg"


def write_study_page(folder: Path) -> Path:
    """Make the page of a study, finished or not, and its picture `forgetting.svg`; return the page's path.

    Both are written aside and renamed, so earlier ones stay whole until then. Raises `DataError` where `study.json`
    is missing, damaged or compares unlikes, `StorageError` where the page cannot be written.
    """
    file = folder / NAME
    try:
        record = parse_json(file.read_bytes())
        drawn, page = chart(record), render(record)
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
    """Return the page as HTML; the same record gives the same text. Raises `DataError` as `analyse` does."""
    return (
        environment()
        .get_template("study.html.jinja")
        .render(
            blocks=[(type(block).__name__, block) for block in blocks(record, analyse(record))],
            picture=Markup(chart(record)),
            settings=json.dumps(record["settings"], indent=2, ensure_ascii=False),
        )
    )
