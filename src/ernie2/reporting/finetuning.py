"""The results of fine-tuning → `results.json`, `results.md`, and `results.html`, a page that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ernie2.reporting.report import template_environment
from ernie2.storage.atomic import write_json, write_text

RESULTS_FILE, PAGE_FILE = "results.json", "results.html"


def write_results(folder: Path, record: Mapping[str, Any]) -> None:
    """Write a record of JSON values as `results.json`, as Markdown and as a page. Raises `StorageError`."""
    write_json(folder / RESULTS_FILE, record)
    write_text(folder / "results.md", render(record, "finetuning.md.jinja"))
    write_text(folder / PAGE_FILE, render(record), advice=f"The results themselves are in {folder / RESULTS_FILE}.")


def render(record: Mapping[str, Any], asset: str = "finetuning.html.jinja") -> str:
    """The page as HTML, or as Markdown by `finetuning.md.jinja`; the same record gives the same text."""
    lines = [(one, row, dot_positions(row["values"].values())) for one in record["datasets"] for row in one["rows"]]
    pages = template_environment()
    pages.filters["percentage"] = percentage
    return pages.get_template(asset).render(record=record, lines=lines, remarks=list(remarks(record)))


def percentage(value: float | None) -> str:
    """A percentage with one decimal, `none` where there is none."""
    return "none" if value is None or not math.isfinite(value) else f"{value:.1f}"


def dot_positions(values: Sequence[float | None]) -> list[tuple[float, float]]:
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
