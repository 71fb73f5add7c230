"""Train and score the runs of a dataset, one per seed, sequentially or in parallel processes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ernie2.console import log_info, log_warning, progress
from ernie2.datasets.examples import Example, LabelledData
from ernie2.finetuning.encoding import EncodedData, ExampleEncoder
from ernie2.finetuning.finetuned_model import FinetunedConfig, FinetunedModel, load_finetuned, save_finetuned
from ernie2.finetuning.heads import EncoderWithHead, output_count
from ernie2.finetuning.inference.predictions import (
    ExamplePrediction,
    apply_threshold,
    positive_scores,
    predict_examples,
)
from ernie2.finetuning.jobs import MODEL, RESULT, Job, RunResult, load_finished_run, save_run
from ernie2.finetuning.pretrained import load_pretrained
from ernie2.finetuning.scoring.answers import RULES, choose_threshold
from ernie2.finetuning.scoring.metrics import compute_metrics
from ernie2.finetuning.training import train_model
from ernie2.formatting import quantity
from ernie2.processes import cores, hidden_main_module, run_in_processes
from ernie2.storage.atomic import make_folder, remove_leftovers
from ernie2.storage.locks import confirm_lock
from ernie2.storage.removing import remove
from ernie2.training.hooks.base import Hooks, OpenRun
from ernie2.training.hooks.loading import create_hooks


@dataclass(frozen=True)
class PreparedData:
    """The encoded dataset: `train` with labels, scored `splits` without; and the `Job.identity`."""

    train: EncodedData
    splits: Mapping[str, EncodedData]
    identity: Mapping[str, Any]


def evaluated_splits(data: LabelledData) -> tuple[str, ...]:
    """Return the splits to score: dev, or its parts, and every labelled test split."""
    return tuple(
        name
        for name, split in data.splits.items()
        if name.startswith("dev") or (name.startswith("test") and split.labelled)
    )


def prepare_data(job: Job) -> PreparedData:
    """Encode the dataset, once for all seeds."""
    encoder = ExampleEncoder(
        job.pretrained.tokenizer,
        job.data.head,
        job.data.labels,
        job.settings,
        job.pretrained.stored.settings.segment_types,
    )
    return PreparedData(
        encoder.encode(job.data.require_split("train").examples, labelled=True),
        {name: encoder.encode(job.data.splits[name].examples, labelled=False) for name in evaluated_splits(job.data)},
        job.identity(),
    )


def run_seed(job: Job, seed: int, device: torch.device, prepared: PreparedData, *, bar: bool = True) -> RunResult:
    """Train and score one seed, or load its finished run. Writes seed-k/result.json and seed-k/model.

    `bar`: show progress bars.
    """
    if (finished := load_finished_run(job, seed, prepared.identity)) is not None:
        return finished
    start = time.perf_counter()
    folder = job.run_folder(seed)
    if (folder / RESULT).exists():
        log_warning(f"{folder} has a result, but its model is missing or incomplete. Training seed {seed} again.")
    confirm_lock(job.folder.parent)
    remove_leftovers(job.folder)
    remove(folder)
    finetuned, missing = _build_model(job, seed)
    scorer = _SplitScorer(job, finetuned, prepared, device)
    dev = [name for name in prepared.splits if name.startswith("dev")]
    title = f"{job.data.name}, seed {seed}" if bar else None
    make_folder(folder)
    hooks = Hooks(create_hooks(job.hooks))
    with hooks.opened(OpenRun(folder)):
        history = train_model(
            finetuned.model,
            prepared.train.sequences,
            job.settings,
            seed,
            device,
            task_id=job.task_id,
            pad=job.pretrained.tokenizer.pad_id,
            title=title,
            after_epoch=lambda: {"metrics": scorer.score(dev)},
            hooks=hooks,
        )
    encoded = {"train": prepared.train, **prepared.splits}
    encoding_notes = [f"{name}: {note}" for name, data in encoded.items() for note in data.notes]
    metrics: dict[str, dict[str, float]] = {}
    if not history.diverged:  # the last epoch has scored dev already
        metrics = dict(history.epochs[-1]["metrics"]) if history.epochs else {}
        metrics |= scorer.score([name for name in prepared.splits if name not in metrics], title)
    collapsed = scorer.collapsed and f"{scorer.collapsed} after {quantity(len(history.losses), 'step')}"
    notes = [
        f"the checkpoint has no {name}: initialised from the seed"
        for name in missing
        if _uses_parameter(name, finetuned.model)
    ]
    if scorer.null_threshold is not None:
        notes.append(
            f"seed {seed}: no-answer threshold {scorer.null_threshold:.4f} (chosen on dev by best F1; dev scores are "
            "optimistic)"
        )
    result = RunResult(
        seed,
        folder,
        metrics,
        history.epochs,
        f"diverged: {history.diverged}" if history.diverged else collapsed,
        round(history.sequences_per_second, 2),
        round(time.perf_counter() - start, 2),
        [*notes, *encoding_notes],
        history.losses,
    )
    confirm_lock(job.folder.parent)
    remove_leftovers(job.folder)
    config = finetuned.config.model_copy(update={"null_threshold": scorer.null_threshold})
    save_finetuned(folder / MODEL, replace(finetuned, config=config))
    save_run(result, prepared.identity)
    return result


def available_devices() -> list[torch.device]:
    """Return all CUDA devices, or the CPU."""
    return [torch.device("cuda", i) for i in range(torch.cuda.device_count())] or [torch.device("cpu")]


def run_seeds(
    job: Job, seeds: Sequence[int], *, parallel: int | None = None, tokenizer: str | None = None
) -> list[RunResult]:
    """Return the run of every seed, in order; finished runs are loaded, others trained.

    `parallel`: number of runs at once, by default one per GPU, and one on a CPU. Results do not depend on it.
    """
    identity = job.identity()
    finished = {seed: run for seed in seeds if (run := load_finished_run(job, seed, identity)) is not None}
    remaining = [seed for seed in seeds if seed not in finished]
    if finished:
        log_info(f"{job.data.name}: finished seeds are skipped: {', '.join(map(str, finished))}")
    devices = available_devices()
    at_once = min(parallel or len(devices), len(remaining))
    if at_once <= 1:
        prepared = prepare_data(job) if remaining else None
        return [
            finished[seed] if prepared is None or seed in finished else run_seed(job, seed, devices[0], prepared)
            for seed in seeds
        ]
    threads = max(1, cores() // at_once)
    unloaded = replace(job, pretrained=None)  # type: ignore[arg-type]  # each process loads the checkpoint itself
    arguments = [
        (unloaded, job.pretrained.path, tokenizer, seed, str(devices[number % len(devices)]), threads)
        for number, seed in enumerate(remaining)
    ]
    with hidden_main_module(), progress(f"{job.data.name}, {at_once} at once", len(arguments), "runs") as bar:
        advice = "Run the same command to continue with the unfinished runs; a smaller --parallel needs less memory."
        for _ in run_in_processes(_run_in_process, arguments, at_once, advice=advice):
            bar.advance()
    return [one for seed in seeds if (one := load_finished_run(job, seed, identity)) is not None]


def _run_in_process(arguments: tuple[Job, Path, str | None, int, str, int]) -> None:
    """Train one seed in a worker process; the parent loads the result from disk."""
    unloaded, checkpoint, tokenizer, seed, device, threads = arguments
    torch.set_num_threads(threads)
    job = replace(unloaded, pretrained=load_pretrained(checkpoint, tokenizer))
    run_seed(job, seed, torch.device(device), prepare_data(job), bar=False)


def score_diagnostic(
    diagnostic: LabelledData, trained_on: LabelledData, runs: Sequence[RunResult], device: torch.device
) -> tuple[LabelledData, tuple[RunResult, ...]]:
    """Score every run's model on the labelled splits of `diagnostic`.

    Returns `diagnostic` with the training split of `trained_on`, so that its `provenance` covers both, and one run per
    seed with the metrics on `diagnostic`. A run without metrics gets none.
    """
    splits = {name: split for name, split in diagnostic.splits.items() if split.labelled}
    scored = []
    for run in runs:
        metrics = {}
        if run.metrics:
            finetuned = load_finetuned(run.folder / MODEL)
            for name, split in splits.items():
                predictions = predict_examples(finetuned, split.examples, device)
                values = [prediction.value for prediction in predictions]
                metrics[name] = compute_metrics(diagnostic, split.examples, values)
        scored.append(RunResult(run.seed, run.folder, metrics, diverged=run.diverged))
    return replace(diagnostic, splits={"train": trained_on.splits["train"], **splits}), tuple(scored)


class _SplitScorer:
    """Scores splits during training, chooses the no-answer threshold and detects constant predictions."""

    def __init__(self, job: Job, finetuned: FinetunedModel, prepared: PreparedData, device: torch.device) -> None:
        self._job, self._finetuned, self._prepared, self._device = job, finetuned, prepared, device
        self.collapsed = ""
        self.null_threshold: float | None = None

    def score(self, names: Sequence[str], title: str | None = None) -> dict[str, dict[str, float]]:
        """Return split -> metric -> percent. `title` of the progress bars; None hides them."""
        job, metrics = self._job, {}
        for name in names:
            examples = job.data.splits[name].examples
            bar = title and f"{title}, scoring {name}"
            predictions = predict_examples(
                self._finetuned, examples, self._device, self._prepared.splits[name], title=bar
            )
            if job.data.unanswerable:
                predictions = self._with_empty_answers(name, examples, predictions)
            values = [prediction.value for prediction in predictions]
            metrics[name] = compute_metrics(job.data, examples, values, positive_scores(predictions, job.data.positive))
            if name.startswith("dev"):
                self.collapsed = constant_prediction(job.data, examples, predictions)
        return metrics

    def _with_empty_answers(
        self, name: str, examples: Sequence[Example], predictions: Sequence[ExamplePrediction]
    ) -> list[ExamplePrediction]:
        """Return `predictions` with '' where the null score is above the threshold, which a dev split sets."""
        if name.startswith("dev"):
            texts = [str(prediction.value) for prediction in predictions]
            nulls = [prediction.null_score or 0.0 for prediction in predictions]
            rules = RULES[self._job.data.answer_rules or "squad"]
            self.null_threshold = choose_threshold(examples, texts, nulls, rules)
        return apply_threshold(predictions, self.null_threshold)


def _build_model(job: Job, seed: int) -> tuple[FinetunedModel, tuple[str, ...]]:
    """Return (the model before training, names of the parameters that the checkpoint lacks)."""
    data, settings = job.data, job.settings
    base_model, missing = job.pretrained.build(settings, seed)
    outputs = output_count(data.head, len(data.labels))
    model = EncoderWithHead(
        base_model.encoder, data.head, outputs, dropout=settings.dropout, seed=seed, pooling=settings.pooling
    )
    config = FinetunedConfig(
        head=data.head,
        labels=data.labels,
        settings=settings,
        dataset=data.name,
        texts=data.texts,
        positive=data.positive,
        answer_rules=data.answer_rules,
        metrics=data.metrics,
        scheme=data.scheme,
        per_character=_is_per_character(data.require_split("train").examples),
        task_id=job.task_id,
    )
    return FinetunedModel(model, job.pretrained.tokenizer, config, base_model.vocab_size, job.task_id), missing


def constant_prediction(
    data: LabelledData, examples: Sequence[Example], predictions: Sequence[ExamplePrediction]
) -> str:
    """Describe predictions that are all equal although the labels differ; else return ''."""
    if data.head == "span" or len({repr(example.label) for example in examples}) < 2:
        return ""
    if data.head == "regression":
        values = [float(prediction.value) for prediction in predictions if isinstance(prediction.value, int | float)]
        return "" if max(values) - min(values) > 1e-4 else f"predicts {values[0]:.3f} for everything"
    if data.head == "tagging":
        tags = Counter(tag for prediction in predictions for tag in _label_names(prediction.value))
        gold = {tag for example in examples for tag in _label_names(example.label)}
        return f"predicts {next(iter(tags))} for every token" if len(tags) == 1 and len(gold) > 1 else ""
    answers = {prediction.value for prediction in predictions}
    return "" if len(answers) > 1 else f"predicts {next(iter(answers))!r} for everything"


def _uses_parameter(name: str, model: EncoderWithHead) -> bool:
    """Return whether the initial value of parameter `name` matters; a missing task embedding is zero."""
    if name.startswith("encoder.pooler."):
        return model.head not in ("tagging", "span") and model.pooling == "first"
    return "embeddings.task" not in name


def _is_per_character(examples: Sequence[Example]) -> bool:
    """Return whether over 90 % of the tokens to tag are single characters, as in Chinese."""
    tokens = [token for example in examples for token in example.tokens]
    return bool(tokens) and sum(len(token) == 1 for token in tokens) > 0.9 * len(tokens)


def _label_names(label: Any) -> tuple[str, ...]:
    return tuple(map(str, label)) if isinstance(label, tuple) else ()
