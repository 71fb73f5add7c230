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
from ernie2.reporting.study import render_html, render_markdown, render_svg
from ernie2.runs.prepare import prepare_shards, require_data
from ernie2.runs.start import pretrain, resume
from ernie2.storage.atomic import write_bytes, write_text
from ernie2.storage.locks import FolderLock
from ernie2.storage.removing import discard
from ernie2.studies.analysis.analyse import Analysis, analyse
from ernie2.studies.analysis.tables import summary_lines
from ernie2.studies.identity import check_run, check_same_study, is_run_done
from ernie2.studies.methods import PlannedRun, planned_runs, run_recipe
from ernie2.studies.parallel import run_parallel
from ernie2.studies.record import RECORD_FILE, build_record, finetuning_results, read_record, serialise_record
from ernie2.studies.settings import StudySettings, load_settings
from ernie2.training.checkpoints import begun


def study(preset: str = "small", overrides: Sequence[str] = (), parallel: int | None = None) -> Path:
    """Compares the learning methods of Table 7, seed by seed, and returns the folder of the study.

    `preset`: smoke, laptop, small or base; `overrides` are flatten keys of it, such as `seeds=3`,
    `finetuning.data=glue_data` or `recipe.train.peak_lr=1e-3`. `parallel`: runs side by side, by default one a GPU, and
    one on a CPU; figures do not depend on it, seconds do.

    Leaves study.json, study.md, study.html and forgetting.svg in the folder, from the start, brought up to date after
    every run. Given again, it goes on where it stopped, within a run too. Raises `ConfigError` or `DataError`
    before any training, `RunFailed` where a run fails or its process dies, `RunStopped` after SIGTERM or Ctrl-C.
    """
    settings = load_settings(preset, overrides)
    folder, recipe = Path(settings.folder), settings.checked_recipe()
    check_same_study(read_record(folder / RECORD_FILE), settings)
    _check_datasets(settings, recipe)
    if not (Path(recipe.shards.folder) / "shards.json").exists():
        require_data(recipe, of_study=True)
    with FolderLock(folder, alternative="folder=FOLDER starts another study"):
        log_result("\n".join(["", *summary_lines(_study(settings, recipe, folder, preset, parallel))]))
    return folder


def _study(settings: StudySettings, recipe: Recipe, folder: Path, preset: str, parallel: int | None) -> Analysis:
    """Carry out a study; `folder` is locked."""
    record = read_record(folder / RECORD_FILE)
    check_same_study(record, settings)
    before = record or {}
    if settings.finetuning.data is None:
        log_info("No fine-tuning: give finetuning.data=FOLDER, which holds the sets, to score the encoders as well.")
    plan = planned_runs(settings, recipe)
    left = [run for run in plan if not _is_complete(run, settings)]
    log_info(f"{len(plan)} pre-training runs, {len(plan) - len(left)} of them done")
    prepare_shards(recipe, None)
    workers = min(parallel or max(1, torch.cuda.device_count()), max(1, len(left)))
    facts = {
        "preset": preset,
        "created": before.get("created") or _now(),
        "parallel": max(workers, (before.get("machine") or {}).get("parallel", 1)),
    }

    def write_record() -> Analysis:
        over = all(_is_complete(run, settings) for run in plan)
        ended = before.get("finished") if not left else None  # what was finished before stays so
        status = {"status": "done", "finished": ended or _now()} if over else {"status": "running", "finished": None}
        return _write_outputs(folder, build_record(settings, recipe, **facts, **status))

    analysis = write_record()  # before the first run too, so that the folder is known for a study of these settings
    runs = before.get("runs") or ()
    if gone := sum(run["seed"] >= settings.seeds or run["arm"] not in settings.arms for run in runs):
        log_warning(
            f"{gone} finished runs are of seeds or arms that are not asked for this time (seeds={settings.seeds}, "
            f"arms={','.join(settings.arms)}): out of the record until they are, and still in {settings.folder}."
        )
    try:
        with closing(_run_all(left, settings, workers)) as completed:
            for run in completed:
                log_info(f"done: {run.name}")
                analysis = write_record()
    except RunStopped as error:
        raise RunStopped("asked to stop; what was trained is saved. The same command goes on from there.") from error
    return analysis


def analyse_study(file: str | Path, out: str | Path | None = None) -> Path:
    """Analyses the study.json of a study anew and returns the folder of its tables and page: beside it, or `out`.

    The same file gives the same tables to the digit. Raises `DataError` where it is no such record.
    """
    file = Path(file) / RECORD_FILE if Path(file).is_dir() else Path(file)
    record = read_record(file)
    if record is None:
        raise DataError(f"there is no {file}. Give the study.json of a study, or its folder.")
    folder = Path(out) if out is not None else file.parent
    log_result("\n".join(summary_lines(_write_outputs(folder, record))))
    return folder


def _write_outputs(folder: Path, record: Mapping[str, Any]) -> Analysis:
    """Write the record of a study, its tables, its page and its chart; return what they show.

    Raises `DataError` before anything is written where the record is damaged or compares unlikes.
    """
    analysis = analyse(record)
    drawn = {
        "study.md": render_markdown(analysis),
        "forgetting.svg": render_svg(analysis.record),
        "study.html": render_html(analysis),
    }
    write_bytes(folder / RECORD_FILE, serialise_record(record))
    for name, text in drawn.items():
        write_text(folder / name, text, advice=f"Free some space; the study itself is in {folder / RECORD_FILE}.")
    return analysis


def _check_datasets(settings: StudySettings, recipe: Recipe) -> None:
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


def _is_complete(planned: PlannedRun, settings: StudySettings) -> bool:
    return is_run_done(planned, settings) and not _missing_scores(planned, settings)


def _missing_scores(planned: PlannedRun, settings: StudySettings) -> list[str]:
    """Sets on which this run has not been scored with as many seeds as asked for."""
    tuning = settings.finetuning
    if planned.method is None or tuning.data is None:
        return []
    scored = {name: len(seeds) for name, seeds, _ in finetuning_results(planned, settings)}
    return [name for name in tuning.sets if scored.get(name, 0) < tuning.seeds]


def _run_all(left: Sequence[PlannedRun], settings: StudySettings, workers: int) -> Generator[PlannedRun, None, None]:
    """Carries out runs, several at once where there are several devices, and yields each when it is done."""
    if workers > 1:
        work = partial(_run_one, settings=settings)
        yield from run_parallel(left, work, workers, Path(settings.folder) / "logs")
        return
    for number, planned in enumerate(left, 1):
        log_info(f"\nRun {number} of {len(left)}: {planned.name}")
        _run_one(planned, settings)
        yield planned


def _run_one(planned: PlannedRun, settings: StudySettings) -> None:
    """Pre-trains one run, or goes on with it, then scores it; a run that is done is not done again."""
    run, tuning = planned.folder(settings), settings.finetuning
    if not is_run_done(planned, settings):
        if begun(run):
            check_run(planned, settings)
            resume(run)
        else:
            pretrain(run_recipe(planned, settings))
    for name in _missing_scores(planned, settings):
        target = planned.scores(settings) / name
        finetune(run / "hf", name, tuning.data, seeds=tuning.seeds, settings=tuning.assignments, out=target)
        if not settings.keep:
            for model in target.glob("*/seed-*/model"):
                discard(model)
    if not settings.keep:
        discard(run / "checkpoints")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
