"""Carry out a study that compares learning methods."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ernie2.config.overrides import apply_assignments
from ernie2.config.settings import Recipe
from ernie2.console import log_info, log_result, log_warning
from ernie2.datasets.registry import find_dataset, load_dataset
from ernie2.errors import ConfigError, DataError, RunStopped
from ernie2.finetuning.finetune import finetune
from ernie2.finetuning.paper import settings_for, size_for
from ernie2.reporting.study import markdown, page, picture
from ernie2.runs.prepare import prepare_shards, require_data
from ernie2.runs.start import pretrain, resume
from ernie2.storage.atomic import write_bytes, write_text
from ernie2.storage.locks import FolderLock
from ernie2.storage.removing import discard
from ernie2.studies.analysis.analyse import Analysis, analyse
from ernie2.studies.analysis.tables import spoken_lines
from ernie2.studies.arms import Unit, recipe_of, units
from ernie2.studies.identity import check_same_study, check_unit, unit_is_done
from ernie2.studies.record import NAME, as_json, read_record, record_of, results_of
from ernie2.studies.settings import StudySettings, load_settings
from ernie2.studies.side_by_side import side_by_side
from ernie2.training.checkpoints import begun


def study(preset: str = "small", overrides: Sequence[str] = (), parallel: int | None = None) -> Path:
    """Compares the learning methods of Table 7, seed by seed, and returns the folder of the study.

    `preset`: smoke, laptop, small or base; `overrides` are dotted keys of it, such as `seeds=3`,
    `finetuning.data=glue_data` or `recipe.train.peak_lr=1e-3`. `parallel`: runs side by side, by default one a GPU, and
    one on a CPU; figures do not depend on it, seconds do.

    Leaves study.json, study.md, study.html and forgetting.svg in the folder, from the start, brought up to date after
    every run. Given again, it goes on where it stopped, within a run too. Raises `ConfigError` or `DataError`
    before any training, `RunFailed` where a run fails or its process dies, `RunStopped` after SIGTERM or Ctrl-C.
    """
    settings = load_settings(preset, overrides)
    folder, recipe = Path(settings.folder), settings.checked_recipe()
    check_same_study(read_record(folder / NAME), settings)
    _check_sets(settings, recipe)
    if not (Path(recipe.shards.folder) / "shards.json").exists():
        require_data(recipe, of_study=True)
    with FolderLock(folder, otherwise="folder=FOLDER starts another study"):
        log_result("\n".join(["", *spoken_lines(_study(settings, recipe, folder, preset, parallel))]))
    return folder


def _study(settings: StudySettings, recipe: Recipe, folder: Path, preset: str, parallel: int | None) -> Analysis:
    """Carry out a study; `folder` is locked."""
    record = read_record(folder / NAME)
    check_same_study(record, settings)
    before = record or {}
    if settings.finetuning.data is None:
        log_info("No fine-tuning: give finetuning.data=FOLDER, which holds the sets, to score the encoders as well.")
    planned = units(settings, recipe)
    left = [unit for unit in planned if not _is_complete(unit, settings)]
    log_info(f"{len(planned)} pre-training runs, {len(planned) - len(left)} of them done")
    prepare_shards(recipe, None)
    at_once = min(parallel or max(1, torch.cuda.device_count()), max(1, len(left)))
    facts = {
        "preset": preset,
        "created": before.get("created") or _now(),
        "parallel": max(at_once, (before.get("machine") or {}).get("parallel", 1)),
    }

    def write_record() -> Analysis:
        over = all(_is_complete(unit, settings) for unit in planned)
        ended = before.get("finished") if not left else None  # what was finished before stays so
        status = {"status": "done", "finished": ended or _now()} if over else {"status": "running", "finished": None}
        return _write(folder, record_of(settings, recipe, **facts, **status))

    analysis = write_record()  # before the first run too, so that the folder is known for a study of these settings
    runs = before.get("runs") or ()
    if gone := sum(run["seed"] >= settings.seeds or run["arm"] not in settings.arms for run in runs):
        log_warning(
            f"{gone} finished runs are of seeds or arms that are not asked for this time (seeds={settings.seeds}, "
            f"arms={','.join(settings.arms)}): out of the record until they are, and still in {settings.folder}."
        )
    try:
        with closing(_carried_out(left, settings, at_once)) as carried_out:
            for unit in carried_out:
                log_info(f"done: {unit.name}")
                analysis = write_record()
    except RunStopped as error:
        raise RunStopped("asked to stop; what was trained is saved. The same command goes on from there.") from error
    return analysis


def study_again(file: str | Path, out: str | Path | None = None) -> Path:
    """Analyses the study.json of a study anew and returns the folder of its tables and page: beside it, or `out`.

    The same file gives the same tables to the digit. Raises `DataError` where it is no such record.
    """
    file = Path(file) / NAME if Path(file).is_dir() else Path(file)
    record = read_record(file)
    if record is None:
        raise DataError(f"there is no {file}. Give the study.json of a study, or its folder.")
    folder = Path(out) if out is not None else file.parent
    log_result("\n".join(spoken_lines(_write(folder, record))))
    return folder


def _write(folder: Path, record: Mapping[str, Any]) -> Analysis:
    """Write the record of a study, its tables, its page and its picture; return what they show.

    Raises `DataError` before anything is written where the record is damaged or compares unlikes.
    """
    analysis = analyse(record)
    drawn = {
        "study.md": markdown(analysis),
        "forgetting.svg": picture(analysis.record),
        "study.html": page(analysis),
    }
    write_bytes(folder / NAME, as_json(record))
    for name, text in drawn.items():
        write_text(folder / name, text, what_now=f"Free some space; the study itself is in {folder / NAME}.")
    return analysis


def _check_sets(settings: StudySettings, recipe: Recipe) -> None:
    """Reads every set and setting once, so that a study does not find out after days that one is not there."""
    tuning = settings.finetuning
    for name in tuning.sets:
        dataset = find_dataset(name)
        if dataset.head not in ("classification", "regression"):
            raise ConfigError(f"finetuning.sets: {name} is a {dataset.head} task; a study compares one figure a set.")
        apply_assignments(settings_for(dataset.name, size_for(recipe.encoder.layers)), tuning.assignments)
        if tuning.data is not None:
            data = load_dataset(name, tuning.data)
            data.require_split("train")
            if not any(split.startswith("dev") for split in data.splits):
                data.require_split("dev")


def _is_complete(unit: Unit, settings: StudySettings) -> bool:
    return unit_is_done(unit, settings) and not _unscored(unit, settings)


def _unscored(unit: Unit, settings: StudySettings) -> list[str]:
    """Sets on which this run has not been scored with as many seeds as asked for."""
    tuning = settings.finetuning
    if unit.arm is None or tuning.data is None:
        return []
    scored = {name: len(seeds) for name, seeds, _ in results_of(unit, settings)}
    return [name for name in tuning.sets if scored.get(name, 0) < tuning.seeds]


def _carried_out(left: Sequence[Unit], settings: StudySettings, at_once: int) -> Generator[Unit, None, None]:
    """Carries out runs, several at once where there are several devices, and yields each when it is done."""
    if at_once > 1:
        work = partial(_carry_out, settings=settings)
        yield from side_by_side(left, work, at_once, Path(settings.folder) / "logs")
        return
    for number, unit in enumerate(left, 1):
        log_info(f"\nRun {number} of {len(left)}: {unit.name}")
        _carry_out(unit, settings)
        yield unit


def _carry_out(unit: Unit, settings: StudySettings) -> None:
    """Pre-trains one run, or goes on with it, then scores it; a run that is done is not done again."""
    run, tuning = unit.folder(settings), settings.finetuning
    if not unit_is_done(unit, settings):
        if begun(run):
            check_unit(unit, settings)
            resume(run)
        else:
            pretrain(recipe_of(unit, settings))
    for name in _unscored(unit, settings):
        target = unit.scores(settings) / name
        finetune(run / "hf", name, tuning.data, seeds=tuning.seeds, settings=tuning.assignments, out=target)
        if not settings.keep:
            for model in target.glob("*/seed-*/model"):
                discard(model)
    if not settings.keep:
        discard(run / "checkpoints")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
