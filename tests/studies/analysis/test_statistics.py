from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from ernie2.studies.analysis.statistics import (
    FRACTION,
    POINTS,
    Estimate,
    difference,
    estimate,
    fieller_ratio,
    format_cell,
    format_difference,
    variance_components,
)

VALUES = st.floats(-100, 100).map(lambda value: round(value, 3))
BY_SEED = st.dictionaries(st.integers(0, 20), VALUES, min_size=2, max_size=8)


def test_three_seeds_have_the_interval_of_student_s_t():
    found = estimate({0: 1.0, 1: 2.0, 2: 6.0})
    # sd √7, t of two degrees 4.3027: 3 ± 4.3027 · √(7 / 3)
    assert found.mean == 3.0
    assert found.low == pytest.approx(3 - 6.57246, abs=1e-4)
    assert found.high == pytest.approx(3 + 6.57246, abs=1e-4)


def test_one_seed_has_no_interval_and_no_direction():
    found = estimate({4: 2.5})
    assert (found.mean, found.low, found.high, found.direction) == (2.5, None, None, 0)


def test_what_is_not_finite_is_left_out_and_of_nothing_there_is_no_estimate():
    assert estimate({0: 1.0, 1: None, 2: math.nan, 3: math.inf}).values == {0: 1.0}
    assert estimate({0: None}) is None
    assert estimate({}) is None


@given(BY_SEED)
def test_the_interval_is_scipy_s(values):
    array = np.array(list(values.values()))
    assume(array.std() > 1e-3)
    bounds = stats.ttest_1samp(array, 0.0).confidence_interval(0.95)
    found = estimate(values)
    assert [found.low, found.high] == pytest.approx([bounds.low, bounds.high], rel=1e-9, abs=1e-9)


@given(BY_SEED, st.randoms())
def test_the_order_of_the_seeds_changes_no_digit(values, chance):
    items = list(values.items())
    chance.shuffle(items)
    assert estimate(dict(items)) == estimate(values)
    assert tuple(estimate(dict(items)).values) == tuple(sorted(values))


@pytest.mark.parametrize(
    ("values", "direction"),
    [((1.0, 1.1, 0.9), 1), ((-1.0, -1.1, -0.9), -1), ((1.0, -1.0, 0.5), 0), ((0.0, 0.0, 0.0), 0)],
)
def test_the_direction_is_told_only_where_the_interval_leaves_out_zero(values, direction):
    assert estimate(dict(enumerate(values))).direction == direction


def test_equal_values_have_no_interval_and_tell_nothing():
    # 0.5 − 0.3 and 0.4 − 0.2 differ in the last digit only
    found = estimate({0: 0.5 - 0.3, 1: 0.4 - 0.2})
    assert (found.low, found.high, found.direction, found.note) == (None, None, 0, "both seeds agree")


def test_a_difference_takes_the_seeds_both_have_one_by_one():
    first, second = estimate({0: 10.0, 1: 12.0, 5: 99.0}), estimate({0: 9.0, 1: 10.0, 7: -99.0})
    assert difference(first, second).values == {0: 1.0, 1: 2.0}
    assert difference(first, estimate({3: 1.0})) is None
    assert difference(first, None) is None


@given(BY_SEED, BY_SEED)
def test_swapping_the_sides_negates_the_difference_to_the_digit(first, second):
    assume(set(first) & set(second))
    ours, theirs = difference(estimate(first), estimate(second)), difference(estimate(second), estimate(first))
    assert ours.mean == -theirs.mean
    assert ours.direction == -theirs.direction
    if ours.low is not None:
        assert (ours.low, ours.high) == (-theirs.high, -theirs.low)


@given(st.lists(st.tuples(VALUES, VALUES), min_size=2, max_size=8))
def test_a_difference_is_the_paired_t_test_s(pairs):
    first, second = np.array(pairs).T
    assume((first - second).std() > 1e-3)
    bounds = stats.ttest_rel(first, second).confidence_interval(0.95)
    found = difference(estimate(dict(enumerate(first))), estimate(dict(enumerate(second))))
    assert [found.low, found.high] == pytest.approx([bounds.low, bounds.high], rel=1e-8, abs=1e-8)


def test_variance_components_of_a_balanced_example():
    # means 11, 15, 13: MS between 8, MS within 2, so (8 − 2) / 2 between
    between, within = variance_components({0: [10, 12], 1: [14, 16], 2: [12, 14]})
    assert between == pytest.approx(math.sqrt(3))
    assert within == pytest.approx(math.sqrt(2))


def test_variance_components_of_calcium_in_turnip_leaves():
    # Snedecor & Cochran, Statistical Methods: s² within 0.0066, s² between leaves 0.0724
    leaves = {
        1: [3.28, 3.09, 3.03, 3.03],
        2: [3.52, 3.48, 3.38, 3.38],
        3: [2.88, 2.80, 2.81, 2.76],
        4: [3.34, 3.38, 3.23, 3.26],
    }
    between, within = variance_components(leaves)
    assert round(within**2, 4) == 0.0066
    assert round(between**2, 4) == 0.0724


