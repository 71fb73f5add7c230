"""The results of fine-tuning → `results.html`, one file that needs nothing else; reads `results.json` only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from ernie2.errors import DataError
from ernie2.reporting.report import environment
from ernie2.storage.atomic import write_text
from ernie2.storage.json_files import parse_json

NAME, PAGE = "results.json", "results.html"


@dataclass(frozen=True)
class Line:
    """One metric on one split. `dots`: the place of every run, percent of the width of its own axis, which is 0–100."""

    dataset: str
    standing: str
    split: str
    metric: str
    middle: float | None
    low: float | None
    high: float | None
    no_interval: str
    dots: tuple[tuple[float, float], ...]
    paper: tuple[str, ...]
    withheld: str
    file: str
    majority: float | None


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


def render(record: Mapping[str, Any]) -> str:
    """The page as HTML; the same record gives the same text."""
    return environment().get_template("finetuned.html.jinja").render(
        record=record, lines=lines_of(record["datasets"]), remarks=remarks_of(record)
    )  # fmt: skip


def lines_of(datasets: Sequence[Mapping[str, Any]]) -> tuple[Line, ...]:
    """A line a metric and split, in the order of the record."""
    made = []
    for one in datasets:
        for row in one["rows"]:
            values = [value for value in row["values"].values() if value is not None and math.isfinite(value)]
            made.append(
                Line(
                    one["dataset"],
                    one["standing"],
                    row["split"],
                    row["metric"],
                    row["middle"],
                    row["low"],
                    row["high"],
                    row["no_interval"],
                    tuple((min(100.0, max(0.0, value)), value) for value in values),
                    tuple(one["paper"].get(row["split"], ())),
                    row["withheld"],
                    one["files"].get(row["split"], ""),
                    row["majority"],
                )
            )
    return tuple(made)


def remarks_of(record: Mapping[str, Any]) -> tuple[str, ...]:
    """What must stand beside the figures: runs that diverged, how the paper's compare, what was left out."""
    made = [*([record["glue_withheld"]] if record["glue_withheld"] else []), *record["notes"]]
    for one in record["datasets"]:
        made += [f"{one['dataset']}, seed {seed}: {why}" for seed, why in one["diverged"].items()]
        made += [f"{one['dataset']}, {split}: {words}" for split, words in one["comparison"].items()]
        made += [f"{one['dataset']}: {note}" for note in one["notes"]]
    return tuple(made)
