"""Check that a folder contains the study or run of the given settings; errors list the keys that differ.

A folder at the right path may contain a copy of another seed, another method, or a run of other settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ernie2.config.overrides import flatten
from ernie2.errors import CheckpointError, ConfigError
from ernie2.runs.recipes import load_recipe
from ernie2.studies.analysis.schema import check_format
from ernie2.studies.methods import PlannedRun, run_recipe
from ernie2.studies.settings import StudySettings
from ernie2.tasks.base import find_task
from ernie2.training.environment import check_rules
from ernie2.training.run_record import read_run

_STUDY_MAY_CHANGE = (
    "folder", "seeds", "methods", "scratch", "seeds_without_restart", "keep_checkpoints",
    "finetuning.data", "finetuning.seeds", "recipe.name", "recipe.about",
)  # fmt: skip
"""Settings of a study that do not affect existing runs."""
_RUN_MAY_DIFFER = ("run", "name", "about", "shards.folder")
"""Keys of a recipe that do not affect parameters: folders and descriptions."""
_MAX_KEYS, _MAX_LENGTH = 6, 60


def check_same_study(record: Mapping[str, Any] | None, settings: StudySettings) -> None:
    """Raise `ConfigError`, with the keys, if the folder contains a study of other settings than `_STUDY_MAY_CHANGE`.

    Raises `DataError` if it contains something else, or a record of another version.
    """
    if record is None:
        return
    check_format(record)
    before, now = flatten(record.get("settings") or {}), flatten(settings.model_dump(mode="json"))
    if differing := _differences(before, now, ", now ", _STUDY_MAY_CHANGE.__contains__):
        raise ConfigError(
            f"{settings.folder} contains a study with other settings: {differing}. Choose another folder (folder=…) "
            "or use the original settings; seeds, methods, and runs from scratch and without restarts may be added."
        )


def is_done(folder: Path) -> bool:
    """Return whether a run is finished and has its outputs; raises `CheckpointError` if it was trained by other
    rules."""
    try:
        run = read_run(folder)
    except CheckpointError:
        return False
    if run.status != "done" or not all((folder / name).exists() for name in ("hf", "report.html")):
        return False
    check_rules(run.rules, folder)
    return True


def is_run_done(planned: PlannedRun, settings: StudySettings) -> bool:
    """Return whether a planned run is done. Raises `CheckpointError` if the folder holds another run or other rules."""
    if done := is_done(planned.folder(settings)):
        check_run(planned, settings)
    return done


def check_run(planned: PlannedRun, settings: StudySettings) -> None:
    """Raise `CheckpointError`, with the keys that differ, unless the folder of a planned run has a run of its
    recipe."""
    folder, recipe = planned.folder(settings), load_recipe(run_recipe(planned, settings))
    tasks = {
        name: find_task(name).Options.model_validate(dict(options or {})).model_dump(mode="json")
        for name, options in recipe.tasks.items()
    }
    expected = flatten({**recipe.model_dump(mode="json"), "tasks": tasks})

    def may_differ(key: str) -> bool:
        """Return whether the run itself sets this key: labels from the data, and the precision that `auto` selected."""
        labels = key.startswith("tasks.") and key.endswith(".labels") and expected.get(key) is None
        return key in _RUN_MAY_DIFFER or labels or (key == "train.precision" and expected[key] == "auto")

    if differing := _differences(flatten(read_run(folder).recipe), expected, ", expected ", may_differ):
        raise CheckpointError(
            f"{folder} contains a run of another recipe than this study's: {differing}. Restore the right run, move "
            "this one away to train it again, or choose another folder (folder=…)."
        )


def _differences(
    actual: Mapping[str, Any], expected: Mapping[str, Any], separator: str, ignored: Callable[[str], bool]
) -> str:
    """Return the keys with different values, "train.peak_lr=2.0, now 1.0; …", or an empty string."""
    keys = [key for key in sorted({*actual, *expected}) if actual.get(key) != expected.get(key) and not ignored(key)]
    named = [f"{key}={_shorten(actual.get(key))}{separator}{_shorten(expected.get(key))}" for key in keys[:_MAX_KEYS]]
    return "; ".join([*named, *([f"and {len(keys) - _MAX_KEYS} more"] if len(keys) > _MAX_KEYS else [])])


def _shorten(value: Any) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= _MAX_LENGTH else f"{text[: _MAX_LENGTH - 1]}…"
