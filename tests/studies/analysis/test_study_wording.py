from __future__ import annotations

import pytest

from ernie2.plurals import counted
from ernie2.studies.analysis.statistics import Estimate, estimate
from ernie2.studies.analysis.wording import FRACTION, POINTS, cell, in_words, listing, number, plain, signed


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1.2, POINTS, "+1.20"),
        (-0.5, FRACTION, "−0.5000"),
        (0.001, POINTS, "0.00"),
        (-0.001, POINTS, "0.00"),
        (-0.00004, FRACTION, "0.0000"),
        (0.0, POINTS, "0.00"),
    ],
)
def test_changes_have_a_sign_unless_they_round_to_zero(value, unit, text):
    assert signed(value, unit) == text


def test_plain_numbers_have_a_true_minus_and_no_plus():
    assert (plain(62.413, POINTS), plain(0.41, FRACTION), number(-1.5, 1)) == ("62.41", "0.4100", "−1.5")


def test_a_difference_in_words_has_its_interval_where_there_is_one():
    assert in_words(Estimate(1.2, 0.31, 2.09, "", {0: 1.0, 1: 1.4}), POINTS) == "+1.20 (95 % +0.31 to +2.09)"
    assert in_words(estimate({0: 1.2}), POINTS) == "+1.20"


def test_a_cell_names_seeds_that_are_not_those_of_its_row():
    found = Estimate(62.4, 60.0, 64.8, "", {0: 62.0, 1: 62.8})
    assert cell(found, POINTS, 2) == "62.40 (60.00 to 64.80)"
    assert cell(found, POINTS, 3) == "62.40 (60.00 to 64.80, 2 seeds)"
    assert cell(found, POINTS, 2, change=True) == "+62.40 (+60.00 to +64.80)"
    assert cell(estimate({0: 62.4}), POINTS, 1) == "62.40 (one seed)"
    assert cell(estimate({0: 0.0, 1: 0.0}), FRACTION, 2) == "0.0000 (both seeds agree)"
    assert cell(None, POINTS, 2) == "–"


def test_counts_and_lists_read_as_words():
    assert (counted(1, "seed"), counted(1234, "seed")) == ("1 seed", "1,234 seeds")
    assert (listing([]), listing(["a"]), listing(["a", "b", "c"])) == ("", "a", "a, b and c")
