from __future__ import annotations

import json
import os
import re
from html.parser import HTMLParser

import pytest

from ernie2.errors import CheckpointError, StorageError
from ernie2.reporting.report import json_for_script, render, write_report

MASKING = "knowledge_masking"
SCORE = {
    "kind": "score", "name": "Which book?", "metric": "accuracy", "train": 64, "test": 180, "classes": ["a", "b"],
    "majority": 0.5, "seeds": [0, 1], "pretrained": [0.822, 0.806], "untrained": [0.633, 0.7], "margin": 0.148,
    "margin_low": 0.05, "margin_high": 0.25,
}  # fmt: skip
EVIL = "<script>alert(1)</script><!--\u2028&\"'"


class Page(HTMLParser):
    """Tags with their attributes, the text outside scripts and styles, and the text of each script."""

    VOID = frozenset({"meta", "link"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.scripts, self.open = "", [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif not self.open or self.open[-1] != "style":
            self.text += data


def words(html: str) -> str:
    return " ".join(Page(html).text.split())


def test_the_report_lies_in_the_run_folder_and_nothing_is_left_beside_it(folder):
    run = folder()
    path = write_report(run)
    assert path == run / "report.html"
    assert sorted(entry.name for entry in run.iterdir()) == ["metrics.jsonl", "report.html", "run.json"]


def test_figures_appear_as_recorded(small, small_lines):
    text = words(render(small([*small_lines, SCORE])))
    for figure in (
        "4.12 million parameters", "cpu (2 threads), fp32", "novels, 654,321 tokens", "163,840 tokens seen in 40 steps",
        "1 min 0 s", "One of two tasks is above", "0.150", "0.130–0.170", "unigram", "1,234", "duplicate 12",
        "0.822 0.806", "+0.148 [+0.050 to +0.250]", "ernie2==0.1.0", "Seed 7", "torch 2.13.0", "abc1234",
        "156 of 312, 50 %", "public domain", "Capitalization prediction",
    ):  # fmt: skip
        assert figure in text, figure


def test_tags_are_balanced_and_every_chart_has_its_place(small, small_lines):
    page = Page(render(small([*small_lines, SCORE])))
    assert page.open == []
    places = [attributes["data-chart"] for _, attributes in page.tags if "data-chart" in attributes]
    assert sorted(places) == sorted(json.loads(page.scripts[0])["charts"])


def test_markup_in_names_is_shown_not_obeyed(small, small_lines):
    tasks = [{"name": MASKING, "title": EVIL, "about": EVIL, "labels": None}]
    corpora = {EVIL: {"licence": EVIL, "documents": 3, "dropped": {EVIL: 1}}}
    small_lines[4]["tasks"][MASKING]["feature_baseline"]["feature"] = EVIL
    html = render(
        small(
            [*small_lines[:6], SCORE | {"name": EVIL}],
            name=EVIL,
            about=EVIL,
            tasks=tasks,
            recipe={"corpora": {EVIL: EVIL}},
            data={"corpora": corpora, "usable": {EVIL: {EVIL: {"usable": 1, "of": 3}}}},
            stages=[{"name": EVIL, "iterations": {MASKING: 20}, "steps": 20, "introduced": [MASKING]}],
        )
    )
    page = Page(html)
    assert page.open == []
    assert len(page.scripts) == 3
    assert json.loads(page.scripts[0])["stages"][0]["name"] == EVIL
    assert "<script>alert" not in html
    assert page.text.count("<script>alert(1)</script>") > 8


def test_embedded_json_survives_and_cannot_end_its_script():
    text = json_for_script({"a": "</script><!--&\u2028é"})
    assert not set(text) & set("<>&\u2028é")
    assert json.loads(text) == {"a": "</script><!--&\u2028é"}


def test_the_page_loads_nothing(small):
    html = render(small())
    page = Page(html)
    for tag, attributes in page.tags:
        assert tag not in {"img", "iframe", "object", "embed", "base"}
        assert "src" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        assert attributes.get("href", "data:,") == "data:,"
    assert not re.search(r"url\(|@import|@font-face", html)
    assert not re.search(r"\bfetch\(|XMLHttpRequest|WebSocket|sendBeacon|\bimport\(", html)
    policy = next(attributes["content"] for _, attributes in page.tags if "http-equiv" in attributes)
    assert policy.startswith("default-src 'none'")


def test_uplot_is_included_once_with_its_licence(small):
    html = render(small())
    assert html.count("var uPlot=") == 1
    assert html.count("Permission is hereby granted, free of charge") == 1


def test_the_same_records_give_the_same_page(small):
    assert render(small()) == render(small())


def test_a_run_under_way_has_a_report(small, small_lines):
    text = words(render(small(small_lines[:5], status="running", finished=None)))
    assert "Still running, at step 20 of 40." in text
    assert "Not trained yet, or not evaluated since training began: Capitalization prediction" in text
    assert "planned" in text


def test_a_stopped_run_has_no_stage_that_is_running_and_its_time_has_a_name(small, small_lines):
    text = words(render(small(small_lines[:5], status="stopped", finished=None)))
    assert "Stopped, at step 20 of 40." in text
    assert "running" not in text
    assert "training time" in text


def test_a_run_that_has_only_begun_has_a_report(folder):
    run = folder([], status="running", finished=None)
    (run / "metrics.jsonl").unlink()
    assert "No steps are recorded yet." in words(write_report(run).read_text(encoding="utf-8"))


def test_one_task_and_one_stage_are_enough(small, small_lines):
    html = render(
        small(small_lines[:6], tasks=[{"name": MASKING}], stages=[{"iterations": {MASKING: 20}, "steps": 20}])
    )
    assert "The one task is above every baseline on held-out documents." in words(html)
    assert Page(html).open == []


def test_the_barest_run_json_is_enough(small):
    html = render(small([], stages=[], tasks=[]))
    assert Page(html).open == []


def test_a_run_cut_short_in_the_middle_of_a_line_has_a_report(folder):
    run = folder()
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"kind": "step", "step": 99')
    assert "in 40 steps" in words(write_report(run).read_text(encoding="utf-8"))


def test_the_schedule_has_iterations_totals_and_the_stage_a_task_enters(small):
    table = render(small()).split('id="schedule"')[1].split("</tbody>")[0]
    rows = [re.findall(r'<td class="(.*?) (.*?)" style="--shade:(.*?)">(.*?)</td>', row) for row in table.split("<tr>")]
    assert rows[-2:] == [
        [("new", "", "0.667", "20"), ("", "", "0.333", "10")],
        [("", "none", "0.000", "·"), ("new", "", "1.000", "30")],
    ]
    assert table.count('<td class="sum">30</td>') == 2


def test_a_stage_that_ended_early_says_what_it_forfeited(small, small_lines):
    small_lines[5] |= {"step": 12, "iterations": {MASKING: 12}, "dropped_iterations": {MASKING: 8}}
    text = words(render(small(small_lines)))
    assert "12 done" in text
    assert "Stage 1 ended early; iterations dropped: knowledge masking 8." in text


def test_a_warm_start_is_named_and_repeated_in_the_commands(small):
    assert "--init-from runs/before" in words(render(small(initialised_from="runs/before")))


def test_a_folder_that_is_no_run_gets_no_report(tmp_path):
    with pytest.raises(CheckpointError):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_when_writing_fails_the_earlier_report_is_unchanged(folder, monkeypatch):
    run = folder()
    before = write_report(run).read_text(encoding="utf-8")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    message = r"report\.html cannot be written: No space left on device; nothing was changed\. Free space"
    with pytest.raises(StorageError, match=message):
        write_report(run)
    assert (run / "report.html").read_text(encoding="utf-8") == before
    assert not list(run.glob("*.tmp"))


def test_what_a_corpus_does_not_offer_a_task_is_shown_under_its_documents(small):
    usable = {"usable": 156, "of": 312, "scored": 0.149, "notes": ["entity spans are <0.0% of its units."]}
    data = {"corpora": {"novels": {}, "laws": {}}, "usable": {MASKING: {"laws": usable}}}
    html = render(small(data=data))
    assert "156 of 312, 50 %14.9 % of tokens scored" in words(html)
    assert "Knowledge masking, laws: entity spans are <0.0% of its units." in words(html)
    assert "&lt;0.0%" in html
