"""What the analysis of a study gives: arms with their figures, comparisons, ratios and notes."""

from __future__ import annotations

from dataclasses import dataclass

from ernie2.studies.analysis.statistics import Estimate

POINTS, FRACTION = "points", "fraction"
"""Units: scores are in percent and their differences in points; held-out accuracies are fractions of 1."""


@dataclass(frozen=True)
class Arm:
    """One learning method under one rule of the schedule's restart; `seeds` are those that reached their end."""

    name: str
    title: str
    restart: str
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Score:
    """A fine-tuned score, in percent; the value of a pre-training seed is the mean over its fine-tuning runs.

    `standing` says what the data are ("official", "subset", …); `train` and `dev` count examples.
    """

    dataset: str
    split: str
    metric: str
    standing: str
    train: int
    dev: int
    estimate: Estimate | None
    """None where any run diverged: its score ranks below every number, so no mean may leave it out."""
    pretraining_sd: float | None
    """Of the seed's true score, apart from fine-tuning; 0 where it comes out negative. None below two seeds."""
    finetuning_sd: float | None
    """Of one fine-tuning run around its pre-training seed, pooled. None where no seed has two runs."""
    runs: int
    """Fine-tuning runs, diverged ones included."""
    diverged: int
    """Runs without a finite score."""


@dataclass(frozen=True)
class TaskFigure:
    """One pre-training task at the end of an arm's runs, on held-out text. Accuracies are fractions of 1.

    `forgetting`, `backward` and `forward` are None where they are not defined: see `transfer`.
    """

    task: str
    title: str
    final: Estimate
    loss: Estimate | None
    """Nats; None where it is finite for no seed."""
    best: Estimate
    """The highest accuracy at a stage's end since the task entered, the last included."""
    baseline: float | None
    """Accuracy of the best baseline, mean over the seeds."""
    learned: int | None
    """Seeds whose run learned the task; None where a record does not keep what that takes."""
    forgetting: Estimate | None
    backward: Estimate | None
    forward: Estimate | None


@dataclass(frozen=True)
class Cost:
    """What a run of the arm took: encoder passes, tokens through the encoder, seconds."""

    passes: Estimate
    tokens: Estimate
    seconds: Estimate


@dataclass(frozen=True)
class ArmResult:
    """All figures of one arm. Means over tasks or data sets are taken within a seed that has every part."""

    arm: Arm
    scores: tuple[Score, ...]
    mean_score: Estimate | None
    """Mean over the data sets, in percent."""
    tasks: tuple[TaskFigure, ...]
    heldout: Estimate | None
    """Mean over the tasks of the final accuracy."""
    forgetting: Estimate | None
    backward: Estimate | None
    forward: Estimate | None
    cost: Cost


@dataclass(frozen=True)
class Comparison:
    """first − second, paired by pre-training seed."""

    first: str
    second: str
    what: str
    """For example "mnli accuracy", "mean of the scores", "held-out accuracy, mean over tasks", "mean forgetting"."""
    unit: str
    """POINTS or FRACTION."""
    difference: Estimate
    verdict: str
    """ "… is higher", "… is lower", "not distinguishable" or "one seed: cannot be told"."""
    without_restart: Estimate | None
    """The same difference where the schedule never restarts."""
    dependence: str
    """Whether the restart changes the difference, in words."""

    @property
    def told(self) -> bool:
        """The verdict names a direction."""
        return self.difference.direction != 0


@dataclass(frozen=True)
class Ratio:
    """Mean forgetting of the first arm over that of the second, paired by seed, 95 % by Fieller's theorem."""

    first: str
    second: str
    value: float | None
    low: float | None
    high: float | None
    words: str


@dataclass(frozen=True)
class Analysis:
    """Everything the tables and the page are drawn from."""

    arms: tuple[ArmResult, ...]
    """Under the main rule, in the order of the record."""
    sensitivity: tuple[ArmResult, ...]
    """The same arms where the schedule never restarts, as far as they were run."""
    comparisons: tuple[Comparison, ...]
    ratios: tuple[Ratio, ...]
    notes: tuple[str, ...]
    """What a reader must know beside the figures, in sentences."""
