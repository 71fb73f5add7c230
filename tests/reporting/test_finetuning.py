"""results.html: every percentage of results.json, escaped, with nothing from outside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ernie2.reporting.finetuning import dot_positions, render, write_results

ROW = {
    "split": "dev",
    "metric": "accuracy",
    "values": {"0": 80.0, "1": None, "2": 90.0},
    "middle": 85.0,
    "low": 21.5,
    "high": 148.5,
    "withheld": "",
    "majority": 52.7,
    "no_interval": "",
}
SET = {
    "dataset": "rte", "summary": "median", "files": {"dev": "dev.tsv"}, "provenance": "official", "rows": [ROW],
    "paper": {"dev": ["ERNIE 2.0 large, dev: 85.2 (accuracy)"]},
    "comparison": {"dev": "Full data."}, "diverged": {"1": "the loss was not finite"}, "notes": ["a <b>note</b>"],
    "settings": {"epochs": 3, "batch_size": 8, "peak_lr": 3e-5}, "task_id": 0, "sequences_per_second": 12.0,
    "settings_from": "settings for own data",
}  # fmt: skip
RECORD: dict[str, Any] = {
    "checkpoint": "runs/<x>", "layout": "Hugging Face", "encoder": {"layers": 24, "hidden": 1024}, "size": "large",
    "seeds": [0, 1, 2], "device": "cpu", "precision": "fp32", "glue_score": None, "glue_withheld": "", "notes": [],
    "datasets": [SET],
}  # fmt: skip


def test_the_page_holds_every_figure_and_needs_nothing_else(tmp_path: Path) -> None:
    write_results(tmp_path, RECORD)
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8")) == RECORD
    page = (tmp_path / "results.html").read_text(encoding="utf-8")
    for words in (
        "85.0",
        "52.7",
        "dev.tsv",
        "21.5 to 148.5",
        "ERNIE 2.0 large, dev: 85.2",
        "rte, seed 1: the loss was not finite",
        "Full data.",
        "settings for own data",
    ):
        assert words in page
    assert page.count("<i style=") == 2  # the run that diverged has no dot
    assert "http://" not in page
    assert "https://" not in page


def test_seeds_that_agree_have_no_interval_and_the_page_says_so() -> None:
    row = {**ROW, "values": {"0": 80.0, "1": 80.0}, "low": None, "high": None, "no_interval": "both seeds agree"}
    assert '<td class="n">both seeds agree</td>' in render({**RECORD, "datasets": [{**SET, "rows": [row]}]})


def test_a_withheld_middle_and_a_withheld_score_say_why() -> None:
    words = "no median: 3 of 5 seeds collapsed"
    row = {**ROW, "middle": None, "withheld": words}
    page = render({**RECORD, "glue_withheld": f"no GLUE score: rte has {words}", "datasets": [{**SET, "rows": [row]}]})
    assert f'<td class="n">{words}</td>' in page
    assert f"no GLUE score: rte has {words}" in page


def test_names_with_markup_in_them_are_shown_as_they_are() -> None:
    page = render(RECORD)
    assert "runs/&lt;x&gt;" in page
    assert "a &lt;b&gt;note" in page


def test_dots_stay_on_their_axis() -> None:
    assert dot_positions([-12.0, 120.0, None, float("nan")]) == [(0.0, -12.0), (100.0, 120.0)]


def test_escape_sequences_in_names_are_spelled_out_in_the_page() -> None:
    page = render({**RECORD, "checkpoint": "runs/\x1b[31m"})
    assert "\x1b" not in page
    assert r"runs/\x1b[31m" in page
