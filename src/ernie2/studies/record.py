"""Collect the finished runs of a study in `study.json`, the source of its tables, page and chart.

All values come from the records of the runs: iterations are those counted at the end of each stage, not those planned.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ernie2.config.settings import Recipe
from ernie2.console import log_warning
from ernie2.errors import DamagedFile, DataError
from ernie2.learned import BASELINES
from ernie2.storage.json_files import add_checksum, read_checked_json, read_json
from ernie2.studies.analysis.schema import FORMAT, SENSITIVITY_RULE
from ernie2.studies.identity import is_run_done
from ernie2.studies.methods import SINGLE_STAGE, STUDY_METHODS, PlannedRun, iterations_per_task, planned_runs
from ernie2.studies.settings import StudySettings
from ernie2.training.records import Records
from ernie2.training.run_record import RunRecord, read_run

RECORD_FILE = "study.json"

_Line = Mapping[str, Any]


def build_record(settings: StudySettings, recipe: Recipe, *, parallel: int = 1, **facts: Any) -> dict[str, Any]:
    """Return the record of a study, finished or not.

    `facts`: preset, status, created and finished. `parallel`: the number of runs at the same time. Unfinished runs are
    omitted, and so are scores without fine-tuning results. Raises `DataError` if runs were trained on different shards,
    `CheckpointError` if a folder contains a run of another recipe.
    """
    runs, scratch, run_records = [], [], []
    for planned in planned_runs(settings, recipe):
        if not is_run_done(planned, settings):
            continue
        folder = planned.folder(settings)
        run_records.append(run := read_run(folder))
        lines = Records(folder).read()
        if planned.method is None:
            scratch.append(_scratch_run(planned, run, lines))
            continue
        runs.append(_run(planned, run, lines) | {"scores": _scores(planned, settings)})
        if planned.method == SINGLE_STAGE and planned.seed < settings.seeds_without_restart:
            runs.append({**runs[-1], "restart": SENSITIVITY_RULE, "same_run": True})
    by_shards = {run.data.fingerprint: run.recipe["run"] for run in run_records}
    if len(by_shards) > 1:
        raise DataError(
            f"runs of this study were trained on different shards, for example {' and '.join(by_shards.values())}: the "
            "corpora or shards changed in between. Remove the runs of one kind, or choose another folder (folder=…)."
        )
    known = {task.name: task for run in run_records for task in run.tasks}
    steps = iterations_per_task(recipe)
    return {
        "format": FORMAT,
        "kind": "study",
        "study": "table7",
        **facts,
        "settings": settings.model_dump(mode="json"),
        **_common(run_records, recipe.shards.share, parallel),
        "steps": steps,
        "forward_transfer_at": settings.forward_transfer_at,
        "tasks": [
            {key: getattr(known.get(name), key, None) or name for key in ("name", "title", "level")} for name in steps
        ],
        "methods": [asdict(STUDY_METHODS[name]) for name in settings.methods],
        "runs": runs,
        "scratch": scratch,
    }


def serialise_record(record: Mapping[str, Any]) -> bytes:
    """Return the content of `study.json`, with one line per run for line-by-line comparison, and a checksum."""

    def line(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

    parts = []
    for key, value in record.items():
        line_per_run = value and key in ("runs", "scratch")
        text = "[\n" + ",\n".join(map(line, value)) + "\n]" if line_per_run else line(value)
        parts.append(f"{line(key)}: {text}")
    return add_checksum("{\n" + ",\n".join(parts) + "\n}\n")


def read_record(file: Path) -> dict[str, Any] | None:
    """Return the record in `file`, or None if it is missing; raises `DataError` if it is damaged or changed.

    A record without a checksum, from an earlier version, is read with a warning.
    """
    try:
        record = read_json(file, dict)
        if "checksum" in record:
            return read_checked_json(file)
    except FileNotFoundError:
        return None
    except DamagedFile as error:
        raise DataError(f"{error} Restore a copy, or run the same `ernie2 study` command to write it again.") from error
    log_warning(f"Note: {file} has no checksum, so changes to it cannot be detected.")
    return record


def finetuning_results(planned: PlannedRun, settings: StudySettings) -> Iterator[tuple[str, list[int], dict[str, Any]]]:
    """Yield dataset folder, seeds and entry of each results.json of a run's fine-tuning, in the order of folders.

    Raises `DataError` if a file cannot be read or contains scores of another run's encoder.
    """
    encoder = Path("runs", planned.name, "hf")
    for file in sorted(planned.scores(settings).glob("*/results.json")):
        try:
            results = read_json(file, dict)
            (one,) = results["datasets"]
            checkpoint = Path(results["checkpoint"])
        except (DamagedFile, LookupError, TypeError, ValueError) as error:
            raise DataError(
                f"{file} cannot be read as fine-tuning results: {error} Move it away to score the run again."
            ) from error
        if checkpoint.parts[-len(encoder.parts) :] != encoder.parts:
            raise DataError(
                f"{file} contains scores of another encoder, {checkpoint}, not of {encoder}. Move it away to score the "
                "run again."
            )
        yield file.parent.name, results.get("seeds", []), one


def _scores(planned: PlannedRun, settings: StudySettings) -> dict[str, Any]:
    """Return the scores by dataset: metric, split, and the value of each fine-tuning seed (None if it diverged)."""
    scores = {}
    for _, _, one in finetuning_results(planned, settings):
        row: _Line = one["rows"][0] if one["rows"] else {"metric": "", "split": "dev", "values": {}}
        values = {**dict.fromkeys(one["diverged"]), **row["values"]}
        scores[one["dataset"]] = {
            "metric": row["metric"],
            "split": row["split"],
            "provenance": one["provenance"],
            "train": one["examples"]["train"],
            "dev": one["examples"].get(row["split"], 0),
            "values": dict(sorted(values.items(), key=lambda item: int(item[0]))),
            "diverged": one["diverged"],
        }
    return scores


def _run(planned: PlannedRun, run: RunRecord, lines: Sequence[_Line]) -> dict[str, Any]:
    stages = [line for line in lines if line["kind"] == "stage"]
    begins = {line["stage"]: line["step"] for line in stages if line["event"] == "begin"}
    ends = [line for line in stages if line["event"] == "end"]
    last = [line for line in lines if line["kind"] == "step"][-1]
    iterations: Counter[str] = Counter()
    for line in ends:
        iterations.update(line["iterations"])
    return {
        "method": planned.method,
        "restart": planned.restart,
        "seed": planned.seed,
        "same_run": False,
        "initial": run.initial_parameters,
        "iterations": dict(iterations),
        "steps": last["step"],
        "passes": last["step"] * (run.batch_tokens // run.recipe["batch"]["pack_tokens"]),
        "tokens": last["tokens"],
        "seconds": last["seconds"],
        "stages": [
            {
                "begin": begins[line["stage"]],
                "end": line["step"],
                "tasks": line["iterations"],
                "introduced": list(run.stages[line["stage"]].introduced),
            }
            for line in ends
        ],
        "heldout": _heldout(lines),
    }


def _scratch_run(planned: PlannedRun, run: RunRecord, lines: Sequence[_Line]) -> dict[str, Any]:
    heldout = _heldout(lines)
    return {
        "task": planned.task,
        "restart": planned.restart,
        "seed": planned.seed,
        "iterations": heldout[-1]["iterations"][planned.task],
        "initial": run.initial_parameters,
        "heldout": heldout,
    }


def _heldout(lines: Sequence[_Line]) -> list[dict[str, Any]]:
    return [
        {
            **{key: line[key] for key in ("step", "stage", "at", "iterations")},
            "tasks": {name: _figures(figures, line["at"]) for name, figures in line["tasks"].items()},
        }
        for line in lines
        if line["kind"] == "heldout"
    ]


def _figures(figures: _Line, at: str) -> dict[str, float | None]:
    """Return values with six digits; within a stage only accuracy and loss, to keep records small."""
    values = {key: figures[key] for key in ("accuracy", "loss")}
    if at != "during":
        values |= {key: figures[key] for key in ("low", "high", "instances")}
        values |= {key: figures[key]["accuracy"] for key in BASELINES}
    return {key: float(f"{value:.6g}") if math.isfinite(value) else None for key, value in values.items()}


def _common(run_records: Sequence[RunRecord], share: float, parallel: int) -> dict[str, Any]:
    """Return the values that all runs share, from the first run."""
    if not run_records:
        return {"machine": {}, "data": {"share": share}, "encoder": {}, "batch_tokens": None}
    run = run_records[0]
    data, encoder = run.data.as_json(), run.recipe["encoder"]
    return {
        "machine": {
            "device": run.device,
            "precision": run.precision,
            **{key: run.environment[key] for key in ("os", "cpu", "cores", "devices")},
            "versions": run.versions,
            "parallel": parallel,
        },
        "data": {**{key: data[key] for key in ("fingerprint", "vocab_size", "corpora")}, "share": share},
        "encoder": {**{key: encoder[key] for key in ("kind", "layers", "hidden")}, "parameters": run.parameters},
        "batch_tokens": run.batch_tokens,
    }