def test_variance_components_of_groups_of_different_sizes():
    # means 2, 5, 8 around 5.5: MS between 43.5 / 2, MS within 10 / 3, n₀ = (6 − 14 / 6) / 2 = 11 / 6
    between, within = variance_components({0: [1, 3], 1: [5], 2: [6, 8, 10]})
    assert within**2 == pytest.approx(10 / 3)
    assert between**2 == pytest.approx((21.75 - 10 / 3) / (11 / 6))


def test_a_negative_component_is_zero():
    between, within = variance_components({0: [0, 10], 1: [1, 9]})
    assert between == 0.0
    assert within == pytest.approx(math.sqrt((50 + 32) / 2))


def test_components_that_cannot_be_told_are_none():
    assert variance_components({0: [1.0], 1: [2.0]}) == (None, None)
    assert variance_components({0: [1.0, 3.0]}) == (None, pytest.approx(math.sqrt(2)))
    assert variance_components({0: [1.0, 3.0], 1: []})[0] is None
    assert variance_components({}) == (None, None)


@given(st.lists(st.lists(VALUES, min_size=3, max_size=3), min_size=2, max_size=5))
def test_the_components_give_scipy_s_f(groups):
    between, within = variance_components(dict(enumerate(groups)))
    assume(within > 1e-2)
    f = stats.f_oneway(*groups).statistic
    assert between**2 == pytest.approx(max(0.0, (f - 1) * within**2 / 3), rel=1e-6, abs=1e-6)


def test_fieller_of_three_pairs_by_hand():
    # means 2 and 11, variances 1 and 1, covariance 0.5, t² / 3 = 6.17094:
    # (121 − 6.17094) ρ² − 2 (22 − 3.08547) ρ + (4 − 6.17094) = 0
    found = fieller_ratio([1, 2, 3], [10, 12, 11])
    assert found.value == pytest.approx(2 / 11)
    assert (found.low, found.high) == (pytest.approx(-0.049846, abs=2e-6), pytest.approx(0.379284, abs=2e-6))


def test_a_ratio_that_is_the_same_at_every_seed_has_no_interval():
    for found in (fieller_ratio([1.0, 1.1, 1.2], [3.0, 3.3, 3.6]), fieller_ratio([1, 1, 1], [3, 3, 3])):
        assert (found.value, found.low, found.high, found.bounded) == (pytest.approx(1 / 3), None, None, True)


@given(st.lists(st.tuples(VALUES, VALUES), min_size=2, max_size=8))
def test_at_the_bounds_of_fieller_a_paired_t_test_is_at_five_percent(pairs):
    first, second = np.array(pairs).T
    assume(second.std() > 1e-2)
    assume(abs(stats.ttest_1samp(second, 0.0).pvalue - 0.05) > 1e-3)
    found = fieller_ratio(list(first), list(second))
    assert found.bounded == (stats.ttest_1samp(second, 0.0).pvalue < 0.05)
    if not found.bounded:
        assert found.low is None
        assert found.high is None
        return
    assume(found.low is not None)
    assert found.low <= found.value + 1e-9
    assert found.value <= found.high + 1e-9
    for bound in (found.low, found.high):
        rest = first - bound * second
        assume(rest.std() > 1e-3)
        assert stats.ttest_1samp(rest, 0.0).pvalue == pytest.approx(0.05, abs=1e-5)


def test_one_pair_has_a_ratio_and_no_interval():
    found = fieller_ratio([1.0], [4.0])
    assert (found.value, found.low, found.high, found.bounded) == (0.25, None, None, False)


def test_over_zero_there_is_no_ratio():
    assert fieller_ratio([1.0, 2.0], [1.0, -1.0]).value is None


def test_a_difference_in_words_has_its_interval_where_there_is_one():
    assert format_difference(Estimate(1.2, 0.31, 2.09, "", {0: 1.0, 1: 1.4}), POINTS) == "+1.20 (95 % +0.31 to +2.09)"
    assert format_difference(estimate({0: 1.2}), POINTS) == "+1.20"


def test_a_cell_names_seeds_that_are_not_those_of_its_row():
    found = Estimate(62.4, 60.0, 64.8, "", {0: 62.0, 1: 62.8})
    assert format_cell(found, POINTS, 2) == "62.40 (60.00 to 64.80)"
    assert format_cell(found, POINTS, 3) == "62.40 (60.00 to 64.80, 2 seeds)"
    assert format_cell(found, POINTS, 2, change=True) == "+62.40 (+60.00 to +64.80)"
    assert format_cell(estimate({0: 62.4}), POINTS, 1) == "62.40 (one seed)"
    assert format_cell(estimate({0: 0.0, 1: 0.0}), FRACTION, 2) == "0.0000 (both seeds agree)"
    assert format_cell(None, POINTS, 2) == "–"
