"""Finished runs of a study → `study.json`, the one file its tables, page and picture are drawn from.

Everything is read off what the runs wrote down while they trained: iterations are those counted at the ends of stages,
never those planned.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ernie2.config.settings import Recipe
from ernie2.console import say
from ernie2.errors import ConfigError, DamagedFile, DataError
from ernie2.learned import BASELINES
from ernie2.storage.json_files import read_checked_json, read_json, with_checksum
from ernie2.studies.analysis.reading import FORMAT, SENSITIVITY_RULE, check_format
from ernie2.studies.arms import ARMS, Unit, order_of_tasks, same_without_restart, steps_of, units
from ernie2.studies.settings import StudySettings
from ernie2.studies.unit_runs import check_scored, unit_done
from ernie2.training.records import Records, read_run

NAME = "study.json"
SCORED = "results.json"


def record_of(settings: StudySettings, recipe: Recipe, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a study as far as it has come; `facts`: preset, status, created, finished, and how many runs went
    side by side (`parallel`).

    Runs that are not finished are left out; scores are there where their fine-tuning is. Raises `DataError` where runs
    were trained on different shards, `CheckpointError` where a folder holds another run than the study trains there.
    """
    facts = dict(facts)
    parallel = facts.pop("parallel", 1)
    runs, scratch = [], []
    described: list[dict[str, Any]] = []
    for unit in units(settings, recipe):
        folder = unit.folder(settings)
        if not unit_done(unit, settings):
            continue
        told = read_run(folder)
        described.append(told)
        if unit.arm is None:
            scratch.append(_scratch_of(unit, told, Records(folder).read()))
            continue
        runs.append(_run_of(unit, told, Records(folder).read(), _scores(unit, settings)))
        if same_without_restart(unit.arm) and unit.seed < settings.without_restart:
            runs.append({**runs[-1], "restart": SENSITIVITY_RULE, "same_run": True})
    _check_same_shards(described)
    return {
        "format": FORMAT,
        "kind": "study",
        "study": "table7",
        **facts,
        "settings": settings.model_dump(mode="json"),
        **_common(described, recipe.shards.share, parallel),
        "steps": steps_of(recipe),
        "transfer_at": settings.transfer_at,
        "tasks": _tasks(recipe, described),
        "arms": [
            {"name": arm.name, "title": arm.title, "method": arm.method, "combine": arm.combine}
            for arm in (ARMS[name] for name in settings.arms)
        ],
        "runs": runs,
        "scratch": scratch,
    }


def as_json(record: Mapping[str, Any]) -> bytes:
    """The content of `study.json`: a line a run, so that two records can be compared line by line, and a checksum."""
    parts = []
    for key, value in record.items():
        text = _line(value)
        if key in ("runs", "scratch") and value:
            text = "[\n" + ",\n".join(map(_line, value)) + "\n]"
        parts.append(f"{_line(key)}: {text}")
    return with_checksum("{\n" + ",\n".join(parts) + "\n}\n")


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def read_record(file: Path) -> dict[str, Any] | None:
    """The record in `file`, None where there is none; raises `DataError` where it is damaged or not as it was written.

    A record without a checksum, as earlier versions wrote, is read with a note.
    """
    try:
        record = read_json(file, dict)
        if "checksum" in record:
            return read_checked_json(file)
    except FileNotFoundError:
        return None
    except DamagedFile as error:
        raise DataError(f"{error} Put back a copy of it, or let the same `ernie2 study` write it again.") from error
    say(f"Note: {file} has no checksum, so a changed figure in it would not be noticed.")
    return record


def check_same_study(record: Mapping[str, Any] | None, settings: StudySettings) -> None:
    """Raises `ConfigError` where the folder holds a study of other settings, naming them; `_MAY_CHANGE` may.

    Raises `DataError` where it holds something else, or a record of another version.
    """
    if record is None:
        return
    check_format(record)
    before, now = _identity(record.get("settings") or {}), _identity(settings.model_dump(mode="json"))
    differ = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    if differ:
        named = "; ".join(f"{key}={_short(before.get(key))}, now {_short(now.get(key))}" for key in differ[:_NAMED])
        more = f"; and {len(differ) - _NAMED} more" if len(differ) > _NAMED else ""
        raise ConfigError(
            f"{settings.folder} holds a study with other settings: {named}{more}. Choose another folder (folder=…), or "
            "give it the settings it was begun with; seeds, arms, and runs from scratch and without restarts may be "
            "added."
        )


_MAY_CHANGE = (
    "folder", "seeds", "arms", "scratch", "without_restart", "keep", "finetuning.data", "finetuning.seeds",
    "recipe.name", "recipe.about",
)  # fmt: skip
"""Keys that leave the runs there are as they are."""
_NAMED, _LONGEST = 6, 60


def _short(value: Any) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _check_same_shards(described: Sequence[Mapping[str, Any]]) -> None:
    found = {told["data"]["fingerprint"]: told["recipe"]["run"] for told in described}
    if len(found) > 1:
        raise DataError(
            f"runs of this study were trained on different shards, {' and '.join(found.values())} among them: corpora "
            "or shards changed between. Remove the runs of one kind, or begin in another folder."
        )


