"""Fine-tune a checkpoint on labelled data and score it: the API function `ernie2.finetune`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ernie2.config.overrides import apply_assignments
from ernie2.console import log_info, log_result, log_warning
from ernie2.datasets.examples import LabelledData
from ernie2.datasets.official_files import find_files
from ernie2.datasets.registry import DATASETS, GROUPS, find_available, load_dataset
from ernie2.datasets.user_data import load_user_data
from ernie2.errors import ConfigError, DataError
from ernie2.finetuning.glue_submission import check_test_files, predict_submission
from ernie2.finetuning.jobs import MODEL, Job, RunResult
from ernie2.finetuning.overwrite_checks import check_results_folder, check_submission_file
from ernie2.finetuning.paper import default_settings, settings_for
from ernie2.finetuning.pretrained import PretrainedCheckpoint, fit_lengths, load_pretrained
from ernie2.finetuning.runs import available_devices, run_seeds, score_diagnostic
from ernie2.finetuning.scoring.results import DatasetResult, build_record, format_result, summarise_runs
from ernie2.formatting import quantity
from ernie2.reporting.finetuning import write_results
from ernie2.runs.sources import unfinished_note
from ernie2.storage.locks import FolderLock
from ernie2.storage.removing import remove_empty
from ernie2.training.hooks.loading import HookSource, create_hooks
from ernie2.training.step import choose_precision

_FILES_HINT = "--train F --dev F (from Python: files={'train': F, 'dev': F})"


@dataclass(frozen=True)
class FinetuneResult:
    """Results of `finetune`.

    `folder`: folder of the results. `models`: dataset -> model folders (seed-k/model), which `transformers` and
    `predict` load. `record`: contents of results.json.
    """

    folder: Path
    models: Mapping[str, tuple[Path, ...]]
    record: Mapping[str, Any]


def finetune(
    checkpoint: str | Path,
    dataset: str | None = None,
    data: str | None = None,
    *,
    files: Mapping[str, str] | None = None,
    text: str = "text",
    label: str = "label",
    head: str | None = None,
    scheme: str | None = None,
    seeds: int | None = None,
    settings: Sequence[str] = (),
    task_id: str | None = None,
    out: str | Path | None = None,
    submission: str | Path | None = None,
    tokenizer: str | None = None,
    parallel: int | None = None,
    hooks: Sequence[HookSource] = (),
) -> FinetuneResult:
    """Fine-tune a checkpoint on known datasets or on your own files, and score it.

    `dataset`: a name of `datasets.registry.DATASETS` or a group ("glue", "chinese"), read from the folder `data` or
    from `files` (split -> file). Without it, `files` are your own (train, dev, test), with the columns `text`
    ("a" or "a,b") and `label`; `head` and `scheme` override the detected kind of task and tag scheme.
    `settings`: "key=value" overrides of the paper's settings for this model size. `seeds`: number of runs (by default
    5 for the paper's datasets, 1 for your own). `submission`: write a zip for the GLUE server; needs `dataset="glue"`.
    `hooks`: classes of `ernie2.training.hooks.base.Hook`, or names of hooks, for every run.

    Writes out/DATASET/seed-k with result.json and model, and out/results.json, results.md and results.html. Finished
    runs in `out` are reused. Raises `ConfigError`, `DataError` or `CheckpointError` before any training.
    """
    create_hooks(hooks)  # fail before any work
    if out is not None:
        check_results_folder(Path(out))
    if submission is not None:
        check_submission_file(Path(submission))
    pretrained = load_pretrained(checkpoint, tokenizer)
    datasets, absent = _load_datasets(dataset, data, dict(files or {}), text, label, head, scheme)
    if submission is not None:
        _check_submission_data(dataset, datasets, absent)
    folder = Path(out) if out is not None else Path("finetuned") / _checkpoint_name(pretrained.path)
    trained = [one for one in datasets.values() if one.trained_on is None]
    jobs = [_build_job(pretrained, one, settings, task_id, folder, hooks) for one in trained]
    unfinished = unfinished_note(pretrained.path, pretrained.stored.where)
    notes = [
        *([unfinished] if unfinished else []),
        *pretrained.tokenizer.notes,
        *_dataset_notes(data, datasets, absent, note_unlabelled=submission is None),
    ]
    for note in notes:
        log_warning(note)
    with _results_folder(folder):
        runs, results = _run_jobs(jobs, datasets, seeds, parallel, tokenizer)
        if submission is not None:
            chosen = predict_submission(Path(submission), datasets, runs, available_devices()[0])
            notes.append("submission: " + ", ".join(f"{name} by seed {seed}" for name, seed in chosen.items()))
            log_result(f"Submission: {submission}, predicted by the best run on dev of each dataset")
        record = build_record(results, **_run_info(jobs[0][0], notes, results))
        _log_glue_score(record, results)
        write_results(folder, record)
    models = {name: tuple(run.folder / MODEL for run in seed_runs) for name, seed_runs in runs.items()}
    return FinetuneResult(folder, models, record)


@contextmanager
def _results_folder(folder: Path) -> Iterator[None]:
    """Lock the folder of results; on failure, remove the empty folders created for it."""
    new = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        with FolderLock(folder, alternative="name another folder with --out"):
            try:
                yield
            except BaseException:
                seeds = list(folder.glob("*/seed-*"))
                remove_empty(*seeds, *(seed.parent for seed in seeds))
                raise
    except BaseException:
        remove_empty(*new)
        raise


def _run_jobs(
    jobs: Sequence[tuple[Job, tuple[str, ...]]],
    datasets: Mapping[str, LabelledData],
    seeds: int | None,
    parallel: int | None,
    tokenizer: str | None,
) -> tuple[dict[str, list[RunResult]], list[DatasetResult]]:
    """Return (runs by dataset, results of all datasets and diagnostics). The caller locks the folder."""
    runs: dict[str, list[RunResult]] = {}
    results: list[DatasetResult] = []
    for job, notes in jobs:
        logged = _log_job(job, notes)
        name, shared = job.data.name, (job.settings, job.pretrained.shape, job.task_id, job.folder)
        count = seeds or (job.settings.runs if name in DATASETS else 1)
        runs[name] = run_seeds(job, range(count), parallel=parallel, tokenizer=tokenizer)
        result = summarise_runs(job.data, runs[name], *shared)
        unlogged = tuple(note for note in result.notes if note not in logged)
        log_result("\n".join(format_result(replace(result, notes=unlogged))))
        results.append(replace(result, notes=(*notes, *result.notes)))
        for one in datasets.values():
            if one.trained_on == name and one.splits["test"].labelled:
                diagnostic, scored = score_diagnostic(one, job.data, runs[name], available_devices()[0])
                results.append(summarise_runs(diagnostic, scored, *shared))
                log_result("\n".join(format_result(results[-1])))
    return runs, results


def _dataset_notes(
    data: str | None, datasets: Mapping[str, LabelledData], absent: Sequence[str], *, note_unlabelled: bool
) -> list[str]:
    """Return notes on missing datasets and dev splits and, if `note_unlabelled`, on diagnostics without labels."""
    unlabelled = [
        one
        for one in datasets.values()
        if note_unlabelled and one.trained_on and not any(s.labelled for s in one.splits.values())
    ]
    return [
        *([f"not in {data}: {', '.join(absent)}"] if absent else []),
        *(
            f"{one.name} has no dev split here, so its models get no dev scores"
            for one in datasets.values()
            if one.trained_on is None and not any(split.startswith("dev") for split in one.splits)
        ),
        *(
            f"{one.name} has no labels here: the {one.trained_on} model predicts it with --submission"
            for one in unlabelled
        ),
    ]


def _check_submission_data(dataset: str | None, datasets: Mapping[str, LabelledData], absent: Sequence[str]) -> None:
    if dataset is None or dataset.lower() != "glue":
        raise ConfigError("--submission needs all of GLUE: --dataset glue --data FOLDER.")
    if absent:
        raise DataError(
            f"a submission needs all datasets of GLUE, with training and test files; missing: {', '.join(absent)}."
        )
    check_test_files(datasets)


def _log_glue_score(record: Mapping[str, Any], results: Sequence[DatasetResult]) -> None:
    """Log the GLUE score, or why there is none."""
    if record["glue_score"] is not None:
        unofficial = [one.dataset for one in results if one.provenance != "official"]
        note = f" (not comparable: not the full official data of {', '.join(unofficial)})" if unofficial else ""
        log_result(f"GLUE score on development data: {record['glue_score']:.1f}{note}")
    if record["glue_withheld"]:
        log_result(record["glue_withheld"])


def _load_datasets(
    dataset: str | None,
    folder: str | None,
    files: Mapping[str, str],
    text: str,
    label: str,
    head: str | None,
    scheme: str | None,
) -> tuple[dict[str, LabelledData], tuple[str, ...]]:
    """Return (datasets by name, missing datasets of the group)."""
    if dataset is None:
        if folder is not None:
            raise ConfigError(f"--data {folder} needs --dataset, one of {', '.join((*DATASETS, *GROUPS))}.")
        if missing := [split for split in ("train", "dev") if split not in files]:
            raise ConfigError(
                f"no {missing[0]} file given. Use --dataset NAME --data DIR, or for your own data {_FILES_HINT} "
                "with --text COLUMN --label COLUMN."
            )
        train, dev, test = files["train"], files["dev"], files.get("test")
        one = load_user_data(train, dev, test, text=text, label=label, head=head, scheme=scheme)
        return {one.name: one}, ()
    if head is not None or scheme is not None:
        option = "head" if head is not None else "scheme"
        raise ConfigError(f"--{option} is only for your own data; {dataset} sets it. Remove --{option}.")
    if dataset.lower() in GROUPS:
        if folder is None:
            raise ConfigError(f"--dataset {dataset} needs --data, the folder with one subfolder per dataset.")
        present, absent = find_available(dataset.lower(), folder)
        if not present:
            raise DataError(f"{folder} has no subfolder with the files of any of {', '.join(GROUPS[dataset.lower()])}.")
        loaded = {name: load_dataset(name, folder) for name in present}
        untrainable = [name for name, one in loaded.items() if one.trained_on is None and "train" not in one.splits]
        usable = {name: one for name, one in loaded.items() if name not in untrainable}
        if not any(one.trained_on is None for one in usable.values()):
            raise DataError(f"{folder} has no training file of any dataset of {dataset}.")
        return usable, (*absent, *(f"{name} (no training file)" for name in untrainable))
    if folder is None and not files:
        raise ConfigError(f"--dataset {dataset} needs --data, the folder with its files, or the files: {_FILES_HINT}.")
    one = load_dataset(dataset, folder, files)
    if one.trained_on:
        raise ConfigError(
            f"{one.name} has no training file: the {one.trained_on} model predicts it. Fine-tune on {one.trained_on}, "
            "or on the entire group."
        )
    return {one.name: one} | _diagnostics(one.name, folder), ()


def _diagnostics(name: str, folder: str | None) -> dict[str, LabelledData]:
    """Return the labelled diagnostic datasets in `folder` that the model of `name` is scored on too."""
    names = [other for other, one in DATASETS.items() if folder is not None and one.trained_on == name]
    loaded = [
        load_dataset(other, folder) for other in names if find_files(DATASETS[other], folder or "", include_root=False)
    ]
    return {one.name: one for one in loaded if one.splits["test"].labelled}


def _build_job(
    pretrained: PretrainedCheckpoint,
    data: LabelledData,
    overrides: Sequence[str],
    task_id: str | None,
    folder: Path,
    hooks: Sequence[HookSource],
) -> tuple[Job, tuple[str, ...]]:
    """Return (the job of a dataset, notes on its settings)."""
    data.require_split("train")
    base = settings_for(data.name, pretrained.size) if data.name in DATASETS else default_settings(data.head)
    settings, length_notes = fit_lengths(apply_assignments(base, overrides), pretrained, data.head)
    explicit = any(one.partition("=")[0].strip() == "task_id" for one in overrides)
    chosen_id, id_note = pretrained.task_id(task_id, settings, explicit=explicit)
    limited = data.limit_train_examples(settings.max_train_examples)
    job = Job(pretrained, limited, settings, chosen_id, folder / data.name, tuple(hooks))
    return job, (*length_notes, *([id_note] if id_note else []), *data.reasons)


def _checkpoint_name(path: Path) -> str:
    """Return a folder name for a checkpoint: runs/b -> b, runs/b/hf -> b."""
    path = path.resolve()
    return path.parent.name if path.name in ("hf", "model", "params") else path.stem if path.is_file() else path.name


def _log_job(job: Job, notes: Sequence[str]) -> list[str]:
    """Log the settings and notes of a job; return the notes on its splits, which are then not logged again."""
    settings, device = job.settings, available_devices()[0]
    log_info(
        f"\n{job.data.name}: {job.data.head}, {len(job.data.require_split('train').examples):,} training examples, "
        f"{quantity(settings.epochs, 'epoch')}, batch size {settings.batch_size}, peak_lr {settings.peak_lr:g}, "
        f"{settings.max_length} tokens, task id {job.task_id}, "
        f"on {device} in {choose_precision(settings.precision, device)}"
    )
    split_notes = list(dict.fromkeys(note for split in job.data.splits.values() for note in split.notes))
    for note in (*notes, *split_notes):
        if note in job.data.reasons:
            log_info(f"  {note}")
        else:
            log_warning(f"{job.data.name}: {note}")
    return split_notes


def _run_info(job: Job, notes: Sequence[str], results: Sequence[DatasetResult]) -> dict[str, Any]:
    pretrained, device = job.pretrained, available_devices()[0]
    encoder = pretrained.stored.settings
    finished = {seed for one in results for row in one.rows for seed in row.values}
    return {
        "kind": "finetuning",
        "checkpoint": str(pretrained.path),
        "layout": pretrained.stored.layout,
        "size": pretrained.size,
        "encoder": {"layers": encoder.layers, "hidden": encoder.hidden, "kind": encoder.kind},
        "seeds": sorted(finished | {seed for one in results for seed in one.diverged}),
        "device": str(device),
        "precision": choose_precision(job.settings.precision, device),
        "notes": list(notes),
    }
