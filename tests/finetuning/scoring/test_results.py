"""Summaries of several runs, as printed and as written."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tiny_finetuning as tiny
from ernie2.datasets.examples import Split
from ernie2.finetuning.jobs import RunResult
from ernie2.finetuning.scoring.results import (
    GLUE_TASKS,
    DatasetResult,
    build_record,
    dev_glue_score,
    format_result,
    summarise_runs,
)
from ernie2.reporting.finetuning import render


def as_markdown(record: dict[str, Any]) -> str:
    return render(record, "finetuning.md.jinja")


INFO = {"checkpoint": "runs/b", "layout": "run", "size": "base", "seeds": [0, 1], "device": "cpu",
         "precision": "fp32", "encoder": {"layers": 1, "hidden": 32}, "notes": ["a note"]}  # fmt: skip


def runs(*values: float, metric: str = "accuracy") -> list[RunResult]:
    return [
        RunResult(seed, Path("x"), {"dev": {metric: value}}, sequences_per_second=10)
        for seed, value in enumerate(values)
    ]


def outcomes(some: list[RunResult], summary: str = "median") -> DatasetResult:
    return summarise_runs(tiny.data("classification"), some, tiny.settings(summary=summary), (1, 32), 0, Path("out"))


def test_the_median_or_the_mean_of_all_runs_with_the_interval_of_the_mean() -> None:
    (row,) = outcomes(runs(80.0, 90.0, 82.0)).rows
    # mean 84, standard deviation 5.2915, t(2) = 4.3027: 4.3027 · 5.2915 / √3 = 13.145
    assert (row.middle, row.low, row.high) == pytest.approx((82.0, 84 - 13.145, 84 + 13.145), abs=1e-3)
    assert outcomes(runs(80.0, 90.0, 82.0), "mean").rows[0].middle == pytest.approx(84.0)
    assert outcomes(runs(80.0)).rows[0].low is None


def test_intervals_are_clipped_to_the_range_of_the_metric() -> None:
    (row,) = outcomes(runs(20.0, 52.4)).rows
    assert (row.low, row.high) == (0.0, 100.0)
    data = replace(tiny.data("classification"), metrics=("matthews",))
    (row,) = summarise_runs(data, runs(-2.0, 30.0, metric="matthews"), tiny.settings(), (1, 32), 0, Path("out")).rows
    assert (row.low, row.high) == (-100.0, 100.0)


def test_equal_seeds_have_no_interval_and_a_note() -> None:
    result = outcomes(runs(68.4, 68.4, 68.4))
    assert (result.rows[0].middle, result.rows[0].low, result.rows[0].high) == (68.4, None, None)
    assert "median 68.4, all 3 seeds agree, majority 50.0   each: 68.4 68.4 68.4" in "\n".join(format_result(result))
    assert "| all 3 seeds agree |" in as_markdown(build_record([result], **INFO))


def test_a_collapsed_seed_ranks_below_every_number() -> None:
    nan = math.nan
    (row,) = outcomes(runs(88.0, nan, nan, nan, 89.0)).rows
    assert (row.middle, row.withheld) == (None, "no median: 3 of 5 seeds collapsed")
    (row,) = outcomes(runs(88.0, nan, 86.0, nan, 89.0)).rows
    assert (row.middle, row.low, row.withheld) == (86.0, None, "")
    (row,) = outcomes(runs(88.0, nan, nan, 89.0)).rows  # the median averages 88 and a collapsed seed
    assert row.middle is None


def test_a_mean_over_a_collapsed_seed_is_withheld() -> None:
    result = outcomes(runs(88.0, math.nan, 90.0), "mean")
    assert (result.rows[0].middle, result.rows[0].withheld) == (None, "no mean: 1 of 3 seeds collapsed")
    assert "no mean: 1 of 3 seeds collapsed, majority 50.0   each: 88.0 none 90.0" in "\n".join(format_result(result))


def test_a_diverged_run_is_named_and_counts_as_collapsed() -> None:
    some = [*runs(80.0, 81.0), RunResult(2, Path("x"), {}, diverged="diverged: the loss was not finite at step 3 of 9")]
    result = outcomes(some)
    assert result.rows[0].middle == 80.0
    assert result.diverged == {2: "diverged: the loss was not finite at step 3 of 9"}
    lines = "\n".join(format_result(result))
    assert "each: 80.0 81.0 none" in lines
    assert "seed 2 diverged: the loss was not finite at step 3 of 9" in lines


def official(name: str, size: str, split: str, metric: str, provenance: str = "official") -> DatasetResult:
    data = tiny.data("classification")
    splits = {one: Split(part.examples, ("f",), provenance) for one, part in data.splits.items()}  # type: ignore[arg-type]
    found = {"train": splits["train"], split: splits["dev"]}
    renamed = replace(data, name=name, splits=found, metrics=(metric,))
    some = [RunResult(0, Path("x"), {split: {metric: 90.0}})]
    return summarise_runs(
        renamed, some, tiny.settings(), {"base": (12, 768), "large": (24, 1024)}[size], 0, Path("out")
    )


def test_the_papers_result_is_shown_only_for_the_same_size_and_split() -> None:
    assert official("rte", "large", "dev", "accuracy").paper["dev"][-1] == "ERNIE 2.0 large, dev: 85.2 (accuracy)"
    assert official("rte", "base", "dev", "accuracy").paper["dev"] == ()
    assert official("rte", "large", "dev", "accuracy", "stand-in").paper["dev"] == ()
    assert "only a subset" in official("rte", "large", "dev", "accuracy", "subset").comparison["dev"]


def test_the_glue_score_needs_all_nine_tasks() -> None:
    nine = [official(name, "base", "dev", "accuracy") for name in GLUE_TASKS]
    assert dev_glue_score(nine) == (pytest.approx(90.0), "")
    assert dev_glue_score(nine[:-1]) == (None, "")


def test_the_glue_score_is_withheld_without_a_median() -> None:
    nine = [official(name, "base", "dev", "accuracy") for name in GLUE_TASKS]
    collapsed = outcomes(runs(88.0, math.nan, math.nan, math.nan, 89.0))
    nine[3] = replace(collapsed, dataset="stsb")
    words = "no GLUE score: stsb accuracy has no median: 3 of 5 seeds collapsed"
    assert dev_glue_score(nine) == (None, words)
    record = build_record(nine, **INFO)
    assert (record["glue_score"], record["glue_withheld"]) == (None, words)
    assert f"N{words[1:]}." in as_markdown(record)


def test_the_report_contains_every_run_as_json_and_table() -> None:
    record = build_record([outcomes(runs(80.0, math.nan))], **INFO)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    text = as_markdown(record)
    assert (
        "| made-up | own | dev (dev.tsv) | accuracy | 80.0, none | no median: 1 of 2 seeds collapsed | – | 50.0 | – |"
        in text
    )
    assert "* a note" in text


def test_markup_and_escape_sequences_in_names_are_escaped_in_the_report() -> None:
    record = build_record([outcomes(runs(80.0))], **INFO | {"checkpoint": "a<b>\x1b[0m", "notes": ["[x](http://evil)"]})
    text = as_markdown(record)
    assert r"# Fine-tuning of a&lt;b&gt;\\x1b\[0m" in text
    assert r"* \[x\](http://evil)" in text


def test_printed_results_name_files_and_majority_and_the_settings_count_runs() -> None:
    result = outcomes(runs(80.0))
    assert result.settings.runs == 1
    lines = format_result(result)
    assert lines[0] == "made-up (own, settings for own data, train 8 of train.tsv, dev 6 of dev.tsv)"
    assert lines[1] == "  dev accuracy  median 80.0, majority 50.0   each: 80.0"


def test_the_glue_score_is_withheld_if_every_seed_diverged() -> None:
    nine = [official(name, "base", "dev", "accuracy") for name in GLUE_TASKS]
    nine[7] = replace(nine[7], rows=())
    assert dev_glue_score(nine) == (None, "no GLUE score: rte has no results, as every seed diverged")
