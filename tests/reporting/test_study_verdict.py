"""What a study says of the paper's order: no more than the intervals hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ernie2.reporting.study_verdict import better, differences, restart, standing
from ernie2.studies.analysis.analyse import analyse
from ernie2.studies.analysis.results import FRACTION, POINTS, Analysis, Comparison
from ernie2.studies.analysis.statistics import estimate
from study_records import study_record

TITLES = {"continual": "continual", "multitask": "multi-task", "continual_multitask": "continual multi-task"}
UP, DOWN, OPEN = (1.0, 1.1, 0.9), (-1.0, -1.1, -0.9), (-1.0, 1.0, 0.1)


def comparison(
    first: str,
    second: str,
    values: Sequence[float],
    what: str = "mean of the scores",
    unit: str = POINTS,
    without: Sequence[float] | None = None,
) -> Comparison:
    found = estimate(dict(enumerate(values)))
    assert found is not None
    beside = None if without is None else estimate(dict(enumerate(without)))
    return Comparison(first, second, what, unit, found, "in words", beside, "in words")


def analysis(*comparisons: Comparison) -> Analysis:
    return Analysis((), (), comparisons, (), ())


def order(first: Sequence[float], second: Sequence[float], third: Sequence[float]) -> Analysis:
    """multi-task less continual, continual multi-task less multi-task, and less continual."""
    return analysis(
        comparison("multitask", "continual", first),
        comparison("continual_multitask", "multitask", second),
        comparison("continual_multitask", "continual", third),
    )


def test_all_three_steps_told_is_the_paper_s_order() -> None:
    found = standing(order(UP, UP, UP), TITLES)
    assert found.headline == (
        "The paper’s order shows here too, continual < multi-task < continual multi-task: "
        "over three pre-training seeds every step of it is told apart."
    )
    assert found.untold == found.against == ()
    assert found.agrees[0] == "multi-task above continual (mean of the scores)"


def test_a_part_of_the_order_is_called_a_part() -> None:
    found = standing(order(OPEN, UP, OPEN), TITLES)
    assert "Part of the paper’s order" in found.headline
    assert "continual multi-task above multi-task. The rest cannot be told." in found.headline
    assert found.untold == (
        "multi-task and continual (mean of the scores)",
        "continual multi-task and continual (mean of the scores)",
    )


def test_without_a_mean_every_data_set_must_tell_every_step() -> None:
    steps = order(UP, UP, UP).comparisons
    sets = [replace(one, what=f"{name} accuracy") for name in ("mnli", "sst2") for one in steps]
    assert "every step" in standing(analysis(*sets), TITLES).headline
    sets[-1] = comparison(sets[-1].first, sets[-1].second, OPEN, sets[-1].what)
    assert "Part of the paper’s order" in standing(analysis(*sets), TITLES).headline


def test_two_arms_alone_are_no_order_even_where_they_are_told_apart() -> None:
    found = standing(analysis(comparison("multitask", "continual", UP)), TITLES)
    assert "Part of the paper’s order" in found.headline


def test_one_step_told_the_other_way_contradicts_the_paper() -> None:
    found = standing(order(UP, DOWN, UP), TITLES)
    assert "is contradicted here" in found.headline
    assert "continual multi-task below multi-task" in found.headline
    assert found.against == ("continual multi-task below multi-task (mean of the scores)",)


def test_nothing_told_neither_confirms_nor_contradicts() -> None:
    assert "neither confirmed nor contradicted: three pre-training seeds" in standing(
        order(OPEN, OPEN, OPEN), TITLES
    ).headline  # fmt: skip
    assert "one pre-training seed cannot" in standing(order((9.0,), (9.0,), (9.0,)), TITLES).headline


def test_without_scores_nothing_is_said_of_the_order() -> None:
    heldout = comparison("multitask", "continual", UP, "held-out accuracy, mean over tasks", FRACTION)
    found = standing(analysis(heldout), TITLES)
    assert found.headline.startswith("Nothing can be said of the paper’s order, continual <")
    assert found.agrees == ()


def test_an_arm_the_paper_does_not_have_is_no_claim_of_it() -> None:
    found = standing(analysis(comparison("combined", "continual_multitask", DOWN)), TITLES)
    assert found.against == ()


def test_to_forget_less_is_better() -> None:
    assert better(comparison("a", "b", DOWN, "mean forgetting", FRACTION)) == 1
    assert better(comparison("a", "b", DOWN)) == -1
    assert better(comparison("a", "b", OPEN)) == 0


def test_pairs_are_rows_and_measures_columns() -> None:
    one, other = comparison("a", "b", UP), comparison("c", "b", UP, "mean forgetting")
    made = differences([one, other])
    assert made.columns == ("mean of the scores", "mean forgetting")
    assert made.rows == ((("a", "b"), (one, None)), (("c", "b"), (None, other)))


def test_what_hangs_on_the_restart_is_counted_by_the_paired_change() -> None:
    same = comparison("a", "b", UP, without=(1.0, 1.2, 0.8))
    moved = comparison("a", "b", UP, "mean forgetting", without=(-1.0, -1.0, -1.1))
    assert "Of 2 differences, one is told to change" in restart([same, moved]).words
    assert "none is told" in restart([same]).words
    assert "cannot be told" in restart([comparison("a", "b", UP, without=(1.0,))]).words
    assert restart([comparison("a", "b", UP)]).rows == ()
    ((pair, rows),) = restart([same, moved]).rows
    assert pair == ("a", "b")
    assert rows[1][1] is not None
    assert round(rows[1][1].mean, 6) == round((2.0 + 2.1 + 2.0) / 3, 6)


def test_every_comparison_of_a_whole_study_is_laid_out() -> None:
    found = analyse(study_record())
    made = differences(found.comparisons)
    assert sum(cell is not None for _, cells in made.rows for cell in cells) == len(found.comparisons)
