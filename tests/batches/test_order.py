"""Order without state: bijections and generators that depend on their key alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie2.batches.order import generator, permuted, seed_of


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 400), st.integers(0, 2**128 - 1))
def test_every_place_is_used_once(size, seed):
    assert sorted(permuted(i, size, seed) for i in range(size)) == list(range(size))


@pytest.mark.parametrize("size", [10**6 + 3, 2**40 + 1])
def test_places_of_large_permutations_are_inside_and_distinct(size):
    places = {permuted(i, size, seed_of("large")) for i in range(5_000)}
    assert len(places) == 5_000
    assert 0 <= min(places) < size / 100 < size * 0.99 < max(places) < size


def test_neighbours_part_and_places_are_uniform():
    size, places = 10_000, np.array([permuted(i, 10_000, seed_of("uniform")) for i in range(10_000)])
    assert abs(np.corrcoef(np.arange(size), places)[0, 1]) < 0.05
    assert (np.abs(np.diff(places)) < 10).mean() < 0.01
    quarters = np.bincount(places[:2_500] // 2_500, minlength=4)
    assert quarters.tolist() == pytest.approx([625] * 4, rel=0.15)


def test_other_seeds_give_other_orders():
    orders = {tuple(permuted(i, 6, seed_of(epoch)) for i in range(6)) for epoch in range(400)}
    assert len(orders) > 200


def test_equal_keys_give_equal_numbers_whatever_was_drawn_before():
    first = generator("a", 1).random(5)
    generator("a", 1).random(1_000)
    assert (generator("a", 1).random(5) == first).all()


def test_keys_that_differ_anywhere_give_unrelated_numbers():
    keys = [("a", 1), ("a", 2), ("b", 1), ("a", 1, 0), (1, "a"), ("a1",), ("a", 12), ("a1", 2)]
    assert len({seed_of(*key) for key in keys}) == len(keys)
    assert len({generator(*key).integers(2**63) for key in keys}) == len(keys)


def test_seeds_are_the_same_on_every_machine():
    assert seed_of("ernie", 2) == 0xE48ECA55225422B87D5189301B28305B
    assert generator("ernie", 2).integers(1_000, size=4).tolist() == [105, 650, 432, 540]
    assert [permuted(i, 8, seed_of("ernie", 2)) for i in range(8)] == [2, 4, 0, 5, 7, 3, 1, 6]
