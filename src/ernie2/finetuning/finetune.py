"""Turn a checkpoint and labelled data into fine-tuned models and scores."""

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
from ernie2.training.hooks.named import HookSource, create_hooks
from ernie2.training.step import choose_precision

_FILES_HINT = "--train F --dev F (from Python: files={'train': F, 'dev': F})"


@dataclass(frozen=True)
class FinetuneResult:
    """The folder of results, and by data set its models: seed-k/model, loaded by `transformers` and `predict`.

    `record` is what results.json holds.
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
    """Fine-tunes a checkpoint of any kind on declared data sets or on files of your own, and measures it.

    `dataset`: a name of `datasets.registry.DATASETS`, or a group ("glue", "chinese"), read from the folder `data` or
    from `files` (split -> file). Without a `dataset`, `files` are your own (train, dev, test), with the columns `text`
    ("a" or "a,b") and `label`; `head` says the kind of task where the guess is wrong, `scheme` the tag scheme. Settings
    are the paper's for a model of this size; `settings` are "key=value" overrides. `seeds`: number of runs (5 for the
    paper's sets, 1 for your own). `submission`: a zip for the GLUE server, with `dataset="glue"`.
    `hooks`: classes of `ernie2.training.hooks.base.Hook`, or names of hooks, that take part in every run.

    Leaves out/<data set>/seed-k with result.json and model, and out/results.json, results.md and results.html; runs
    that are finished there are not done again. Raises `ConfigError`, `DataError`, `CheckpointError` for what cannot be
    done, before any training.
    """
    create_hooks(hooks)  # what cannot be made is refused before any work
    if out is not None:
        check_results_folder(Path(out))
    if submission is not None:
        check_submission_file(Path(submission))
    pretrained = load_pretrained(checkpoint, tokenizer)
    named, absent = _load_datasets(dataset, data, dict(files or {}), text, label, head, scheme)
    if submission is not None:
        _check_submission_data(dataset, named, absent)
    folder = Path(out) if out is not None else Path("finetuned") / _checkpoint_name(pretrained.where)
    jobs = [
        _build_job(pretrained, one, settings, task_id, folder, hooks)
        for one in named.values()
        if one.trained_on is None
    ]
    unfinished = unfinished_note(pretrained.where, pretrained.stored.where)
    remarks = [
        *([unfinished] if unfinished else []),
        *pretrained.tokenizer.notes,
        *_dataset_notes(data, named, absent, note_unlabelled=submission is None),
    ]
    for remark in remarks:
        log_warning(remark)
    with _results_folder(folder):
        runs, results = _run_jobs(jobs, named, seeds, parallel, tokenizer)
        if submission is not None:
            chosen = predict_submission(Path(submission), named, runs, available_devices()[0])
            remarks.append("submission: " + ", ".join(f"{name} by seed {seed}" for name, seed in chosen.items()))
            log_result(f"Submission: {submission}; the run that is best on dev predicted each test file")
        record = build_record(results, **_run_info(jobs[0][0], remarks, results))
        _log_glue_score(record, results)
        write_results(folder, record)
    return FinetuneResult(
        folder, {name: tuple(run.folder / MODEL for run in found) for name, found in runs.items()}, record
    )


@contextmanager
def _results_folder(folder: Path) -> Iterator[None]:
    """Lock the folder of results; where nothing comes of it, leave no empty folder that was made for it."""
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
    named: Mapping[str, LabelledData],
    seeds: int | None,
    parallel: int | None,
    tokenizer: str | None,
) -> tuple[dict[str, list[RunResult]], list[DatasetResult]]:
    """(runs by data set, outcomes of every set, those that are only scored included); the folder of jobs is locked."""
    runs: dict[str, list[RunResult]] = {}
    results: list[DatasetResult] = []
    for job, notes in jobs:
        said = _log_job(job, notes)
        name, shared = job.data.name, (job.settings, job.pretrained.shape, job.task_id, job.folder)
        count = seeds or (job.settings.runs if name in DATASETS else 1)
        runs[name] = run_seeds(job, range(count), parallel=parallel, tokenizer=tokenizer)
        made = summarise_runs(job.data, runs[name], *shared)
        log_result(
            "\n".join(format_result(replace(made, notes=tuple(note for note in made.notes if note not in said))))
        )
        results.append(replace(made, notes=(*notes, *made.notes)))
        for one in named.values():
            if one.trained_on == name and one.splits["test"].labelled:
                whole, scored = score_diagnostic(one, job.data, runs[name], available_devices()[0])
                results.append(summarise_runs(whole, scored, *shared))
                log_result("\n".join(format_result(results[-1])))
    return runs, results


def _dataset_notes(
    data: str | None, named: Mapping[str, LabelledData], absent: Sequence[str], *, note_unlabelled: bool
) -> list[str]:
    """What is said of sets without a run; `told`: of those that only a submission is predicted for, too."""
    bare = [
        one
        for one in named.values()
        if note_unlabelled and one.trained_on and not any(s.labelled for s in one.splits.values())
    ]
    return [
        *([f"not in {data}: {', '.join(absent)}"] if absent else []),
        *(
            f"{one.name} has no dev split here, so its models are not measured on one"
            for one in named.values()
            if one.trained_on is None and not any(split.startswith("dev") for split in one.splits)
        ),
        *(f"{one.name} has no labels here: the {one.trained_on} model predicts it with --submission" for one in bare),
    ]


def _check_submission_data(dataset: str | None, named: Mapping[str, LabelledData], absent: Sequence[str]) -> None:
    if dataset is None or dataset.lower() != "glue":
        raise ConfigError("--submission needs all of GLUE: --dataset glue --data FOLDER.")
    if absent:
        raise DataError(
            f"a submission needs every set of GLUE, with training and test files; missing: {', '.join(absent)}."
        )
    check_test_files(named)


def _log_glue_score(record: Mapping[str, Any], results: Sequence[DatasetResult]) -> None:
    """Say the GLUE score where there is one, or why there is none."""
    if record["glue_score"] is not None:
        part = [one.dataset for one in results if one.standing != "official"]
        words = f" (not comparable: {', '.join(part)} not whole)" if part else ""
        log_result(f"GLUE score on development data: {record['glue_score']:.1f}{words}")
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
    """The data sets by name, and those of a group that are not there."""
    if dataset is None:
        if folder is not None:
            raise ConfigError(f"--data {folder} needs --dataset: one of {', '.join((*DATASETS, *GROUPS))}.")
        if missing := [split for split in ("train", "dev") if split not in files]:
            raise ConfigError(
                f"there is no {missing[0]} file. Give --dataset NAME --data DIR, or for data of your own {_FILES_HINT} "
                "with --text COLUMN --label COLUMN."
            )
        train, dev, test = files["train"], files["dev"], files.get("test")
        one = load_user_data(train, dev, test, text=text, label=label, head=head, scheme=scheme)
        return {one.name: one}, ()
    if head is not None or scheme is not None:
        option = "head" if head is not None else "scheme"
        raise ConfigError(f"--{option} is for data of your own; that of {dataset} is declared.")
    if dataset.lower() in GROUPS:
        if folder is None:
            raise ConfigError(
                f"--dataset {dataset} needs --data, the folder that holds the sets, each in one of its own."
            )
        there, absent = find_available(dataset.lower(), folder)
        if not there:
            raise DataError(f"{folder} holds none of {', '.join(GROUPS[dataset.lower()])} in a folder of its own.")
        found = {name: load_dataset(name, folder) for name in there}
        bare = [name for name, one in found.items() if one.trained_on is None and "train" not in one.splits]
        left = {name: one for name, one in found.items() if name not in bare}
        if not any(one.trained_on is None for one in left.values()):
            raise DataError(f"{folder} has no training file of any set of {dataset}.")
        return left, (*absent, *(f"{name} (no training file)" for name in bare))
    if folder is None and not files:
        raise ConfigError(f"--dataset {dataset} needs --data, the folder that holds it, or its files: {_FILES_HINT}.")
    one = load_dataset(dataset, folder, files)
    if one.trained_on:
        raise ConfigError(
            f"{one.name} has no training file: the model of {one.trained_on} predicts it. Fine-tune "
            "on that, or on the whole group."
        )
    return {one.name: one} | _diagnostics(one.name, folder), ()


def _diagnostics(name: str, folder: str | None) -> dict[str, LabelledData]:
    """The labelled sets in `folder` that a model of the set `name` is scored on besides its own."""
    names = [other for other, one in DATASETS.items() if folder is not None and one.trained_on == name]
    found = [
        load_dataset(other, folder) for other in names if find_files(DATASETS[other], folder or "", include_root=False)
    ]
    return {one.name: one for one in found if one.splits["test"].labelled}


def _build_job(
    pretrained: PretrainedCheckpoint,
    data: LabelledData,
    overrides: Sequence[str],
    task_id: str | None,
    folder: Path,
    hooks: Sequence[HookSource],
) -> tuple[Job, tuple[str, ...]]:
    """The job of a data set, and what is said of its settings."""
    data.require_split("train")
    base = settings_for(data.name, pretrained.size) if data.name in DATASETS else default_settings(data.head)
    settings, told = fit_lengths(apply_assignments(base, overrides), pretrained, data.head)
    explicit = any(one.partition("=")[0].strip() == "task_id" for one in overrides)
    row, words = pretrained.task_id(task_id, settings, explicit=explicit)
    chosen = data.limit_train_examples(settings.train_examples)
    job = Job(pretrained, chosen, settings, row, folder / data.name, tuple(hooks))
    return job, (*told, *([words] if words else []), *data.reasons)


def _checkpoint_name(where: Path) -> str:
    """A name for a checkpoint's results: runs/b -> b, runs/b/hf -> b."""
    whole = where.resolve()
    return (
        whole.parent.name if whole.name in ("hf", "model", "params") else whole.stem if whole.is_file() else whole.name
    )


