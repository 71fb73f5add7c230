"""What a study says of the paper's order, continual < multi-task < continual multi-task, in plain words.

Nothing is computed here: every direction is that of the analysis, told where a 95 % interval over seeds leaves out 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ernie2.reporting.wording import listing, spelled
from ernie2.studies.analysis.results import POINTS, Analysis, Comparison
from ernie2.studies.analysis.statistics import Estimate, difference

ORDER = (("multitask", "continual"), ("continual_multitask", "multitask"), ("continual_multitask", "continual"))
"""Table 7 of the paper: the first of each pair scores higher than the second, on every data set."""


@dataclass(frozen=True)
class Standing:
    """What is told of the paper's order: sentences by what they say of it."""

    headline: str
    agrees: tuple[str, ...]
    against: tuple[str, ...]
    untold: tuple[str, ...]


@dataclass(frozen=True)
class Differences:
    """Every comparison: a row a pair of arms, a column a measure; None where the pair was not compared on it."""

    columns: tuple[str, ...]
    rows: tuple[tuple[tuple[str, str], tuple[Comparison | None, ...]], ...]


def standing(analysis: Analysis, titles: Mapping[str, str]) -> Standing:
    """The verdict on scores. `titles` names the arms for readers."""
    claims = [one for one in analysis.comparisons if one.unit == POINTS and (one.first, one.second) in ORDER]
    return Standing(
        _headline(claims, titles),
        _sentences([one for one in claims if one.difference.direction > 0], "{} above {}", titles),
        _sentences([one for one in claims if one.difference.direction < 0], "{} below {}", titles),
        _sentences([one for one in claims if one.difference.direction == 0], "{} and {}", titles),
    )


def _headline(claims: Sequence[Comparison], titles: Mapping[str, str]) -> str:
    order = "continual < multi-task < continual multi-task"
    if not claims:
        return f"Nothing can be said of the paper’s order, {order}: no two of its arms have scores to compare."
    # The mean over the data sets is the study's own measure; with one data set alone that set stands for it.
    means = [one for one in claims if one.what.startswith("mean ")] or claims
    right = [one for one in means if one.difference.direction > 0]
    wrong = [one for one in means if one.difference.direction < 0]
    seeds = max(len(one.difference.values) for one in means)
    counted = f"{spelled(seeds)} pre-training seed{'s' if seeds != 1 else ''}"
    if wrong:
        against = listing(_sentences(wrong, "{} below {}", titles, measures=False))
        return f"The paper’s order, {order}, is contradicted here: over {counted}, {against}."
    if not right:
        return (
            f"The paper’s order, {order}, is neither confirmed nor contradicted: {counted} cannot tell the arms apart."
        )
    pairs = {(one.first, one.second) for one in right}
    found = listing(_sentences(right, "{} above {}", titles, measures=False))
    if len(right) == len(means) and pairs == set(ORDER):
        return f"The paper’s order shows here too, {order}: over {counted} every step of it is told apart."
    return f"Part of the paper’s order, {order}, shows here: over {counted}, {found}. The rest cannot be told."


def _sentences(
    claims: Sequence[Comparison], form: str, titles: Mapping[str, str], *, measures: bool = True
) -> tuple[str, ...]:
    """One a pair of arms, with the measures it holds for."""
    pairs: dict[tuple[str, str], list[str]] = {}
    for one in claims:
        pairs.setdefault((one.first, one.second), []).append(one.what)
    return tuple(
        form.format(*(titles.get(name, name) for name in pair)) + (f" ({', '.join(whats)})" if measures else "")
        for pair, whats in pairs.items()
    )


def differences(comparisons: Sequence[Comparison]) -> Differences:
    """The comparisons laid out as a table, pairs and measures in the order in which they come."""
    found = {((one.first, one.second), one.what): one for one in comparisons}
    columns = tuple(dict.fromkeys(what for _, what in found))
    return Differences(
        columns,
        tuple(
            (pair, tuple(found.get((pair, what)) for what in columns))
            for pair in dict.fromkeys(pair for pair, _ in found)
        ),
    )


def better(comparison: Comparison) -> int:
    """+1 where the first arm is told to do better, −1 where worse, 0 where neither; to forget less is better."""
    return comparison.difference.direction * (-1 if "forgetting" in comparison.what else 1)


@dataclass(frozen=True)
class Restart:
    """What hangs on the schedule's restart: a sentence, and by pair of arms every comparison made under both rules with
    its change (with restarts less without, paired by seed)."""

    words: str
    rows: tuple[tuple[tuple[str, str], tuple[tuple[Comparison, Estimate | None], ...]], ...]


def restart(comparisons: Sequence[Comparison]) -> Restart:
    """Counts the differences that change with the rule, as the interval of the paired change tells."""
    both = [(one, difference(one.difference, one.without_restart)) for one in comparisons if one.without_restart]
    known = [change for _, change in both if change is not None and len(change.values) > 1]
    told = sum(change.direction != 0 for change in known)
    if not known:
        words = "One seed was run both ways, so whether a difference hangs on the restart cannot be told."
    elif told:
        words = f"Of {len(known)} differences, {spelled(told)} {'is' if told == 1 else 'are'} told to change with it."
    else:
        words = (
            f"Of {len(known)} differences, none is told to change with it; the intervals say how much could be missed."
        )
    pairs = dict.fromkeys((one.first, one.second) for one, _ in both)
    return Restart(
        words, tuple((pair, tuple(row for row in both if (row[0].first, row[0].second) == pair)) for pair in pairs)
    )
