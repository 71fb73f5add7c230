"""A run's records → `RUN/report.html`, one file that needs nothing else: no network, no fonts, no other files.

The page is laid out in `assets/report.html.jinja`; `assets/charts.js` draws its curves with uPlot (MIT), which is
embedded with its licence. Everything the records say is escaped, so names with markup in them are shown as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ernie2 import formatting
from ernie2.escaping import escape_markdown, printable
from ernie2.learned import LEARNED, MIN_INSTANCES, NOT_LEARNED, TOO_FEW
from ernie2.reporting import curves, progress, tables, verdict
from ernie2.reporting.comparison import compare
from ernie2.reporting.records_reader import Records, read_records
from ernie2.reporting.scores import dot_plot
from ernie2.storage.atomic import write_text
from ernie2.training.run_record import RunRecord

ASSETS = Path(__file__).parent / "assets"
REPORT_FILE = "report.html"


def write_report(run: Path, others: Sequence[Path] = (), record: RunRecord | None = None) -> Path:
    """Write the report of a run folder, finished or not, atomically; return its path, `RUN/report.html`.

    With `others`, the page also compares what each task kept in them. `record`: in place of what run.json says,
    as it is written there next. Raises `CheckpointError` where `run` is not a run or its records are damaged,
    `DataError` where they lack figures, `StorageError` where the page cannot be written.
    """
    page = render(read_records(run, record), [read_records(other) for other in others])
    advice = f"Free some space or allow writing there, then run `ernie2 report {run}`; the run itself is untouched."
    write_text(run / REPORT_FILE, page, advice=advice)
    return run / REPORT_FILE


def render(records: Records, others: Sequence[Records] = ()) -> str:
    """The whole page as HTML, with a comparison where there are `others`; the same records give the same text."""
    run = records.run
    steps = [step for step in records.steps if step.seconds is not None]
    return render_template(
        "report.html.jinja",
        run=run,
        records=records,
        spans=progress.stage_spans(records),
        last_step=progress.last_step(records),
        seconds=steps[-1].seconds if steps else None,
        tokens=next((step.tokens for step in reversed(records.steps) if step.tokens is not None), None),
        headline=verdict.headline(records),
        learned=verdict.tasks_with_verdict(records, LEARNED),
        unlearned=verdict.tasks_with_verdict(records, NOT_LEARNED),
        undecided=verdict.tasks_with_verdict(records, TOO_FEW),
        least_instances=MIN_INSTANCES,
        unevaluated=verdict.unevaluated_tasks(records),
        remarks=verdict.remarks(records),
        introduction_stage=progress.introduction_stage,
        most=max((count for stage in run.stages for count in stage.iterations.values()), default=0),
        ended={event.stage: event.iterations for event in records.events if event.event == "end"},
        matrix=tables.forgetting_matrix(records),
        comparison=compare([records, *others]) if others else None,
        finals=tables.final_rows(records),
        usable=tables.usable_rows(records),
        plots=[dot_plot(score) for score in records.scores],
        charts=curves.charts(records),
        recipe=json.dumps(run.recipe, indent=2, ensure_ascii=False),
    )


def json_for_script(value: Any) -> str:
    """JSON that may stand inside a <script> element: no character in it can end the element or open a comment."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def render_template(template: str, *values: Mapping[str, Any], **more: Any) -> str:
    """Return a page: a template of `assets/` with its values put in, escaped."""
    return template_environment().get_template(template).render(*values, **more)


def template_environment() -> jinja2.Environment:
    """What the pages of this room are laid out with: their assets, numbers in words, everything escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS),
        autoescape=True,
        finalize=_printable,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        name: getattr(formatting, name)
        for name in (
            "decimal",
            "signed",
            "interval",
            "integer",
            "rounded",
            "duration",
            "percent",
            "join_words",
            "quantity",
        )
    }
    environment.filters["json_for_script"] = lambda value: Markup(json_for_script(value))
    environment.filters["markdown"] = lambda text: Markup(escape_markdown(text))
    environment.globals["asset"] = _read_asset
    return environment


def _printable(value: object) -> object:
    """A string with escape sequences spelled out; markup and other values as they are."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _read_asset(name: str) -> Any:
    """A file of `assets/` as trusted markup."""
    return Markup((ASSETS / name).read_text(encoding="utf-8"))
