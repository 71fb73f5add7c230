"""Learning methods against each other, paired by pre-training seed, and what may be said of each difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ernie2.seed_interval import agreement
from ernie2.studies.analysis.figures import FINAL, FORGETTING, MEAN, SCORE, ArmResult
from ernie2.studies.analysis.statistics import Estimate, difference, fieller
from ernie2.studies.analysis.wording import FRACTION, POINTS, in_words, listing, number

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
    unit: str
    difference: Estimate
    verdict: str
    without_restart: Estimate | None
    dependence: str


@dataclass(frozen=True)
class Ratio:
    """Mean forgetting of the first arm over that of the second, paired by seed, 95 % by Fieller's theorem."""

    first: str
    second: str
    value: float | None
    low: float | None
    high: float | None
    words: str


def compare(main: Sequence[ArmResult], sensitivity: Sequence[ArmResult]) -> tuple[Comparison, ...]:
    """Return every figure of every pair that share a seed, pair by pair."""
    arms, never = ({one.name: one for one in results} for results in (main, sensitivity))
    made = []
    for first, second in PAIRS:
        if first not in arms or second not in arms:
            continue
        for what, key in _figures(arms[first], arms[second]).items():
            unit = POINTS if key[0] == SCORE else FRACTION
            found, beside = (_difference(results, first, second, key) for results in (arms, never))
            if found is not None:
                said = verdict(arms[first].title, found)
                made.append(Comparison(first, second, what, unit, found, said, beside, dependence(found, beside, unit)))
    return tuple(made)


def verdict(title: str, found: Estimate) -> str:
    """Return what may be said of `title` less another arm: no more than the interval holds."""
    if found.note:
        return f"{found.note}: cannot be told"
    return {1: f"{title} is higher", -1: f"{title} is lower", 0: NOT_TOLD}[found.direction]


def dependence(restarting: Estimate, without: Estimate | None, unit: str) -> str:
    """Say whether a difference hangs on the schedule's restart: the difference of the differences, paired by seed."""
    change = difference(restarting, without)
    if change is None:
        return NOT_MEASURED
    if change.note:
        return f"{change.note}: cannot be told"
    words = in_words(change, unit)
    if change.direction:
        return f"the schedule restart changes it by {words}"
    return f"no dependence on the restart could be told: {words}"


def ratios(main: Sequence[ArmResult]) -> tuple[Ratio, ...]:
    """Return forgetting of one arm in proportion to another's, for the pairs that share a seed."""
    arms = {one.name: one for one in main}
    pairs = [(arms[first], arms[second]) for first, second in RATIOS if first in arms and second in arms]
    return tuple(ratio for pair in pairs if (ratio := _ratio(*pair)) is not None)


def _ratio(first: ArmResult, second: ArmResult) -> Ratio | None:
    top, bottom = first.figure(FORGETTING), second.figure(FORGETTING)
    seeds = [seed for seed in top.values if seed in bottom.values] if top and bottom else []
    if top is None or bottom is None or not seeds:
        return None
    above = [top.values[seed] for seed in seeds]
    found = fieller(above, [bottom.values[seed] for seed in seeds])
    low = high = None
    mine, other = first.title, second.title
    times = f"{mine} forgets {number(found.value or 0.0, 3)} times what {other} does"
    if found.value is None:
        words = f"{other} forgot nothing at any seed: no ratio can be given"
    elif not any(above):
        words = f"{mine} forgot nothing at any seed: the ratio is 0, and no interval can be given"
    elif len(seeds) == 1:
        words = f"{times}; one seed: cannot be told"
    elif not found.bounded:
        words = f"{times}; no bounded interval can be given: the forgetting of {other} is not told from 0"
    elif found.low is None or found.high is None:
        words = f"{times}; {agreement(len(seeds))}, so no interval can be given"
    else:
        low, high = found.low, found.high
        words = f"{times} (95 % {number(low, 3)} to {number(high, 3)}, {len(seeds)} seeds)"
    return Ratio(first.name, second.name, found.value, low, high, words)


def paper_order(comparisons: Sequence[Comparison], titles: Mapping[str, str]) -> str:
    """Say in a sentence whether the scores show the paper's order; every direction is one that an interval tells.

    The mean over the data sets decides; with one data set alone that set does. `titles` names the arms for readers.
    """
    order = "The paper’s order, continual < multi-task < continual multi-task,"
    claims = [one for one in comparisons if one.unit == POINTS and (one.first, one.second) in ORDER]
    claims = [one for one in claims if one.what in SUMMARIES] or claims
    if not claims:
        return f"{order} cannot be judged: no two of its methods have scores to compare."
    told = {
        sign: [f"{titles[one.first]} {word} {titles[one.second]}" for one in claims if one.difference.direction == sign]
        for sign, word in ((1, "above"), (-1, "below"))
    }
    seeds = f"pre-training seeds: {max(len(one.difference.values) for one in claims)}"
    if told[-1]:
        return f"{order} is contradicted here ({seeds}): {listing(told[-1])}."
    if not told[1]:
        return f"{order} is neither confirmed nor contradicted here ({seeds}): the methods cannot be told apart."
    if len(told[1]) == len(claims) == len(ORDER):
        return f"{order} shows here too ({seeds}): every step of it is told apart."
    return f"{order} shows here in part ({seeds}): {listing(told[1])}. The rest cannot be told."


def _figures(first: ArmResult, second: ArmResult) -> dict[str, tuple[str, str]]:
    """Name and key of the figures both arms may have, in the order of the tables."""
    sets = [name for name, one in first.scores.items() if (two := second.scores.get(name)) and two.metric == one.metric]
    found = {f"{name} {first.scores[name].metric}": (SCORE, name) for name in sets}
    means = dict(zip(SUMMARIES, ((SCORE, MEAN), (FINAL, MEAN), (FORGETTING, MEAN)), strict=True))
    if len(sets) < 2:
        del means[SUMMARIES[0]]
    return found | means


def _difference(arms: Mapping[str, ArmResult], first: str, second: str, key: tuple[str, str]) -> Estimate | None:
    if first not in arms or second not in arms:
        return None
    return difference(arms[first].figure(*key), arms[second].figure(*key))
