from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from ernie2.training.accuracy import accuracy_interval, wilson


def test_wilson_keeps_its_width_where_all_or_none_are_right():
    assert wilson(1.0, 16) == (pytest.approx(0.8064, abs=1e-4), 1.0)  # 16 / (16 + 1.96²)
    assert wilson(0.0, 16) == (0.0, pytest.approx(0.1936, abs=1e-4))


@given(st.integers(1, 500), st.data())
def test_wilson_is_that_of_scipy(trials, data):
    right = data.draw(st.integers(0, trials))
    expected = binomtest(right, trials).proportion_ci(method="wilson")
    assert wilson(right / trials, trials) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_independent_instances_have_the_plain_wilson_interval():
    right = np.array([True] * 70 + [False] * 58)
    accuracy, low, high = accuracy_interval(right, np.arange(128))
    assert (accuracy, low, high) == pytest.approx((0.546875, 0.4605, 0.6305), abs=1e-4)


@given(st.integers(2, 40), st.integers(1, 9), st.integers(0, 5))
def test_repeating_positions_inside_an_instance_does_not_narrow_the_interval(instances, copies, seed):
    right = np.random.default_rng(seed).random(instances) < 0.5
    once = accuracy_interval(right, np.arange(instances))
    often = accuracy_interval(np.repeat(right, copies), np.repeat(np.arange(instances), copies))
    assert often == pytest.approx(once)


def test_correlated_positions_count_as_few():
    """Four sequences of ten tokens, two wholly right: as good as two of four, not twenty of forty."""
    right = np.repeat([True, True, False, False], 10)
    assert accuracy_interval(right, np.repeat(np.arange(4), 10)) == pytest.approx((0.5, *wilson(0.5, 4)))


def test_positions_that_are_all_right_count_as_their_instances():
    assert accuracy_interval(np.ones(400, bool), np.repeat(np.arange(40), 10)) == (1.0, *wilson(1.0, 40))


def test_positions_right_alike_in_every_instance_count_each():
    right = np.tile([True, False], 20)
    assert accuracy_interval(right, np.repeat(np.arange(20), 2)) == pytest.approx((0.5, *wilson(0.5, 40)))


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """Sequences whose own accuracy varies: 95 % intervals of 400 samples hold the mean in 92 to 98 %."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        own = np.repeat(rng.beta(4, 1, 60), 20)
        _, low, high = accuracy_interval(rng.random(1200) < own, np.repeat(np.arange(60), 20))
        held += low <= 0.8 <= high
    assert 0.92 <= held / 400 <= 0.98
