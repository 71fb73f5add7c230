"""Run a study that compares learning methods."""

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
from ernie2.training.checkpoints import is_started

_RUNNING = {"status": "running", "finished": None}


def study(preset: str = "small", overrides: Sequence[str] = (), parallel: int | None = None) -> Path:
    """Compare the learning methods of Table 7, seed by seed, and return the folder of the study.

    `preset`: smoke, laptop, small or base. `overrides`: dotted keys such as `seeds=3`, `finetuning.data=glue_data` or
    `recipe.train.peak_lr=1e-3`. `parallel`: runs at the same time, by default one per GPU, or one on a CPU; it changes
    only the measured seconds.

    Writes study.json, study.md, study.html and forgetting.svg at the start and again after every run. Called again with
    the same arguments, it continues where it stopped, also within a run. Raises `ConfigError` or `DataError` before any
    training, `RunFailed` if a run fails or its process is killed, `RunStopped` after SIGTERM or Ctrl-C.
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
    """Run a study whose `folder` is locked."""
    record = read_record(folder / RECORD_FILE)
    check_same_study(record, settings)
    before = record or {}
    if settings.finetuning.data is None:
        log_info("No fine-tuning. Add finetuning.data=FOLDER, the folder of the datasets, to score the encoders too.")
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
        complete = all(_is_complete(run, settings) for run in plan)
        finished = before.get("finished") if not left else None  # keep the time of a study finished earlier
        status = {"status": "done", "finished": finished or _now()} if complete else _RUNNING
        return _write_outputs(folder, build_record(settings, recipe, **facts, **status))

    analysis = write_record()  # before the first run, so that the folder records the settings of the study
    runs = before.get("runs") or ()
    if excluded := sum(run["seed"] >= settings.seeds or run["method"] not in settings.methods for run in runs):
        log_warning(
            f"{excluded} finished runs have seeds or methods outside the current settings (seeds={settings.seeds}, "
            f"methods={','.join(settings.methods)}). They are not in the record now, but stay in {settings.folder}."
        )
    try:
        with closing(_run_all(left, settings, workers)) as completed:
            for run in completed:
                log_info(f"done: {run.name}")
                analysis = write_record()
    except RunStopped as error:
        raise RunStopped("a stop was requested; progress is saved. Run the same command again to continue.") from error
    return analysis


def analyse_study(file: str | Path, out: str | Path | None = None) -> Path:
    """Write the tables and page of a study.json again and return their folder: `out`, or that of the file.

    The output is deterministic. Raises `DataError` if the file is not the record of a study.
    """
    file = Path(file) / RECORD_FILE if Path(file).is_dir() else Path(file)
    record = read_record(file)
    if record is None:
        raise DataError(f"no such file: {file}. Give the study.json of a study, or its folder.")
    folder = Path(out) if out is not None else file.parent
    log_result("\n".join(summary_lines(_write_outputs(folder, record))))
    return folder


def _write_outputs(folder: Path, record: Mapping[str, Any]) -> Analysis:
    """Write the record of a study, its tables, page and chart; return the analysis.

    Raises `DataError` before writing if the record is damaged or its runs are not comparable.
    """
    analysis = analyse(record)
    outputs = {
        "study.md": render_markdown(analysis),
        "forgetting.svg": render_svg(analysis.record),
        "study.html": render_html(analysis),
    }
    write_bytes(folder / RECORD_FILE, serialise_record(record))
    for name, text in outputs.items():
        write_text(folder / name, text, advice=f"Free some space; the record of the study is {folder / RECORD_FILE}.")
    return analysis


def _check_datasets(settings: StudySettings, recipe: Recipe) -> None:
    """Load every dataset and its settings once, so that a study does not fail on a missing one after days."""
    tuning = settings.finetuning
    for name in tuning.datasets:
        dataset = find_dataset(name)
        if dataset.head not in ("classification", "regression"):
            raise ConfigError(
                f"finetuning.datasets: {name} is a {dataset.head} task; a study needs datasets for classification or "
                "regression, which have one score."
            )
        apply_assignments(settings_for(dataset.name, size_for(recipe.encoder.layers)), tuning.assignments)
        if tuning.data is not None:
            data = load_dataset(name, tuning.data)
            data.require_split("train")
            if not any(split.startswith("dev") for split in data.splits):
                data.require_split("dev")


def _is_complete(planned: PlannedRun, settings: StudySettings) -> bool:
    return is_run_done(planned, settings) and not _missing_scores(planned, settings)


def _missing_scores(planned: PlannedRun, settings: StudySettings) -> list[str]:
    """Return the datasets for which this run has fewer fine-tuning seeds than required."""
    tuning = settings.finetuning
    if planned.method is None or tuning.data is None:
        return []
    scored = {name: len(seeds) for name, seeds, _ in finetuning_results(planned, settings)}
    return [name for name in tuning.datasets if scored.get(name, 0) < tuning.seeds]


def _run_all(left: Sequence[PlannedRun], settings: StudySettings, workers: int) -> Generator[PlannedRun, None, None]:
    """Execute runs, `workers` at a time, and yield each when it is done."""
    if workers > 1:
        work = partial(_run_one, settings=settings)
        yield from run_parallel(left, work, workers, Path(settings.folder) / "logs")
        return
    for number, planned in enumerate(left, 1):
        log_info(f"\nRun {number} of {len(left)}: {planned.name}")
        _run_one(planned, settings)
        yield planned


def _run_one(planned: PlannedRun, settings: StudySettings) -> None:
    """Pre-train or resume one run, then fine-tune on every dataset; skip finished parts."""
    run, tuning = planned.folder(settings), settings.finetuning
    if not is_run_done(planned, settings):
        if is_started(run):
            check_run(planned, settings)
            resume(run)
        else:
            pretrain(run_recipe(planned, settings))
    for name in _missing_scores(planned, settings):
        target = planned.scores(settings) / name
        finetune(run / "hf", name, tuning.data, seeds=tuning.seeds, settings=tuning.assignments, out=target)
        if not settings.keep_checkpoints:
            for model in target.glob("*/seed-*/model"):
                discard(model)
    if not settings.keep_checkpoints:
        discard(run / "checkpoints")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
