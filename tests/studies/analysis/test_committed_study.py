"""The study in the documentation: its record, analysed anew, gives its tables and its chart to the digit."""

from __future__ import annotations

from pathlib import Path

import pytest

from ernie2.reporting.study import render_markdown, render_svg
from ernie2.storage.json_files import read_checked_json
from ernie2.studies.analysis.analyse import analyse

STUDY = Path(__file__).parents[3] / "docs" / "study-table7"


@pytest.fixture(scope="module")
def record():
    return read_checked_json(STUDY / "study.json")


def test_its_tables_follow_from_its_record(record):
    assert render_markdown(analyse(record)) == (STUDY / "study.md").read_text(encoding="utf-8")


def test_its_picture_follows_from_its_record(record):
    assert render_svg(analyse(record).record) == (STUDY / "forgetting.svg").read_text(encoding="utf-8")


def test_its_methods_trained_every_task_equally_often_as_counted(record):
    assert {count for run in record["runs"] for count in run["iterations"].values()} == {300}
    assert {len(run["iterations"]) for run in record["runs"]} == {4}
