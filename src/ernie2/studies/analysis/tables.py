"""All tables of a study, for Markdown and for the page, and its lines for a terminal. Same record, same text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ernie2.plurals import counted
from ernie2.studies.analysis.analyse import Analysis
from ernie2.studies.analysis.blocks import Block, Bullets, Heading, Paragraph, Table
from ernie2.studies.analysis.comparisons import PAIRS, SUMMARIES, Comparison, paper_order
from ernie2.studies.analysis.facts import facts, model
from ernie2.studies.analysis.figures import BACKWARD, COST, FINAL, FORGETTING, FORWARD, MEAN, SCORE, ArmResult
from ernie2.studies.analysis.paper_table7 import PAPER_TABLE_7, PAPER_WORDS, SETS
from ernie2.studies.analysis.wording import DASH, FRACTION, POINTS, cell, in_words, listing, number, plain, whole

_TRANSFERS = (
    (
        FORGETTING,
        "Forgetting",
        "The best held-out accuracy at a stage’s end since the task entered, less the one at the end: never below "
        "0, and above it by chance even where nothing is forgotten. None for tasks of the last stage.",
    ),
    (
        BACKWARD,
        "Backward transfer",
        "Accuracy at the end less that at the end of the stage in which the task entered: below 0 is loss.",
    ),
    (
        FORWARD,
        "Forward transfer",
        "Accuracy after the first part of the task’s own iterations, less that of the task trained alone from the "
        "same initial parameters for as many.",
    ),
)


def blocks(record: Mapping[str, Any], analysis: Analysis) -> list[Block]:
    """Return every figure of `analysis`, with what was run on what; `record` is the one it was made of."""
    made: list[Block] = [
        Heading(1, f"Learning methods side by side (Table 7), {record.get('preset', 'own settings')}"),
        Bullets(tuple(facts(record, analysis.arms, analysis.sensitivity))),
        Paragraph(how_to_read(analysis)),
        *_comparisons(record, analysis),
    ]
    if analysis.arms:
        tasks = {task["name"]: task["title"] for task in record["tasks"]}
        made += [
            *_scores(record, analysis.arms),
            Heading(2, "Held-out accuracy at the end"),
            _heldout(analysis.arms, tasks),
        ]
        for measure, title, words in _TRANSFERS:
            made += [Heading(2, title), Paragraph(words), _by_task(analysis.arms, tasks, measure)]
            if measure == FORGETTING and analysis.ratios:
                made.append(Bullets(tuple(ratio.words for ratio in analysis.ratios)))
        made += _cost(record, analysis.arms)
        made += _sensitivity(analysis.sensitivity, tasks)
    return [*made, Heading(2, "Notes"), Bullets(analysis.notes) if analysis.notes else Paragraph("None.")]


def spoken_lines(analysis: Analysis) -> list[str]:
    """Return arms, the comparisons that sum up, ratios of forgetting, and notes, one line each."""
    lines = []
    for one in analysis.arms:
        summaries = ((SCORE, POINTS, "mean of the scores"), (FINAL, FRACTION, "held-out accuracy"),
                     (FORGETTING, FRACTION, "forgetting"))  # fmt: skip
        parts = [
            f"{name} {_cell(one, measure, MEAN, unit)}" for measure, unit, name in summaries if one.figure(measure)
        ]
        passes = f"{whole(one.figure(COST, 'passes'))} encoder passes"
        lines.append(f"{_named(one)}: {', '.join([*parts, passes])}")
    titles = {one.name: one.title for one in analysis.arms}
    whats = {one.what for one in analysis.comparisons}
    for pair in analysis.comparisons:
        if pair.what in SUMMARIES or SUMMARIES[0] not in whats:  # one data set alone has no mean
            names = f"{titles[pair.first]} less {titles[pair.second]}"
            lines.append(f"{names}, {pair.what}: {in_words(pair.difference, pair.unit)}: {pair.verdict}")
    lines += [f"{ratio.words}." for ratio in analysis.ratios]
    if analysis.comparisons:
        lines.append("No correction for multiple comparisons is made.")
    return lines + list(analysis.notes)


def how_to_read(analysis: Analysis) -> str:
    """Return what the intervals are and do not allow: one paragraph to stand before the figures."""
    text = (
        "Parentheses hold 95 % intervals: Student’s t over pre-training seeds, differences paired by seed. They speak "
        "of other seeds, not of other text, and take the seeds’ values for normally distributed, which so few cannot "
        "show. One seed gives no interval, and neither do seeds that all agree. A difference is called only where its "
        "interval leaves out 0; “not distinguishable” does not mean equal. No correction for multiple comparisons is "
        "made"
    )
    tested = sum(one.difference.low is not None for one in analysis.comparisons)
    if not tested:
        return f"{text}."
    return (
        f"{text}: of the {counted(tested, 'comparison')} with an interval, {number(tested / 20, 1)} would be expected "
        "to be called different by chance alone if no arm differed from another."
    )


def _comparisons(record: Mapping[str, Any], analysis: Analysis) -> Iterator[Block]:
    titles = {arm["name"]: arm["title"] for arm in record["arms"]}
    yield Heading(2, "What can be told")
    yield Paragraph(paper_order(analysis.comparisons, titles))
    if not analysis.comparisons:
        yield Paragraph(_nothing_compared(titles, analysis))
        return
    yield Paragraph("Scores in points, the rest as fractions of 1.")
    heads = ("figure", "difference", "seeds", "verdict", "difference without restarts", "dependence on restarts")
    for first, second in PAIRS:
        rows = [_compared(one) for one in analysis.comparisons if (one.first, one.second) == (first, second)]
        if rows:
            yield Heading(3, f"{titles[first]} less {titles[second]}")
            yield Table(heads, tuple(rows))


def _nothing_compared(planned: Mapping[str, str], analysis: Analysis) -> str:
    """Why there is no comparison; `planned`: title by name of every arm of the study."""
    pairs = [pair for pair in PAIRS if set(pair) <= set(planned)]
    if not pairs:
        return (
            "Nothing: this study has no pair of arms that is compared. Compared are "
            f"{listing([' with '.join(pair) for pair in PAIRS])}."
        )
    if not any(set(pair) <= {one.name for one in analysis.arms} for pair in pairs):
        return "Nothing yet: no pair of arms that is compared has finished runs of both."
    return "Nothing yet: no pair of arms that is compared shares a finished pre-training seed."


def _compared(one: Comparison) -> tuple[str, ...]:
    without = DASH if one.without_restart is None else in_words(one.without_restart, one.unit)
    seeds = str(len(one.difference.values))
    return one.what, in_words(one.difference, one.unit), seeds, one.verdict, without, one.dependence


def _scores(record: Mapping[str, Any], arms: Sequence[ArmResult]) -> Iterator[Block]:
    table = _score_table(arms, paper=True)
    if table is None:
        return
    size = model(record)
    ours = f"Ours: {size[0].lower()}{size[1:]}. " if size else ""
    yield Heading(2, "Scores after fine-tuning, in percent")
    yield table
    yield Paragraph(
        f"{PAPER_WORDS} {ours}Heights are not comparable where sizes or data differ; the order of the methods may be."
    )
    yield Heading(3, "Where the spread of the scores comes from")
    yield Paragraph(
        "Standard deviations in points, by one-way analysis of variance: of the pre-training seed’s own score, and "
        "of one fine-tuning run around it. A pre-training sd of 0.00 says that it came out at or below 0, not that "
        "seeds do not matter."
    )
    rows = [
        (
            _named(one),
            name,
            *(DASH if sd is None else plain(sd, POINTS) for sd in (score.sd_pretraining, score.sd_finetuning)),
            str(score.runs),
            str(score.diverged),
        )
        for one in arms
        for name, score in one.scores.items()
    ]
    heads = ("arm", "data set", "pre-training sd", "fine-tuning sd", "fine-tuning runs", "of them diverged")
    yield Table(heads, tuple(rows))


def _score_table(arms: Sequence[ArmResult], *, paper: bool) -> Table | None:
    found = {name: score for one in arms for name, score in one.scores.items()}
    if not found:
        return None
    heads = [
        f"{name}: {one.metric}, {one.split} ({one.standing}, {one.train:,} / {one.dev:,} examples)"
        for name, one in found.items()
    ]
    rows = [(_named(one), *(_cell(one, SCORE, name, POINTS) for name in (*found, MEAN))) for one in arms]
    if paper and set(SETS) & set(found):
        for title, reported in PAPER_TABLE_7.items():
            scores = dict(zip(SETS, reported, strict=True))
            cells = [number(scores[name], 1) if name in scores else DASH for name in found]
            rows.append((f"the paper: {title}", *cells, DASH))
    return Table(("arm", *heads, "mean"), tuple(rows))


def _heldout(arms: Sequence[ArmResult], tasks: Mapping[str, str]) -> Table:
    """With the best baseline, and how many runs of all arms learned the task, where the record tells of each."""
    table = _by_task(arms, tasks, FINAL)
    baselines = {task: value for one in reversed(arms) for task, value in one.baselines.items()}
    beside = [
        (
            plain(baselines[task], FRACTION) if task in baselines else DASH,
            f"{sum(one.learned[task] for one in arms)} of {sum(len(one.seeds) for one in arms)}"
            if all(task in one.learned for one in arms)
            else DASH,
        )
        for task in tasks
    ]
    rows = [(*row, *more) for row, more in zip(table.rows, [*beside, (DASH, DASH)], strict=True)]
    return Table((*table.heads, "best baseline", "learned (runs)"), tuple(rows))


def _by_task(arms: Sequence[ArmResult], tasks: Mapping[str, str], measure: str) -> Table:
    """Tasks down, arms across, and the mean over tasks."""
    items = {**tasks, MEAN: "mean over tasks"}
    change = measure in (BACKWARD, FORWARD)
    rows = [
        (title, *(_cell(one, measure, item, FRACTION, change=change) for one in arms)) for item, title in items.items()
    ]
    return Table(("task", *map(_named, arms)), tuple(rows))


def _cost(record: Mapping[str, Any], arms: Sequence[ArmResult]) -> Iterator[Block]:
    shared = (record.get("machine") or {}).get("parallel", 1) > 1
    beside = " Runs shared the machine, so seconds are of a run beside others." if shared else ""
    parts = ("passes", "tokens", "seconds")
    yield Heading(2, "Cost of pre-training")
    yield Paragraph(f"Means over seeds, of one run.{beside}")
    rows = [(_named(one), *(whole(one.figure(COST, part)) for part in parts)) for one in arms]
    yield Table(("arm", "encoder passes", "tokens", "seconds"), tuple(rows))


def _sensitivity(arms: Sequence[ArmResult], tasks: Mapping[str, str]) -> Iterator[Block]:
    if not arms:
        return
    yield Heading(2, "The same arms without restarts of the schedule")
    yield Paragraph("Multi-task learning has one stage, so nothing restarts: it is the same run under both rules.")
    if (table := _score_table(arms, paper=False)) is not None:
        yield table
    yield Heading(3, "Held-out accuracy at the end, without restarts")
    yield _heldout(arms, tasks)
    yield Heading(3, "Forgetting, without restarts")
    yield _by_task(arms, tasks, FORGETTING)


def _cell(one: ArmResult, measure: str, item: str, unit: str, *, change: bool = False) -> str:
    return cell(one.figure(measure, item), unit, len(one.seeds), change=change)


def _named(one: ArmResult) -> str:
    return f"{one.title} ({counted(len(one.seeds), 'seed')})"
