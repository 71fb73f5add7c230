"""Learning methods against each other, paired by pre-training seed, and what may be said of each difference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ernie2.seed_interval import agreement
from ernie2.studies.analysis.figures import FINAL, FORGETTING, MEAN, SCORE, ArmResult
from ernie2.studies.analysis.statistics import Estimate, difference, fieller
from ernie2.studies.analysis.wording import FRACTION, POINTS, in_words
from ernie2.wording import decimal, listing

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
NOT_TOLD, NOT_MEASURED = "not distinguishable", "not measured"


@dataclass(frozen=True)
class Comparison:
    """first − second, paired by pre-training seed.

    `what` is for example "mnli accuracy" or one of `SUMMARIES`, `unit` `POINTS` or `FRACTION`. `verdict` says "… is
    higher", "… is lower", "not distinguishable" or "one seed: cannot be told". `without_restart` is the same difference
    where the schedule never restarts, and `dependence` whether the restart changes it, in words.
    """

    first: str
    second: str
    what: str
    unit: int
    difference: Estimate
    verdict: str
    without_restart: Estimate | None
    dependence: str


def compare(main: Sequence[ArmResult], sensitivity: Sequence[ArmResult]) -> tuple[Comparison, ...]:
    """Return every figure of every pair that share a seed, pair by pair."""
    arms, never = ({one.name: one for one in results} for results in (main, sensitivity))
    comparisons = []
    for first, second in PAIRS:
        for what, unit, key in _figures(arms.get(first), arms.get(second)):
            with_restart, without = (_less(rule.get(first), rule.get(second), key) for rule in (arms, never))
            if with_restart is not None:
                words = verdict(arms[first].title, with_restart), dependence(with_restart, without, unit)
                comparisons.append(Comparison(first, second, what, unit, with_restart, words[0], without, words[1]))
    return tuple(comparisons)


def verdict(title: str, less: Estimate) -> str:
    """Return what may be said of `title` less another arm: no more than the interval holds."""
    if less.note:
        return f"{less.note}: cannot be told"
    return {1: f"{title} is higher", -1: f"{title} is lower", 0: NOT_TOLD}[less.direction]


def dependence(restarting: Estimate, without: Estimate | None, unit: int) -> str:
    """Say whether a difference hangs on the schedule's restart: the difference of the differences, paired by seed."""
    change = difference(restarting, without)
    if change is None:
        return NOT_MEASURED
    if change.note:
        return f"{change.note}: cannot be told"
    words = "the schedule restart changes it by" if change.direction else "no dependence on the restart could be told:"
    return f"{words} {in_words(change, unit)}"


def ratios(main: Sequence[ArmResult]) -> tuple[str, ...]:
    """Say what one arm forgets in proportion to another, with Fieller's interval, for the pairs that share a seed."""
    arms = {one.name: one for one in main}
    pairs = [(arms[first], arms[second]) for first, second in RATIOS if first in arms and second in arms]
    return tuple(filter(None, (_ratio(*pair) for pair in pairs)))


def _ratio(first: ArmResult, second: ArmResult) -> str:
    top, bottom = first.figure(FORGETTING), second.figure(FORGETTING)
    seeds = [seed for seed in top.values if seed in bottom.values] if top and bottom else []
    if top is None or bottom is None or not seeds:
        return ""
    above = [top.values[seed] for seed in seeds]
    ratio = fieller(above, [bottom.values[seed] for seed in seeds])
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
        return f"{times}; {agreement(len(seeds))}, so no interval can be given"
    return f"{times} (95 % {decimal(ratio.low)} to {decimal(ratio.high)}, {len(seeds)} seeds)"


def paper_order(comparisons: Sequence[Comparison], titles: Mapping[str, str]) -> str:
    """Say in a sentence whether the scores show the paper's order; every direction is one that an interval tells.

    The mean over the data sets decides; with one data set alone that set does. `titles` names the arms for readers.
    """
    order = "The paper’s order, continual < multi-task < continual multi-task,"
    claims = [one for one in comparisons if one.unit == POINTS and (one.first, one.second) in ORDER]
    claims = [one for one in claims if one.what in SUMMARIES] or claims
    if not claims:
        return f"{order} cannot be judged: no two of its methods have scores to compare."
    above, below = (
        [f"{titles[one.first]} {word} {titles[one.second]}" for one in claims if one.difference.direction == sign]
        for sign, word in ((1, "above"), (-1, "below"))
    )
    seeds = f"pre-training seeds: {max(len(one.difference.values) for one in claims)}"
    if below:
        return f"{order} is contradicted here ({seeds}): {listing(below)}."
    if not above:
        return f"{order} is neither confirmed nor contradicted here ({seeds}): the methods cannot be told apart."
    if len(above) == len(claims) == len(ORDER):
        return f"{order} shows here too ({seeds}): every step of it is told apart."
    return f"{order} shows here in part ({seeds}): {listing(above)}. The rest cannot be told."


def _figures(first: ArmResult | None, second: ArmResult | None) -> Iterator[tuple[str, int, tuple[str, str]]]:
    """Name, unit and key of the figures both arms may have, in the order of the tables."""
    if first is None or second is None:
        return
    metrics, others = ({name: one.facts.metric for name, one in arm.scores.items()} for arm in (first, second))
    shared = [name for name, metric in metrics.items() if others.get(name) == metric]
    yield from ((f"{name} {metrics[name]}", POINTS, (SCORE, name)) for name in shared)
    if len(shared) > 1:
        yield SUMMARIES[0], POINTS, (SCORE, MEAN)
    yield SUMMARIES[1], FRACTION, (FINAL, MEAN)
    yield SUMMARIES[2], FRACTION, (FORGETTING, MEAN)


def _less(first: ArmResult | None, second: ArmResult | None, key: tuple[str, str]) -> Estimate | None:
    return difference(first.figure(*key), second.figure(*key)) if first and second else None
