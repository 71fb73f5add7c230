"""Scores of a labelled diagnostic set (AX) by the models that were fine-tuned on another set (MNLI)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from ernie2.datasets.examples import LabelledData
from ernie2.finetuning.inference.predictions import predict_texts
from ernie2.finetuning.jobs import MODEL, Run
from ernie2.finetuning.scoring.metrics import measure
from ernie2.finetuning.tuned_folder import load_tuned


def diagnose(
    diagnostic: LabelledData, trained_on: LabelledData, runs: Sequence[Run], device: torch.device
) -> tuple[LabelledData, tuple[Run, ...]]:
    """Score every run's model on the labelled splits of `diagnostic`.

    Returns the diagnostic set with the training split of `trained_on`, so that its standing covers both, and a run a
    seed with the diagnostic's figures. A run without figures of its own has none here.
    """
    splits = {name: split for name, split in diagnostic.splits.items() if split.labelled}
    scored = []
    for run in runs:
        figures = {}
        if run.metrics:
            tuned = load_tuned(run.folder / MODEL)
            for name, split in splits.items():
                outcomes = predict_texts(tuned, split.examples, device)
                figures[name] = measure(diagnostic, split.examples, [outcome.value for outcome in outcomes])
        scored.append(Run(run.seed, run.folder, figures, diverged=run.diverged))
    return replace(diagnostic, splits={"train": trained_on.splits["train"], **splits}), tuple(scored)
