"""Scored rows get places in padded groups, each row one."""

from __future__ import annotations

import numpy as np

from ernie2.model.attention.queries import place_queries


def test_rows_of_a_group_are_padded_to_the_most_of_one_sequence():
    widths, (gather, scatter, real) = place_queries([2], np.array([0, 1]), np.array([0, 1, 3]))
    assert widths == (2,)
    assert gather.tolist() == [0, 0, 1, 2]
    assert scatter.tolist() == [0, 2, 3]
    assert real.squeeze(1).tolist() == [True, False, True, True]


def test_groups_follow_the_order_and_a_sequence_without_rows_has_one_place_of_padding():
    widths, (gather, scatter, real) = place_queries([1, 2], np.array([2, 0, 1]), np.array([0, 0, 2, 3]))
    assert widths == (1, 2)
    assert gather.tolist() == [2, 0, 0, 0, 1]
    assert scatter.tolist() == [3, 4, 0]
    assert real.squeeze(1).tolist() == [True, False, False, True, True]


def test_nothing_is_padding_where_all_sequences_have_as_many_rows():
    widths, arrays = place_queries([3], np.array([1, 2, 0]), np.arange(4))
    assert widths == (1,)
    assert [array.tolist() for array in arrays] == [[1, 2, 0], [2, 0, 1]]
