"""All tables of a study, for Markdown and for the page, and its lines for a terminal. Same record, same text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter

from ernie2.studies.analysis.analyse import Analysis
from ernie2.studies.analysis.blocks import Block, Bullets, Heading, Paragraph, Table
from ernie2.studies.analysis.comparisons import PAIRS, SUMMARIES, paper_order
from ernie2.studies.analysis.facts import facts, model
from ernie2.studies.analysis.figures import BACKWARD, COST, FINAL, FORGETTING, FORWARD, MEAN, SCORE, ArmResult
from ernie2.studies.analysis.paper_table7 import PAPER_TABLE_7, PAPER_WORDS, SETS
from ernie2.studies.analysis.wording import FRACTION, POINTS, cell, in_words
from ernie2.wording import DASH, counted, decimal, listing, whole

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


def blocks(analysis: Analysis) -> list[Block]:
    """Return every figure of `analysis`, with what was run on what."""
    arms = analysis.arms
    page: list[Block] = [
        Heading(1, f"Learning methods side by side (Table 7), {analysis.record.preset}"),
        Bullets(tuple(facts(analysis))),
        Paragraph(how_to_read(analysis)),
        *_comparisons(analysis),
    ]
    if arms:
        tasks = {task.name: task.title for task in analysis.record.tasks}
        page += [*_scores(analysis), Heading(2, "Held-out accuracy at the end"), _heldout(arms, tasks)]
        for measure, title, words in _TRANSFERS:
            page += [Heading(2, title), Paragraph(words), _by_task(arms, tasks, measure)]
            if measure == FORGETTING and analysis.ratios:
                page.append(Bullets(analysis.ratios))
        page += [*_cost(analysis), *_sensitivity(analysis.sensitivity, tasks)]
    return [*page, Heading(2, "Notes"), Bullets(analysis.notes) if analysis.notes else Paragraph("None.")]


def spoken_lines(analysis: Analysis) -> list[str]:
    """Return arms, the comparisons that sum up, ratios of forgetting, and notes, one line each."""
    summaries = (
        (SCORE, POINTS, "mean of the scores"),
        (FINAL, FRACTION, "held-out accuracy"),
        (FORGETTING, FRACTION, "forgetting"),
    )
    lines = []
    for one in analysis.arms:
        parts = [f"{name} {_cell(one, what, MEAN, unit)}" for what, unit, name in summaries if one.figure(what)]
        lines.append(f"{_named(one)}: {', '.join([*parts, _count(one, 'passes')])} encoder passes")
    several_sets = any(less.what == SUMMARIES[0] for less in analysis.comparisons)
    lines += [
        f"{less.title}, {less.what}: {in_words(less.difference, less.unit)}: {less.verdict}"
        for less in analysis.comparisons
        if less.what in SUMMARIES or not several_sets
    ]
    lines += [f"{ratio}." for ratio in analysis.ratios]
    if analysis.comparisons:
        lines.append("No correction for multiple comparisons is made.")
    return [*lines, *analysis.notes]


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
        f"{text}: of the {counted(tested, 'comparison')} with an interval, {decimal(tested / 20, 1)} would be expected "
        "to be called different by chance alone if no arm differed from another."
    )


def _comparisons(analysis: Analysis) -> Iterator[Block]:
    yield Heading(2, "What can be told")
    yield Paragraph(paper_order(analysis.comparisons))
    if not analysis.comparisons:
        yield Paragraph(_nothing_compared(analysis))
        return
    yield Paragraph("Scores in points, the rest as fractions of 1.")
    heads = ("figure", "difference", "seeds", "verdict", "difference without restarts", "dependence on restarts")
    for title, comparisons in groupby(analysis.comparisons, key=attrgetter("title")):
        rows = [
            (
                one.what,
                in_words(one.difference, one.unit),
                str(len(one.difference.values)),
                one.verdict,
                in_words(one.without_restart, one.unit) if one.without_restart else DASH,
                one.dependence,
            )
            for one in comparisons
        ]
        yield Heading(3, title)
        yield Table(heads, tuple(rows))


def _nothing_compared(analysis: Analysis) -> str:
    """Why there is no comparison."""
    pairs = [pair for pair in PAIRS if set(pair) <= {arm.name for arm in analysis.record.arms}]
    if not pairs:
        return (
            "Nothing: this study has no pair of arms that is compared. Compared are "
            f"{listing([' with '.join(pair) for pair in PAIRS])}."
        )
    if not any(set(pair) <= {one.name for one in analysis.arms} for pair in pairs):
        return "Nothing yet: no pair of arms that is compared has finished runs of both."
    return "Nothing yet: no pair of arms that is compared shares a finished pre-training seed."


def _scores(analysis: Analysis) -> Iterator[Block]:
    table = _score_table(analysis.arms, paper=True)
    if table is None:
        return
    size = model(analysis.record)
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
        (_named(one), name, *(decimal(sd, POINTS) for sd in (score.sd_pretraining, score.sd_finetuning)),
         str(score.runs), str(score.diverged))
        for one in analysis.arms
        for name, score in one.scores.items()
    ]  # fmt: skip
    yield Table(
        ("arm", "data set", "pre-training sd", "fine-tuning sd", "fine-tuning runs", "of them diverged"), tuple(rows)
    )


def _score_table(arms: Sequence[ArmResult], *, paper: bool) -> Table | None:
    facts = {name: score.facts for one in arms for name, score in one.scores.items()}
    if not facts:
        return None
    heads = [
        f"{name}: {one.metric}, {one.split} ({one.standing}, {one.train:,} / {one.dev:,} examples)"
        for name, one in facts.items()
    ]
    rows = [(_named(one), *(_cell(one, SCORE, name, POINTS) for name in (*facts, MEAN))) for one in arms]
    if paper and set(SETS) & set(facts):
        for title, reported in PAPER_TABLE_7.items():
            scores = dict(zip(SETS, reported, strict=True))
            rows.append((f"the paper: {title}", *(decimal(scores.get(name), 1) for name in (*facts, MEAN))))
    return Table(("arm", *heads, "mean"), tuple(rows))


def _heldout(arms: Sequence[ArmResult], tasks: Mapping[str, str]) -> Table:
    """With the best baseline, and how many runs of all arms learned the task, where the record tells of each."""
    table = _by_task(arms, tasks, FINAL)
    baselines = {task: value for one in reversed(arms) for task, value in one.baselines.items()}
    runs = sum(len(one.seeds) for one in arms)
    rows = []
    for row, task in zip(table.rows, (*tasks, MEAN), strict=True):
        known = all(task in one.learned for one in arms)
        learned = f"{sum(one.learned[task] for one in arms)} of {runs}" if known else DASH
        rows.append((*row, decimal(baselines.get(task), FRACTION), learned))
    return Table((*table.heads, "best baseline", "learned (runs)"), tuple(rows))


def _by_task(arms: Sequence[ArmResult], tasks: Mapping[str, str], measure: str) -> Table:
    """Tasks down, arms across, and the mean over tasks."""
    items = {**tasks, MEAN: "mean over tasks"}
    change = measure in (BACKWARD, FORWARD)
    rows = [
        (title, *(_cell(one, measure, item, FRACTION, change=change) for one in arms)) for item, title in items.items()
    ]
    return Table(("task", *map(_named, arms)), tuple(rows))


def _cost(analysis: Analysis) -> Iterator[Block]:
    shared = analysis.record.machine.get("parallel", 1) > 1
    beside = " Runs shared the machine, so seconds are of a run beside others." if shared else ""
    yield Heading(2, "Cost of pre-training")
    yield Paragraph(f"Means over seeds, of one run.{beside}")
    rows = [(_named(one), *(_count(one, part) for part in ("passes", "tokens", "seconds"))) for one in analysis.arms]
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


def _cell(one: ArmResult, measure: str, item: str, unit: int, *, change: bool = False) -> str:
    return cell(one.figure(measure, item), unit, len(one.seeds), change=change)


def _count(one: ArmResult, part: str) -> str:
    figure = one.figure(COST, part)
    return whole(figure.mean if figure else None)


def _named(one: ArmResult) -> str:
    return f"{one.title} ({counted(len(one.seeds), 'seed')})"
