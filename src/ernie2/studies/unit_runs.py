"""The run at a unit's place in a study: whether it is done, and whether it is the run that the study would train there.

A folder that lies at the right path may be another run: a copy of another seed, of another method, or a run of other
settings. Its recipe in run.json is compared key by key with the recipe of the unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ernie2.errors import CheckpointError, DataError
from ernie2.studies.arms import Unit, recipe_of
from ernie2.studies.settings import StudySettings
from ernie2.tasks.base import find
from ernie2.tasks.recipe import load_recipe
from ernie2.training.environment import check_rules
from ernie2.training.records import read_run

_MAY_DIFFER = ("run", "name", "about", "shards.folder")
"""Keys that change no parameter: where folders lie and what a run is called."""
_NAMED = 4


def done(folder: Path) -> bool:
    """Whether a run was trained to its end and has its results.

    Raises `CheckpointError` where it was under other rules.
    """
    try:
        facts = read_run(folder)
    except CheckpointError:
        return False
    if facts["status"] != "done" or not all((folder / name).exists() for name in ("hf", "report.html")):
        return False
    check_rules(facts, folder)
    return True


def unit_done(unit: Unit, settings: StudySettings) -> bool:
    """Whether the run of a unit is done.

    Raises `CheckpointError` where its folder holds another run, or one under other rules.
    """
    folder = unit.folder(settings)
    if not done(folder):
        return False
    check_unit(unit, settings)
    return True


def check_unit(unit: Unit, settings: StudySettings) -> None:
    """Raise `CheckpointError`, naming what differs, unless the folder of a unit holds a run of its recipe."""
    folder = unit.folder(settings)
    recorded = read_run(folder)["recipe"]
    differing = _differing(recorded, _described(unit, settings))
    if differing:
        more = f"; and {len(differing) - _NAMED} more" if len(differing) > _NAMED else ""
        raise CheckpointError(
            f"{folder} holds another run than this study trains there: {'; '.join(differing[:_NAMED])}{more}. Put the "
            "right run back, move this one away to train it anew, or choose another folder (folder=…)."
        )


def check_scored(unit: Unit, checkpoint: str, file: Path) -> None:
    """Raise `DataError` unless `checkpoint`, which `file` holds the scores of, is the encoder of the unit's run."""
    encoder = Path("runs", unit.name, "hf")
    if Path(checkpoint).parts[-len(encoder.parts) :] != encoder.parts:
        raise DataError(
            f"{file} holds scores of another encoder, {checkpoint}, not of {encoder}. Move it away to have the run "
            "scored again."
        )


def _described(unit: Unit, settings: StudySettings) -> dict[str, Any]:
    """The recipe of a unit as its run.json records it, without labels that only data can name."""
    recipe = load_recipe(recipe_of(unit, settings))
    tasks = {
        name: find(name).Options.model_validate(dict(options or {})).model_dump(mode="json")
        for name, options in recipe.tasks.items()
    }
    return {**recipe.model_dump(mode="json"), "tasks": tasks}


def _differing(recorded: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """`key=value where it must be value`, for every key that differs."""
    there, wanted = _flat(recorded), _flat(expected)
    found = []
    for key in sorted({*there, *wanted}):
        if key in _MAY_DIFFER or there.get(key) == wanted.get(key) or _decided_later(key, wanted.get(key)):
            continue
        found.append(f"{key}={_shown(there.get(key))} where it must be {_shown(wanted.get(key))}")
    return found


def _decided_later(key: str, wanted: Any) -> bool:
    """Whether a run fills this in: labels from its data, and the precision that `auto` became once it is resumed."""
    if key == "train.precision":
        return bool(wanted == "auto")
    return wanted is None and key.startswith("tasks.") and key.endswith(".labels")


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{above}{key}.")
        else:
            flat[f"{above}{key}"] = value
    return flat


def _shown(value: Any) -> str:
    return "not set" if value is None else str(value)
