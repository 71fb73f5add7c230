"""What the paper reports in Table 7, as data: dev accuracy in percent of three learning methods.

Base size, 10 % of the authors' corpus, 50,000 iterations a task, each figure the mean of five fine-tuning runs. The
paper gives no spread, and no number of pre-training runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ITERATIONS = 50_000
"""Of each task, in all three methods."""


@dataclass(frozen=True)
class PaperArm:
    """One method: dev accuracy in percent by data set (`mnli` is the matched half), and iterations stage by stage."""

    arm: str
    title: str
    scores: Mapping[str, float]
    stages: tuple[Mapping[str, int], ...]


TASKS = ("knowledge_masking", "capitalization_prediction", "token_document_relation", "sentence_reordering")
"""In the order in which they enter."""

SETS = ("mnli", "sst2", "mrpc")
"""The data sets it scores on, dev; `mnli` is its matched half."""


def _stages(*thousands: tuple[int, ...]) -> tuple[Mapping[str, int], ...]:
    """Each row is a stage: thousands of iterations of the tasks in their order, 0 where a task rests."""
    return tuple({task: 1000 * count for task, count in zip(TASKS, row, strict=True) if count} for row in thousands)


PAPER_TABLE_7 = (
    PaperArm(
        "continual",
        "continual learning",
        dict(zip(SETS, (77.3, 86.4, 82.5), strict=True)),
        _stages((50, 0, 0, 0), (0, 50, 0, 0), (0, 0, 50, 0), (0, 0, 0, 50)),
    ),
    PaperArm(
        "multitask",
        "multi-task learning",
        dict(zip(SETS, (78.7, 87.5, 83.0), strict=True)),
        _stages((50, 50, 50, 50)),
    ),
    PaperArm(
        "continual_multitask",
        "continual multi-task learning",
        dict(zip(SETS, (79.0, 87.8, 84.0), strict=True)),
        _stages((20, 0, 0, 0), (10, 30, 0, 0), (10, 10, 40, 0), (10, 10, 10, 50)),
    ),
)
"""The table's rows."""

PAPER_WORDS = (
    "The paper’s figures are of a base-size model (12 layers × 768) trained on 10 % of the authors’ corpus with 50,000 "
    "iterations a task; each is the mean of five fine-tuning runs, and no spread is given."
)
"""What must stand beside the figures wherever they are shown."""


def paper_score(arm: str, dataset: str) -> float | None:
    """Dev accuracy in percent; None for an arm or data set that Table 7 does not have."""
    return next((row.scores.get(dataset) for row in PAPER_TABLE_7 if row.arm == arm), None)
