"""Learning methods against each other, paired by pre-training seed, and what may be said of each difference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ernie2.formatting import decimal, join_words
from ernie2.seed_interval import agreement_note
from ernie2.studies.analysis.figures import FINAL, FORGETTING, MEAN, SCORE, MethodResult
from ernie2.studies.analysis.statistics import FRACTION, POINTS, Estimate, difference, fieller_ratio, format_difference

PAIRS = (
    ("continual_multitask", "multitask"),
    ("continual_multitask", "continual"),
    ("multitask", "continual"),
    ("combined", "continual_multitask"),
)
"""(first, second) arms of every comparison: the paper's claim, then what `combine` changes."""
RATIOS = (("continual_multitask", "continual"), ("combined", "continual"))
"""(first, second) arms whose forgetting is set in proportion."""
ORDER = PAIRS[:3]
"""Table 7 of the paper: the first of each pair scores higher than the second, on every data set."""
SUMMARIES = ("mean of the scores", "held-out accuracy, mean over tasks", "mean forgetting")
NOT_DISTINGUISHABLE, NOT_MEASURED = "not distinguishable", "not measured"


@dataclass(frozen=True)
class Comparison:
    """first − second, paired by pre-training seed.

    `figure` is for example "mnli accuracy" or one of `SUMMARIES`; `unit` is `POINTS` or `FRACTION`.
    `without_restart` is the same difference in runs whose schedule never restarts.
    """

    first: MethodResult
    second: MethodResult
    figure: str
    unit: int
    difference: Estimate
    without_restart: Estimate | None

    @property
    def pair(self) -> tuple[str, str]:
        """The names of both arms."""
        return self.first.name, self.second.name

    @property
    def title(self) -> str:
        """ "continual learning less multi-task learning"."""
        return f"{self.first.title} less {self.second.title}"

    @property
    def verdict(self) -> str:
        """What may be said of the difference: no more than its interval holds."""
        if self.difference.note:
            return f"{self.difference.note}: cannot be told"
        words = {1: f"{self.first.title} is higher", -1: f"{self.first.title} is lower", 0: NOT_DISTINGUISHABLE}
        return words[self.difference.direction]

    @property
    def dependence(self) -> str:
        """Whether it hangs on the schedule's restart: the difference of the differences, paired by seed, in words."""
        change = difference(self.difference, self.without_restart)
        if change is None:
            return NOT_MEASURED
        if change.note:
            return f"{change.note}: cannot be told"
        words = format_difference(change, self.unit)
        if change.direction:
            return f"the schedule restart changes it by {words}"
        return f"no dependence on the restart could be told: {words}"


def compare(main: Sequence[MethodResult], sensitivity: Sequence[MethodResult]) -> tuple[Comparison, ...]:
    """Return every figure of every pair that share a seed, pair by pair."""
    never = {one.name: one for one in sensitivity}
    comparisons = []
    for first, second in _pairs(main, PAIRS):
        for what, unit, key in _figures(first, second):
            found = difference(first.figure(*key), second.figure(*key))
            if found is not None:
                figures = (never[arm.name].figure(*key) if arm.name in never else None for arm in (first, second))
                comparisons.append(Comparison(first, second, what, unit, found, difference(*figures)))
    return tuple(comparisons)


def _pairs(arms: Sequence[MethodResult], names: Sequence[tuple[str, str]]) -> list[tuple[MethodResult, MethodResult]]:
    by_name = {one.name: one for one in arms}
    return [(by_name[one], by_name[other]) for one, other in names if one in by_name and other in by_name]


def forgetting_ratios(main: Sequence[MethodResult]) -> tuple[str, ...]:
    """Say what one arm forgets in proportion to another, with Fieller's interval, for the pairs that share a seed."""
    return tuple(filter(None, (_ratio(*pair) for pair in _pairs(main, RATIOS))))


def _ratio(first: MethodResult, second: MethodResult) -> str:
    top, bottom = first.figure(FORGETTING), second.figure(FORGETTING)
    seeds = [seed for seed in top.values if seed in bottom.values] if top and bottom else []
    if top is None or bottom is None or not seeds:
        return ""
    above = [top.values[seed] for seed in seeds]
    ratio = fieller_ratio(above, [bottom.values[seed] for seed in seeds])
    if ratio.value is None:
        return f"{second.title} forgot nothing at any seed: no ratio can be given"
    if not any(above):
        return f"{first.title} forgot nothing at any seed: the ratio is 0, and no interval can be given"
    times = f"{first.title} forgets {decimal(ratio.value)} times what {second.title} does"
    if len(seeds) == 1:
        return f"{times}; one seed: cannot be told"
    if not ratio.bounded:
        return f"{times}; no bounded interval can be given: the forgetting of {second.title} is not told from 0"
    if ratio.low is None:
        return f"{times}; {agreement_note(len(seeds))}, so no interval can be given"
    return f"{times} (95 % {decimal(ratio.low)} to {decimal(ratio.high)}, {len(seeds)} seeds)"


def paper_order(comparisons: Sequence[Comparison]) -> str:
    """Say in a sentence whether the scores show the paper's order; every direction is one that an interval tells.

    The mean over the data sets decides; with one data set alone that set does.
    """
    order = "The paper’s order, continual < multi-task < continual multi-task,"
    claims = [one for one in comparisons if one.unit == POINTS and one.pair in ORDER]
    claims = [one for one in claims if one.figure in SUMMARIES] or claims
    if not claims:
        return f"{order} cannot be judged: no two of its methods have scores to compare."
    above, below = (
        [f"{one.first.title} {word} {one.second.title}" for one in claims if one.difference.direction == sign]
        for sign, word in ((1, "above"), (-1, "below"))
    )
    seeds = f"pre-training seeds: {max(len(one.difference.values) for one in claims)}"
    if below:
        return f"{order} is contradicted here ({seeds}): {join_words(below)}."
    if not above:
        return f"{order} is neither confirmed nor contradicted here ({seeds}): the methods cannot be told apart."
    if len(above) == len(claims) == len(ORDER):
        return f"{order} shows here too ({seeds}): every step of it is told apart."
    return f"{order} shows here in part ({seeds}): {join_words(above)}. The rest cannot be told."


def _figures(first: MethodResult, second: MethodResult) -> Iterator[tuple[str, int, tuple[str, str]]]:
    """Name, unit and key of the figures both arms may have, in the order of the tables."""
    metrics, others = ({name: one.facts.metric for name, one in arm.scores.items()} for arm in (first, second))
    shared = [name for name, metric in metrics.items() if others.get(name) == metric]
    yield from ((f"{name} {metrics[name]}", POINTS, (SCORE, name)) for name in shared)
    if len(shared) > 1:
        yield SUMMARIES[0], POINTS, (SCORE, MEAN)
    yield SUMMARIES[1], FRACTION, (FINAL, MEAN)
    yield SUMMARIES[2], FRACTION, (FORGETTING, MEAN)
