"""Choosing the run that predicts, and refusing before anything is trained."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import tiny_finetuning as tiny
from ernie2.errors import DataError
from ernie2.finetuning.glue_submission import best_run, check_tests
from ernie2.finetuning.jobs import Run


def test_the_best_on_dev_predicts_and_what_has_no_figures_never_does() -> None:
    def of(seed: int, *values: float) -> Run:
        return Run(
            seed, Path("x"), {"dev": dict(zip("ab", values, strict=False)), "test": {"a": 99.0}} if values else {}
        )

    assert best_run("mrpc", [of(0, 80, 70), of(1, 70, 90), of(2, math.nan), of(3)]).seed == 1
    with pytest.raises(DataError, match="no run of mrpc has figures"):
        best_run("mrpc", [of(0)])


def test_every_test_file_that_is_missing_or_short_is_told_before_training() -> None:
    rte = tiny.data("classification", test=tiny.examples("classification", 3))
    with pytest.raises(DataError) as told:
        check_tests({"rte": rte})
    assert "CoLA: cola has no test split" in str(told.value)
    assert "RTE: 3 rows in test.tsv, the official file has 3,000" in str(told.value)
