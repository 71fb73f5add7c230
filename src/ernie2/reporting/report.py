"""Write the report of a run, `RUN/report.html`: one self-contained file without network access, fonts or other files.

The template is `assets/report.html.jinja`; `assets/charts.js` draws the charts with uPlot (MIT), which is embedded with
its licence. All values are escaped.
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

    `others`: run folders to compare it with. `record` replaces the content of run.json, before it is written there.
    Raises `CheckpointError` if `run` is not a run or its records are damaged, `DataError` if they lack figures,
    `StorageError` if the page cannot be written.
    """
    page = render(read_records(run, record), [read_records(other) for other in others])
    advice = f"Free space or allow writing there, then run `ernie2 report {run}`; the run itself is unchanged."
    write_text(run / REPORT_FILE, page, advice=advice)
    return run / REPORT_FILE


def render(records: Records, others: Sequence[Records] = ()) -> str:
    """Return the page as HTML, with a comparison if there are `others`; the output is deterministic."""
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
        min_instances=MIN_INSTANCES,
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
    """Return JSON for a <script> element; no character in it can end the element or open a comment."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def render_template(template: str, *values: Mapping[str, Any], **more: Any) -> str:
    """Render a template of `assets/` with escaped values."""
    return template_environment().get_template(template).render(*values, **more)


def template_environment() -> jinja2.Environment:
    """Return the Jinja environment of all pages: assets, filters for numbers, automatic escaping."""
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
    """Make control characters of a string visible; return markup and other values unchanged."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _read_asset(name: str) -> Any:
    """Return a file of `assets/` as trusted markup."""
    return Markup((ASSETS / name).read_text(encoding="utf-8"))
