from __future__ import annotations

from ernie2.studies.analysis.statistics import Estimate, estimate
from ernie2.studies.analysis.wording import FRACTION, POINTS, cell, in_words


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
