"""Compare learning methods, paired by pre-training seed, with a verdict on each difference."""

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
"""(first, second) methods of every comparison: those of the paper's claim, then the effect of `combine`."""
RATIOS = (("continual_multitask", "continual"), ("combined", "continual"))
"""(first, second) methods whose ratio of forgetting is computed."""
ORDER = PAIRS[:3]
"""Pairs of which the first scores higher than the second on every dataset in Table 7 of the paper."""
SUMMARIES = ("mean of the scores", "held-out accuracy, mean over tasks", "mean forgetting")
NOT_DISTINGUISHABLE, NOT_MEASURED, NO_VERDICT = "not distinguishable", "not measured", "no verdict"


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
        """The names of both methods."""
        return self.first.name, self.second.name

    @property
    def title(self) -> str:
        """ "continual learning minus multi-task learning"."""
        return f"{self.first.title} minus {self.second.title}"

    @property
    def verdict(self) -> str:
        """The conclusion that the interval of the difference allows."""
        if self.difference.note:
            return f"{self.difference.note}: {NO_VERDICT}"
        words = {1: f"{self.first.title} is higher", -1: f"{self.first.title} is lower", 0: NOT_DISTINGUISHABLE}
        return words[self.difference.direction]

    @property
    def dependence(self) -> str:
        """The effect of the schedule's restarts on the difference: a difference of differences, paired by seed."""
        change = difference(self.difference, self.without_restart)
        if change is None:
            return NOT_MEASURED
        if change.note:
            return f"{change.note}: {NO_VERDICT}"
        words = format_difference(change, self.unit)
        if change.direction:
            return f"restarts change it by {words}"
        return f"no measurable effect: {words}"


def compare(main: Sequence[MethodResult], sensitivity: Sequence[MethodResult]) -> tuple[Comparison, ...]:
    """Return the comparisons of all figures of all pairs that share a seed, pair by pair."""
    never = {one.name: one for one in sensitivity}
    comparisons = []
    for first, second in _pairs(main, PAIRS):
        for what, unit, key in _figures(first, second):
            change = difference(first.figure(*key), second.figure(*key))
            if change is not None:
                figures = (
                    never[method.name].figure(*key) if method.name in never else None for method in (first, second)
                )
                comparisons.append(Comparison(first, second, what, unit, change, difference(*figures)))
    return tuple(comparisons)


def _pairs(
    methods: Sequence[MethodResult], names: Sequence[tuple[str, str]]
) -> list[tuple[MethodResult, MethodResult]]:
    by_name = {one.name: one for one in methods}
    return [(by_name[one], by_name[other]) for one, other in names if one in by_name and other in by_name]


def forgetting_ratios(main: Sequence[MethodResult]) -> tuple[str, ...]:
    """Return sentences on the ratio of forgetting of two methods, with Fieller's interval, for pairs that share a
    seed."""
    return tuple(filter(None, (_ratio(*pair) for pair in _pairs(main, RATIOS))))


def _ratio(first: MethodResult, second: MethodResult) -> str:
    top, bottom = first.figure(FORGETTING), second.figure(FORGETTING)
    seeds = [seed for seed in top.values if seed in bottom.values] if top and bottom else []
    if top is None or bottom is None or not seeds:
        return ""
    above = [top.values[seed] for seed in seeds]
    ratio = fieller_ratio(above, [bottom.values[seed] for seed in seeds])
    if ratio.value is None:
        return f"{second.title} forgot nothing with any seed, so the ratio is undefined"
    if not any(above):
        return f"{first.title} forgot nothing with any seed: the ratio is 0, without an interval"
    times = f"{first.title} forgets {decimal(ratio.value)} times as much as {second.title}"
    if len(seeds) == 1:
        return f"{times}; one seed: {NO_VERDICT}"
    if not ratio.bounded:
        return f"{times}; the interval is unbounded, as the forgetting of {second.title} may be 0"
    if ratio.low is None:
        return f"{times}; {agreement_note(len(seeds))}, so there is no interval"
    return f"{times} (95 % {decimal(ratio.low)} to {decimal(ratio.high)}, {len(seeds)} seeds)"


def paper_order(comparisons: Sequence[Comparison]) -> str:
    """Return a sentence on whether the scores confirm the paper's order of methods, using the 95 % intervals.

    It uses the mean over the datasets, or the only dataset.
    """
    order = "The paper’s order, continual < multi-task < continual multi-task,"
    claims = [one for one in comparisons if one.unit == POINTS and one.pair in ORDER]
    claims = [one for one in claims if one.figure in SUMMARIES] or claims
    if not claims:
        return f"{order} cannot be tested: no two of its methods have scores."
    above, below = (
        [f"{one.first.title} {word} {one.second.title}" for one in claims if one.difference.direction == sign]
        for sign, word in ((1, "above"), (-1, "below"))
    )
    seeds = f"pre-training seeds: {max(len(one.difference.values) for one in claims)}"
    if below:
        return f"{order} is contradicted here ({seeds}): {join_words(below)}."
    if not above:
        return f"{order} is neither confirmed nor contradicted here ({seeds}): no difference is distinguishable."
    if len(above) == len(claims) == len(ORDER):
        return f"{order} is confirmed here ({seeds}): every difference is distinguishable."
    return f"{order} is confirmed in part here ({seeds}): {join_words(above)}. The rest is not distinguishable."


def _figures(first: MethodResult, second: MethodResult) -> Iterator[tuple[str, int, tuple[str, str]]]:
    """Yield name, unit and key of the figures that both methods may have, in the order of the tables."""
    metrics, others = ({name: one.facts.metric for name, one in method.scores.items()} for method in (first, second))
    shared = [name for name, metric in metrics.items() if others.get(name) == metric]
    yield from ((f"{name} {metrics[name]}", POINTS, (SCORE, name)) for name in shared)
    if len(shared) > 1:
        yield SUMMARIES[0], POINTS, (SCORE, MEAN)
    yield SUMMARIES[1], FRACTION, (FINAL, MEAN)
    yield SUMMARIES[2], FRACTION, (FORGETTING, MEAN)
