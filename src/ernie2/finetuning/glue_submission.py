"""From finished runs on all of GLUE to the zip for its server: the run that is best on dev predicts each test file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ernie2.datasets.examples import Example, LabelledData
from ernie2.errors import DataError
from ernie2.finetuning.encoded import EncodedData, ExampleEncoder
from ernie2.finetuning.jobs import MODEL, Run
from ernie2.finetuning.predictions import Outcome, predict, with_threshold
from ernie2.finetuning.submission import FILES, write_submission
from ernie2.finetuning.tuned_folder import Tuned, load_tuned

_TRAINED_ON = {"ax": "mnli"}


@dataclass(frozen=True)
class Chosen:
    """Which run predicted a data set: the seed that is best on dev."""

    dataset: str
    seed: int


def check_tests(data: Mapping[str, LabelledData]) -> None:
    """Raises `DataError` with every test file that is not there or not of the official size, before anything is
    trained; `data` holds the sets by name."""
    problems = []
    for name, file in FILES.items():
        split = data[file.dataset].splits.get(file.split) if file.dataset in data else None
        if split is None:
            problems.append(f"{name}: {file.dataset} has no {file.split} split in the folder")
        elif len(split.examples) != file.rows:
            problems.append(
                f"{name}: {len(split.examples):,} rows in {split.files[0]}, the official file has {file.rows:,}"
            )
    if problems:
        raise DataError("a submission to GLUE needs every official test file.\n  " + "\n  ".join(problems))


def submit(
    out: Path, data: Mapping[str, LabelledData], runs: Mapping[str, Sequence[Run]], device: torch.device
) -> list[Chosen]:
    """Writes the zip and returns which runs predicted. Raises `DataError` where a set has no run with figures."""
    chosen: list[Chosen] = []
    values: dict[str, list[str | float]] = {}
    ids: dict[str, list[str]] = {}
    tuned: dict[str, Tuned] = {}
    for name, file in FILES.items():
        trained_on = _TRAINED_ON.get(file.dataset, file.dataset)
        if trained_on not in tuned:
            best = best_run(trained_on, runs.get(trained_on, ()))
            tuned = {trained_on: load_tuned(best.folder / MODEL)} | tuned
            chosen.append(Chosen(trained_on, best.seed))
        examples = data[file.dataset].splits[file.split].examples
        outcomes = outcomes_for(tuned[trained_on], examples, device)
        values[name] = [
            outcome.value if isinstance(outcome.value, float) else str(outcome.value) for outcome in outcomes
        ]
        numbers = [example.id for example in examples]
        if sorted(numbers) == sorted(str(number) for number in range(len(numbers))):
            ids[name] = numbers
    write_submission(out, values, ids)
    return chosen


def best_run(name: str, runs: Sequence[Run]) -> Run:
    """The run with the highest mean over its metrics on dev; the first of equals."""
    scored = [(_dev(run), run) for run in runs]
    scored = [(score, run) for score, run in scored if math.isfinite(score)]
    if not scored:
        raise DataError(f"no run of {name} has figures on dev, so none can predict its test file; see its results.")
    return max(scored, key=lambda pair: pair[0])[1]


def outcomes_for(
    tuned: Tuned, examples: Sequence[Example], device: torch.device, data: EncodedData | None = None
) -> list[Outcome]:
    """What a fine-tuned model predicts of examples without labels; `data`: what `encoded_for` made of them."""
    facts = tuned.facts
    data = data or encoded_for(tuned, examples)
    pad = tuned.wordpieces.pad_id
    outcomes = predict(tuned.model, data, examples, facts.labels, facts.settings, device, pad=pad)
    return with_threshold(outcomes, facts.null_threshold)


def encoded_for(tuned: Tuned, examples: Sequence[Example]) -> EncodedData:
    """The sequences of examples without labels, as a fine-tuned model reads them."""
    facts = tuned.facts
    encoder = ExampleEncoder(
        tuned.wordpieces, facts.head, facts.labels, facts.settings, tuned.model.encoder.settings.segment_types
    )
    return encoder.encode(examples, labelled=False)


def _dev(run: Run) -> float:
    figures = [value for split, metrics in run.metrics.items() if split.startswith("dev") for value in metrics.values()]
    return sum(figures) / len(figures) if figures else math.nan
