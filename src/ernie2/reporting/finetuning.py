"""Write fine-tuning results as `results.json`, `results.md`, and `results.html`, a self-contained page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ernie2.reporting.report import template_environment
from ernie2.storage.atomic import write_json, write_text

RESULTS_FILE, PAGE_FILE = "results.json", "results.html"


def write_results(folder: Path, record: Mapping[str, Any]) -> None:
    """Write `record`, a JSON object, as `results.json`, as Markdown and as HTML. Raises `StorageError`."""
    write_json(folder / RESULTS_FILE, record)
    write_text(folder / "results.md", render(record, "finetuning.md.jinja"))
    write_text(folder / PAGE_FILE, render(record), advice=f"The results are in {folder / RESULTS_FILE}.")


def render(record: Mapping[str, Any], asset: str = "finetuning.html.jinja") -> str:
    """Return the page as HTML, or as Markdown with `finetuning.md.jinja`; the output is deterministic."""
    lines = [(one, row, dot_positions(row["values"].values())) for one in record["datasets"] for row in one["rows"]]
    pages = template_environment()
    pages.filters["percentage"] = percentage
    return pages.get_template(asset).render(record=record, lines=lines, remarks=list(remarks(record)))


def percentage(value: float | None) -> str:
    """Return a percentage with one decimal, or "none"."""
    return "none" if value is None or not math.isfinite(value) else f"{value:.1f}"


def dot_positions(values: Sequence[float | None]) -> list[tuple[float, float]]:
    """Return (position, value) of each finite value on an axis of 0 to 100; positions are percentages of the width."""
    return [(min(100.0, max(0.0, value)), value) for value in values if value is not None and math.isfinite(value)]


def remarks(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield remarks on diverged runs, the comparison with the paper, and withheld scores."""
    if record["glue_withheld"]:
        yield record["glue_withheld"]
    yield from record["notes"]
    for one in record["datasets"]:
        yield from (f"{one['dataset']}, seed {seed}: {why}" for seed, why in one["diverged"].items())
        yield from (f"{one['dataset']}, {split}: {words}" for split, words in one["comparison"].items())
        yield from (f"{one['dataset']}: {note}" for note in one["notes"])
