"""Arms against each other, paired by pre-training seed, and what may be said of each difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ernie2.seed_interval import agreement
from ernie2.studies.analysis.results import FRACTION, POINTS, ArmResult, Comparison, Ratio
from ernie2.studies.analysis.statistics import Estimate, difference, fieller
from ernie2.studies.analysis.wording import in_words, number

PAIRS = (
    ("continual_multitask", "multitask"),
    ("continual_multitask", "continual"),
    ("multitask", "continual"),
    ("combined", "continual_multitask"),
)
"""(first, second) arms of every comparison: the paper's claim, then what `combine` changes."""
RATIOS = (("continual_multitask", "continual"), ("combined", "continual"))
"""(first, second) arms whose forgetting is set in proportion."""
NOT_TOLD, NOT_MEASURED = "not distinguishable", "not measured"


def compare(main: Sequence[ArmResult], sensitivity: Sequence[ArmResult]) -> tuple[Comparison, ...]:
    """Every figure of every pair that share a seed, pair by pair."""
    arms = {one.arm.name: one for one in main}
    never = {one.arm.name: one for one in sensitivity}
    made = []
    for first, second in PAIRS:
        if first not in arms or second not in arms:
            continue
        for what, unit in _figures(arms[first], arms[second]):
            found = _difference(arms, first, second, what)
            if found is not None:
                beside = _difference(never, first, second, what)
                made.append(
                    Comparison(
                        first,
                        second,
                        what,
                        unit,
                        found,
                        verdict(arms[first].arm.title, found),
                        beside,
                        dependence(found, beside, unit),
                    )
                )
    return tuple(made)


def verdict(title: str, found: Estimate) -> str:
    """What may be said of `title` less another arm: no more than the interval holds."""
    if found.note:
        return f"{found.note}: cannot be told"
    return {1: f"{title} is higher", -1: f"{title} is lower", 0: NOT_TOLD}[found.direction]


def dependence(restarting: Estimate, without: Estimate | None, unit: str) -> str:
    """Whether a difference hangs on the schedule's restart: the difference of the differences, paired by seed."""
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
    """Forgetting of one arm in proportion to another's, for the pairs that share a seed."""
    arms = {one.arm.name: one for one in main}
    return tuple(
        _ratio(arms[first], arms[second])
        for first, second in RATIOS
        if first in arms and second in arms and difference(arms[first].forgetting, arms[second].forgetting) is not None
    )


def _ratio(first: ArmResult, second: ArmResult) -> Ratio:
    top, bottom = first.forgetting, second.forgetting
    assert top is not None
    assert bottom is not None  # they share a seed
    seeds = [seed for seed in top.seeds if seed in bottom.values]
    above, below = [top.values[seed] for seed in seeds], [bottom.values[seed] for seed in seeds]
    found = fieller(above, below)
    names = first.arm.name, second.arm.name
    mine, other = first.arm.title, second.arm.title
    if found.value is None:
        return Ratio(*names, None, None, None, f"{other} forgot nothing at any seed: no ratio can be given")
    times = f"{mine} forgets {number(found.value, 3)} times what {other} does"
    if not any(above):
        words = f"{mine} forgot nothing at any seed: the ratio is 0, and no interval can be given"
        return Ratio(*names, 0.0, None, None, words)
    if len(seeds) == 1:
        return Ratio(*names, found.value, None, None, f"{times}; one seed: cannot be told")
    if found.bounded and found.low is None:
        words = f"{times}; {agreement(len(seeds))}, so no interval can be given"
        return Ratio(*names, found.value, None, None, words)
    if not found.bounded or found.low is None or found.high is None:
        words = f"{times}; no bounded interval can be given: the forgetting of {other} is not told from 0"
        return Ratio(*names, found.value, None, None, words)
    low, high = number(found.low, 3), number(found.high, 3)
    return Ratio(*names, found.value, found.low, found.high, f"{times} (95 % {low} to {high}, {len(seeds)} seeds)")


def _figures(first: ArmResult, second: ArmResult) -> list[tuple[str, str]]:
    """(what, unit) of the figures both arms may have, in the order of the tables."""
    names = [f"{score.dataset} {score.metric}" for score in first.scores]
    common = [name for name in names if name in {f"{score.dataset} {score.metric}" for score in second.scores}]
    points = [*common, "mean of the scores"] if len(common) > 1 else common
    rest = ("held-out accuracy, mean over tasks", "mean forgetting")
    return [(name, POINTS) for name in points] + [(name, FRACTION) for name in rest]


def _difference(arms: Mapping[str, ArmResult], first: str, second: str, what: str) -> Estimate | None:
    if first not in arms or second not in arms:
        return None
    return difference(_figure(arms[first], what), _figure(arms[second], what))


def _figure(result: ArmResult, what: str) -> Estimate | None:
    fixed = {
        "mean of the scores": result.mean_score,
        "held-out accuracy, mean over tasks": result.heldout,
        "mean forgetting": result.forgetting,
    }
    scores = {f"{score.dataset} {score.metric}": score.estimate for score in result.scores}
    return {**scores, **fixed}.get(what)
