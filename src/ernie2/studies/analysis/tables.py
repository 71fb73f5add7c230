"""All tables of a study as Markdown, and the few lines of it for a terminal. Same record, same text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ernie2.escaping import in_markdown
from ernie2.plurals import counted
from ernie2.studies.analysis.comparisons import PAIRS
from ernie2.studies.analysis.facts import facts, model
from ernie2.studies.analysis.paper_table7 import PAPER_TABLE_7, PAPER_WORDS, SETS
from ernie2.studies.analysis.results import FRACTION, POINTS, Analysis, ArmResult, Comparison, TaskFigure
from ernie2.studies.analysis.statistics import Estimate
from ernie2.studies.analysis.wording import DASH, cell, in_words, listing, number, plain, whole


def as_markdown(record: Mapping[str, Any], analysis: Analysis) -> str:
    """Every figure of `analysis`, with what was run on what; `record` is the one it was made of."""
    sections = [
        [f"# Learning methods side by side (Table 7), {in_markdown(record.get('preset', 'own settings'))}"],
        [f"* {in_markdown(line)}" for line in facts(record, analysis)],
        [how_to_read(analysis)],
        *_comparisons(record, analysis),
        *_scores(record, analysis),
        *_heldout(analysis.arms, "## Held-out accuracy at the end"),
        *_transfers(analysis),
        *_cost(record, analysis),
        *_sensitivity(analysis),
        ["## Notes"],
        [f"* {in_markdown(note)}" for note in analysis.notes] or ["None."],
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def spoken_lines(analysis: Analysis) -> list[str]:
    """Arms, the comparisons that sum up, ratios of forgetting, and notes, one line each."""
    lines = [_spoken_arm(one) for one in analysis.arms]
    titles = _titles(analysis)
    for one in analysis.comparisons:
        if one.what in _summaries(analysis):
            pair = f"{titles[one.first]} less {titles[one.second]}"
            lines.append(f"{pair}, {one.what}: {in_words(one.difference, one.unit)}: {one.verdict}")
    lines += [f"{ratio.words}." for ratio in analysis.ratios]
    if analysis.comparisons:
        lines.append("No correction for multiple comparisons is made.")
    return lines + list(analysis.notes)


def how_to_read(analysis: Analysis) -> str:
    """What the intervals are, and what they do not allow: one paragraph to stand before the figures."""
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


def _comparisons(record: Mapping[str, Any], analysis: Analysis) -> list[list[str]]:
    titles = {arm["name"]: arm["title"] for arm in record["arms"]}
    made = []
    for first, second in PAIRS:
        rows = [_compared(one) for one in analysis.comparisons if (one.first, one.second) == (first, second)]
        if rows:
            heads = (
                "figure",
                "difference",
                "seeds",
                "verdict",
                "difference without restarts",
                "dependence on restarts",
            )
            made += [[f"### {in_markdown(titles[first])} less {in_markdown(titles[second])}"], _table(heads, rows)]
    if not made:
        return [["## What can be told"], [_nothing_compared(titles, analysis)]]
    return [["## What can be told"], ["Scores in points, the rest as fractions of 1."], *made]


def _nothing_compared(planned: Mapping[str, str], analysis: Analysis) -> str:
    """Why there is no comparison; `planned`: title by name of every arm of the study."""
    pairs = [pair for pair in PAIRS if set(pair) <= set(planned)]
    if not pairs:
        return (
            "Nothing: this study has no pair of arms that is compared. Compared are "
            f"{listing([' with '.join(pair) for pair in PAIRS])}."
        )
    there = {one.arm.name for one in analysis.arms}
    if not any(set(pair) <= there for pair in pairs):
        return "Nothing yet: no pair of arms that is compared has finished runs of both."
    return "Nothing yet: no pair of arms that is compared shares a finished pre-training seed."


def _compared(one: Comparison) -> tuple[str, ...]:
    without = DASH if one.without_restart is None else in_words(one.without_restart, one.unit)
    seeds = str(len(one.difference.values))
    return one.what, in_words(one.difference, one.unit), seeds, one.verdict, without, one.dependence


def _scores(record: Mapping[str, Any], analysis: Analysis) -> list[list[str]]:
    table = _score_table(analysis.arms, paper=True)
    if not table:
        return []
    size = model(record)
    ours = f"Ours: {size[0].lower()}{size[1:]}. " if size else ""
    words = (
        f"{PAPER_WORDS} {ours}Heights are not comparable where sizes or data differ; the order of the methods may be."
    )
    spread = [
        (_named(one), score.dataset, *(DASH if sd is None else plain(sd, POINTS) for sd in sds), *counts)
        for one in analysis.arms
        for score in one.scores
        for sds in [(score.pretraining_sd, score.finetuning_sd)]
        for counts in [(str(score.runs), str(score.diverged))]
    ]
    heads = ("arm", "data set", "pre-training sd", "fine-tuning sd", "fine-tuning runs", "of them diverged")
    return [
        ["## Scores after fine-tuning, in percent"],
        table,
        [words],
        ["### Where the spread of the scores comes from"],
        [
            "Standard deviations in points, by one-way analysis of variance: of the pre-training seed’s own score, and "
            "of one fine-tuning run around it. A pre-training sd of 0.00 says that it came out at or below 0, not that "
            "seeds do not matter."
        ],
        _table(heads, spread),
    ]


def _score_table(arms: Sequence[ArmResult], *, paper: bool) -> list[str]:
    facts_of = {score.dataset: score for one in arms for score in one.scores}
    if not facts_of:
        return []
    heads = [
        f"{name}: {one.metric}, {one.split} ({one.standing}, {one.train:,} / {one.dev:,} examples)"
        for name, one in facts_of.items()
    ]
    rows = []
    for result in arms:
        by_name = {score.dataset: score.estimate for score in result.scores}
        cells = [cell(by_name.get(name), POINTS, len(result.arm.seeds)) for name in facts_of]
        rows.append((_named(result), *cells, cell(result.mean_score, POINTS, len(result.arm.seeds))))
    for row in PAPER_TABLE_7 if paper and set(SETS) & set(facts_of) else ():
        reported = [row.scores.get(name) for name in facts_of]
        cells = [DASH if value is None else number(value, 1) for value in reported]
        rows.append((f"the paper: {row.title}", *cells, DASH))
    return _table(("arm", *heads, "mean"), rows)


def _heldout(arms: Sequence[ArmResult], title: str) -> list[list[str]]:
    if not arms:
        return []
    baselines: dict[str, float] = {
        figure.task: figure.baseline for one in reversed(arms) for figure in one.tasks if figure.baseline is not None
    }
    table = _by_task(arms, lambda figure: figure.final, lambda one: one.heldout, change=False)
    tasks = _task_titles(arms)
    shown = [plain(baselines[task], FRACTION) if task in baselines else DASH for task in tasks]
    learned = [_learned_runs(arms, task) for task in tasks]
    rows = zip([*shown, DASH], [*learned, DASH], strict=True)
    beside = ["best baseline | learned (runs) |", "--- | --- |", *(f"{one} | {runs} |" for one, runs in rows)]
    return [[title], [f"{line} {more}" for line, more in zip(table, beside, strict=True)]]


def _learned_runs(arms: Sequence[ArmResult], task: str) -> str:
    """ "3 of 20": how many runs of all arms learned a task; a dash where the record does not tell of each."""
    figures = [(figure, len(one.arm.seeds)) for one in arms for figure in one.tasks if figure.task == task]
    counts = [figure.learned for figure, _ in figures if figure.learned is not None]
    return f"{sum(counts)} of {sum(seeds for _, seeds in figures)}" if len(counts) == len(figures) else DASH


def _transfers(analysis: Analysis) -> list[list[str]]:
    if not analysis.arms:
        return []
    parts: tuple[tuple[str, str, _OfTask, _OfArm, bool], ...] = (
        (
            "## Forgetting",
            "The best held-out accuracy at a stage’s end since the task entered, less the one at the end: never below "
            "0, and above it by chance even where nothing is forgotten. None for tasks of the last stage.",
            lambda figure: figure.forgetting,
            lambda one: one.forgetting,
            False,
        ),
        (
            "## Backward transfer",
            "Accuracy at the end less that at the end of the stage in which the task entered: below 0 is loss.",
            lambda figure: figure.backward,
            lambda one: one.backward,
            True,
        ),
        (
            "## Forward transfer",
            "Accuracy after the first part of the task’s own iterations, less that of the task trained alone from the "
            "same initial parameters for as many.",
            lambda figure: figure.forward,
            lambda one: one.forward,
            True,
        ),
    )
    made = []
    for title, words, of_task, of_arm, change in parts:
        made += [[title], [words], _by_task(analysis.arms, of_task, of_arm, change=change)]
        if title == "## Forgetting":
            made.append([f"* {ratio.words}" for ratio in analysis.ratios])
    return made


_OfTask = Callable[[TaskFigure], Estimate | None]
_OfArm = Callable[[ArmResult], Estimate | None]


def _by_task(arms: Sequence[ArmResult], of_task: _OfTask, of_arm: _OfArm, *, change: bool) -> list[str]:
    """Tasks down, arms across, and the mean over tasks."""
    rows = []
    for task, title in _task_titles(arms).items():
        figures = [next((figure for figure in one.tasks if figure.task == task), None) for one in arms]
        found = [None if figure is None else of_task(figure) for figure in figures]
        rows.append((title, *_cells(found, arms, change=change)))
    rows.append(("mean over tasks", *_cells([of_arm(one) for one in arms], arms, change=change)))
    return _table(("task", *map(_named, arms)), rows)


def _cells(found: Sequence[Estimate | None], arms: Sequence[ArmResult], *, change: bool) -> list[str]:
    sizes = [len(one.arm.seeds) for one in arms]
    return [cell(one, FRACTION, seeds, change=change) for one, seeds in zip(found, sizes, strict=True)]


def _cost(record: Mapping[str, Any], analysis: Analysis) -> list[list[str]]:
    if not analysis.arms:
        return []
    rows = [(_named(one), *map(whole, (one.cost.passes, one.cost.tokens, one.cost.seconds))) for one in analysis.arms]
    shared = (record.get("machine") or {}).get("parallel", 1) > 1
    beside = " Runs shared the machine, so seconds are of a run beside others." if shared else ""
    return [
        ["## Cost of pre-training"],
        [f"Means over seeds, of one run.{beside}"],
        _table(("arm", "encoder passes", "tokens", "seconds"), rows),
    ]


def _sensitivity(analysis: Analysis) -> list[list[str]]:
    if not analysis.sensitivity:
        return []
    forgotten = _by_task(analysis.sensitivity, lambda one: one.forgetting, lambda one: one.forgetting, change=False)
    return [
        ["## The same arms without restarts of the schedule"],
        ["Multi-task learning has one stage, so nothing restarts: it is the same run under both rules."],
        _score_table(analysis.sensitivity, paper=False),
        *_heldout(analysis.sensitivity, "### Held-out accuracy at the end, without restarts"),
        ["### Forgetting, without restarts"],
        forgotten,
    ]


def _summaries(analysis: Analysis) -> set[str]:
    """The comparisons that sum up: the mean of the scores, or the only score."""
    fixed = {"mean of the scores", "held-out accuracy, mean over tasks", "mean forgetting"}
    what = [one.what for one in analysis.comparisons]
    return fixed if "mean of the scores" in what else fixed | set(what)


def _spoken_arm(one: ArmResult) -> str:
    seeds = len(one.arm.seeds)
    parts = [
        f"mean of the scores {cell(one.mean_score, POINTS, seeds)}" if one.mean_score else "",
        f"held-out accuracy {cell(one.heldout, FRACTION, seeds)}" if one.heldout else "",
        f"forgetting {cell(one.forgetting, FRACTION, seeds)}" if one.forgetting else "",
        f"{whole(one.cost.passes)} encoder passes",
    ]
    return f"{_named(one)}: {', '.join(filter(None, parts))}"


def _titles(analysis: Analysis) -> dict[str, str]:
    return {one.arm.name: one.arm.title for one in analysis.arms}


def _task_titles(arms: Sequence[ArmResult]) -> dict[str, str]:
    """In the order of the record: every arm lists its tasks so, and one arm may lack some."""
    longest = max(arms, key=lambda one: len(one.tasks))
    found = {figure.task: figure.title for figure in longest.tasks}
    return found | {figure.task: figure.title for one in arms for figure in one.tasks}


def _named(one: ArmResult) -> str:
    return f"{one.arm.title} ({counted(len(one.arm.seeds), 'seed')})"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [_row(heads), "|" + " --- |" * len(heads), *map(_row, rows)]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(in_markdown, cells)) + " |"