def _identity(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        dotted = f"{above}{key}"
        if dotted in _MAY_CHANGE:
            continue
        if isinstance(value, Mapping) and value:
            flat |= _identity(value, f"{dotted}.")
        else:
            flat[dotted] = value
    return flat


def _run_of(
    unit: Unit, told: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], scores: Mapping[str, Any]
) -> dict[str, Any]:
    ends = [line for line in lines if line["kind"] == "stage" and line["event"] == "end"]
    begins = {line["stage"]: line["step"] for line in lines if line["kind"] == "stage" and line["event"] == "begin"}
    counted: Counter[str] = Counter()
    for line in ends:
        counted.update(line["iterations"])
    last = [line for line in lines if line["kind"] == "step"][-1]
    packs = told["batch_tokens"] // told["recipe"]["batch"]["pack_tokens"]
    return {
        "arm": unit.arm,
        "restart": unit.restart,
        "seed": unit.seed,
        "same_run": False,
        "initial": told["initial_parameters"],
        "iterations": dict(counted),
        "steps": last["step"],
        "passes": last["step"] * packs,
        "tokens": last["tokens"],
        "seconds": last["seconds"],
        "stages": [
            {
                "begin": begins[line["stage"]],
                "end": line["step"],
                "tasks": line["iterations"],
                "introduced": told["stages"][line["stage"]]["introduced"],
            }
            for line in ends
        ],
        "heldout": _heldout(lines),
        "scores": dict(scores),
    }


def _scratch_of(unit: Unit, told: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    heldout = _heldout(lines)
    return {
        "task": unit.task,
        "restart": unit.restart,
        "seed": unit.seed,
        "iterations": heldout[-1]["iterations"][unit.task],
        "initial": told["initial_parameters"],
        "heldout": heldout,
    }


def _heldout(lines: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Evaluations with six digits; inside a stage accuracy and loss alone, which keeps records small."""
    return [
        {
            **{key: line[key] for key in ("step", "stage", "at", "iterations")},
            "tasks": {name: _figures(figures, line["at"]) for name, figures in line["tasks"].items()},
        }
        for line in lines
        if line["kind"] == "heldout"
    ]


def _figures(figures: Mapping[str, Any], at: str) -> dict[str, float | None]:
    kept = {key: figures[key] for key in ("accuracy", "loss")}
    if at != "during":
        kept |= {key: figures[key] for key in ("low", "high", "instances")}
        kept |= {key: figures[key]["accuracy"] for key in BASELINES}
    return {key: float(f"{value:.6g}") if math.isfinite(value) else None for key, value in kept.items()}


def _scores(unit: Unit, settings: StudySettings) -> dict[str, Any]:
    """Set → metric, split and the values of every fine-tuning seed (None: it diverged), from results.json each.

    Raises `DataError` where a file cannot be read or scores the encoder of another run.
    """
    found = {}
    for file in sorted(unit.scores(settings).glob(f"*/{SCORED}")):
        try:
            record = read_json(file, dict)
            (told,) = record["datasets"]
            check_scored(unit, record["checkpoint"], file)
        except (DamagedFile, LookupError, TypeError, ValueError) as error:
            raise DataError(f"{file} cannot be read as results of fine-tuning: {error} Move it away.") from error
        row: Mapping[str, Any] = told["rows"][0] if told["rows"] else {"metric": "", "split": "dev", "values": {}}
        values: dict[str, float | None] = {**dict.fromkeys(told["diverged"]), **row["values"]}
        found[told["dataset"]] = {
            "metric": row["metric"],
            "split": row["split"],
            "standing": told["standing"],
            "train": told["examples"]["train"],
            "dev": told["examples"].get(row["split"], 0),
            "values": dict(sorted(values.items(), key=lambda one: int(one[0]))),
            "diverged": told["diverged"],
        }
    return found


def _common(described: Sequence[Mapping[str, Any]], share: float, parallel: int) -> dict[str, Any]:
    """What all runs share, from the first of them."""
    if not described:
        return {"machine": {}, "data": {"share": share}, "encoder": {}, "batch_tokens": None}
    first = described[0]
    encoder, data, machine = first["recipe"]["encoder"], first["data"], first["environment"]
    return {
        "machine": {
            "device": first["device"],
            "precision": first["precision"],
            **{key: machine[key] for key in ("os", "cpu", "cores", "devices")},
            "versions": first["versions"],
            "parallel": parallel,
        },
        "data": {**{key: data[key] for key in ("fingerprint", "vocab_size", "corpora")}, "share": share},
        "encoder": {**{key: encoder[key] for key in ("kind", "layers", "hidden")}, "parameters": first["parameters"]},
        "batch_tokens": first["batch_tokens"],
    }


def _tasks(recipe: Recipe, described: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    known = {task["name"]: task for told in described for task in told["tasks"]}
    return [
        {key: known.get(name, {}).get(key) or name for key in ("name", "title", "level")}
        for name in order_of_tasks(recipe)
    ]
