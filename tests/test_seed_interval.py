"""Intervals over seeds, and no interval if all seeds agree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ernie2.seed_interval import SeedInterval, mean_over_seeds, no_interval_reason, student_quantile


def test_three_seeds_have_the_interval_of_student_s_t():
    # sd √7, t of two degrees 4.3027: 3 ± 4.3027 · √(7 / 3)
    found = mean_over_seeds([1.0, 2.0, 6.0])
    assert (found.mean, found.note) == (3.0, "")
    assert (found.low, found.high) == (pytest.approx(3 - 6.57246, abs=1e-4), pytest.approx(3 + 6.57246, abs=1e-4))


@pytest.mark.parametrize(
    ("values", "note"),
    [
        ([0.4], "one seed"),
        ([88.0, 88.0], "both seeds agree"),
        ([0.0, 0.0, 0.0], "all 3 seeds agree"),
        ([0.5 - 0.3, 0.4 - 0.2, 0.2], "all 3 seeds agree"),  # they differ in the last digit only
    ],
)
def test_one_seed_and_seeds_that_agree_have_no_interval(values, note):
    assert mean_over_seeds(values) == SeedInterval(pytest.approx(values[0]), None, None, note)
    assert no_interval_reason(values) == note


def test_the_quantiles_are_those_of_the_tables():
    assert [round(student_quantile(degrees), 3) for degrees in (1, 2, 4)] == [12.706, 4.303, 2.776]


def test_no_other_module_computes_an_interval_over_seeds():
    root = Path(__file__).parents[1]
    files = [file for folder in ("src", "benchmarks") for file in (root / folder).rglob("*.py")]
    found = {file.name for file in files if re.search(r"\.ppf\(|stats import t\b", file.read_text(encoding="utf-8"))}
    assert found == {"seed_interval.py"}