def _log_job(job: Job, notes: Sequence[str]) -> list[str]:
    """Say how a job is trained; return what was changed or left out in the files of its data, which is said with it."""
    settings, device = job.settings, available_devices()[0]
    log_info(
        f"\n{job.data.name}: {job.data.head}, {len(job.data.require_split('train').examples):,} training examples, "
        f"{quantity(settings.epochs, 'epoch')}, batch {settings.batch}, rate {settings.peak_lr:g}, "
        f"{settings.max_length} tokens, task id {job.task_id}; "
        f"on {device} in {choose_precision(settings.precision, device)}"
    )
    changed = list(dict.fromkeys(note for split in job.data.splits.values() for note in split.notes))
    for note in (*notes, *changed):
        if note in job.data.reasons:
            log_info(f"  {note}")
        else:
            log_warning(f"{job.data.name}: {note}")
    return changed


def _run_info(job: Job, notes: Sequence[str], results: Sequence[DatasetResult]) -> dict[str, Any]:
    pretrained, device = job.pretrained, available_devices()[0]
    encoder = pretrained.stored.settings
    ran = {seed for one in results for row in one.rows for seed in row.values}
    return {
        "kind": "finetuning",
        "checkpoint": str(pretrained.where),
        "layout": pretrained.stored.layout,
        "size": pretrained.size,
        "encoder": {"layers": encoder.layers, "hidden": encoder.hidden, "kind": encoder.kind},
        "seeds": sorted(ran | {seed for one in results for seed in one.diverged}),
        "device": str(device),
        "precision": choose_precision(job.settings.precision, device),
        "notes": list(notes),
    }
