"""Scores as dots: places on a common axis, intervals, the paper's figures beside them."""

from __future__ import annotations

import pytest

from ernie2.reporting.study_dots import axis, plots
from ernie2.studies.analysis.analyse import analyse
from ernie2.studies.analysis.statistics import Estimate, estimate
from study_records import study_record


def test_every_data_set_is_a_plot_and_so_is_their_mean() -> None:
    found = analyse(study_record())
    made = plots(found.arms)
    assert [plot.name for plot in made] == ["mnli", "sst2", "mrpc", "mean of the scores"]
    for plot in made[:3]:
        for row, arm in zip(plot.rows, found.arms, strict=True):
            score = next(score for score in arm.scores if score.dataset == plot.name)
            assert row.arm == arm.arm.name
            assert row.estimate is not None
            assert {seed: value for seed, _, value in row.dots} == row.estimate.values == score.estimate.values  # type: ignore[union-attr]


def test_the_paper_s_figures_stand_beside_its_own_arms_only() -> None:
    (mnli, *_) = plots(analyse(study_record()).arms)
    assert [row.paper for row in mnli.rows] == [77.3, 78.7, 79.0, None]


def test_a_study_of_one_set_has_no_mean_of_sets_and_one_without_scores_no_plot() -> None:
    record = study_record()
    for run in record["runs"]:
        run["scores"] = {"mrpc": run["scores"]["mrpc"]}
    assert [plot.name for plot in plots(analyse(record).arms)] == ["mrpc"]
    assert plots(analyse(study_record(scores=False)).arms) == ()


def test_an_axis_holds_dots_and_intervals_between_round_numbers() -> None:
    low, high, step = axis([Estimate(51.0, 49.5, 52.5, {0: 50.0, 1: 52.0})])
    assert (low, high, step) == (49.5, 52.5, 0.5)


def test_an_interval_far_wider_than_the_dots_does_not_press_them_together() -> None:
    wide = estimate({0: 50.0, 1: 52.0})
    assert wide is not None
    assert wide.low is not None
    assert wide.low < 39
    low, high, _ = axis([wide])
    assert (low, high) == (48.0, 54.0)


def test_dots_and_intervals_stay_on_the_axis() -> None:
    for plot in plots(analyse(study_record(seeds=(0, 1))).arms):
        for row in plot.rows:
            assert all(0 < place < 100 for _, place, _ in row.dots)
            assert row.interval is not None
            assert 0 <= row.interval[0] <= row.interval[1] <= 100
        assert (plot.ticks[0][0], plot.ticks[-1][0]) == (0.0, 100.0)


@pytest.mark.parametrize("seeds", [(0,), (3, 7)])
def test_one_seed_has_a_dot_and_no_interval(seeds: tuple[int, ...]) -> None:
    (mnli, *_) = plots(analyse(study_record(seeds=seeds, sensitivity=())).arms)
    assert all(len(row.dots) == len(seeds) for row in mnli.rows)
    assert all((row.interval is None) == (len(seeds) == 1) for row in mnli.rows)
