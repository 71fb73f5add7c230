"""The results of fine-tuning → `results.html`, one file that needs nothing else, and `results.md`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ernie2.errors import DataError
from ernie2.escaping import in_markdown
from ernie2.reporting.report import environment
from ernie2.storage.atomic import write_text
from ernie2.storage.json_files import parse_json

NAME, PAGE = "results.json", "results.html"


def write_page(folder: Path) -> Path:
    """Makes the page of a folder of results and returns its path. Raises `DataError` where `results.json` is damaged,
    `StorageError` where the page cannot be written."""
    file, path = folder / NAME, folder / PAGE
    try:
        record = parse_json(file.read_bytes())
        page = render(record)
    except (OSError, ValueError, RecursionError, KeyError, TypeError, jinja2.TemplateError) as error:
        raise DataError(
            f"{file} cannot be read as results of fine-tuning: {error!r}. Run `ernie2 finetune` again."
        ) from error
    write_text(path, page, what_now=f"The results themselves are in {file}.")
    return path


def render(record: Mapping[str, Any], asset: str = "finetuned.html.jinja") -> str:
    """The page as HTML, or as Markdown by `finetuned.md.jinja`; the same record gives the same text."""
    lines = [(one, row, dots(row["values"].values())) for one in record["datasets"] for row in one["rows"]]
    pages = environment()
    pages.filters |= {"markdown": lambda text: Markup(in_markdown(text)), "figure": figure}
    return pages.get_template(asset).render(record=record, lines=lines, remarks=list(remarks(record)))


def figure(value: float | None) -> str:
    """A percentage with one decimal, `none` where there is none."""
    return "none" if value is None or not math.isfinite(value) else f"{value:.1f}"


def dots(values: Sequence[float | None]) -> list[tuple[float, float]]:
    """Each finite value with its place on an axis of 0 to 100, in percent of the width."""
    return [(min(100.0, max(0.0, value)), value) for value in values if value is not None and math.isfinite(value)]


def remarks(record: Mapping[str, Any]) -> Iterator[str]:
    """What must stand beside the figures: runs that diverged, how the paper's compare, what was left out."""
    if record["glue_withheld"]:
        yield record["glue_withheld"]
    yield from record["notes"]
    for one in record["datasets"]:
        yield from (f"{one['dataset']}, seed {seed}: {why}" for seed, why in one["diverged"].items())
        yield from (f"{one['dataset']}, {split}: {words}" for split, words in one["comparison"].items())
        yield from (f"{one['dataset']}: {note}" for note in one["notes"])
