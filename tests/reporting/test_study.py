"""study.html: every figure of the analysis, escaped, whole or unfinished, with nothing from outside."""

from __future__ import annotations

import errno
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ernie2.errors import DataError, StorageError
from ernie2.reporting.study import render, write_study_page
from ernie2.studies.analysis.analyse import analyse
from ernie2.studies.analysis.blocks import Table
from ernie2.studies.analysis.tables import blocks
from study_records import study_record

VOID = {"meta", "link", "br"}


class Balance(HTMLParser):
    """Collects open elements, and whatever closes what is not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def written(folder: Path, record: dict[str, Any]) -> str:
    (folder / "study.json").write_text(json.dumps(record), encoding="utf-8")
    return write_study_page(folder).read_text(encoding="utf-8")


def test_the_page_and_the_picture_are_written_and_need_nothing_else(tmp_path: Path) -> None:
    page = written(tmp_path, study_record())
    assert sorted(os.listdir(tmp_path)) == ["forgetting.svg", "study.html", "study.json"]
    assert (tmp_path / "forgetting.svg").read_text(encoding="utf-8") in page
    assert "https://" not in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "<script" not in page


def test_elements_are_closed_in_the_order_they_were_opened() -> None:
    balance = Balance()
    balance.feed(render(study_record()))
    assert balance.wrong == []
    assert balance.open == []


def test_the_page_has_every_table_and_sentence_of_the_study() -> None:
    record = study_record()
    page, found = render(record), analyse(record)
    for block in blocks(record, found):
        if isinstance(block, Table):
            for row in block.rows:
                assert "".join(f"<td>{cell}</td>" for cell in row[1:]) in page
    for words in (*found.notes, *(ratio.words for ratio in found.ratios)):
        assert words in page


def test_the_verdict_comes_before_the_figures() -> None:
    page = render(study_record())
    titles = (
        "What can be told",
        "Scores after fine-tuning",
        "Accuracy over training",
        "Forgetting",
        "Cost of",
        "Notes",
    )
    places = [page.index(f"<h2>{title}") for title in titles]
    assert places == sorted(places)


def test_the_paper_s_figures_are_not_shown_without_the_words_on_its_size() -> None:
    page = render(study_record())
    assert "<td>77.3</td>" in page
    assert "base-size model" in page


def test_names_with_markup_in_them_are_shown_as_they_are() -> None:
    record = study_record()
    record["arms"][0]["title"] = "<b>arm</b>"
    record["tasks"][0]["title"] = "<i>task"
    record["machine"]["cpu"] = "<u>cpu"
    record["data"]["corpora"] = {"<s>corpus": {"documents": 1, "licence": "<q>"}}
    record["settings"] = {"</pre><script>": "&"}
    record["preset"] = "</title>"
    page = render(record)
    for markup in ("<b>arm", "<i>task", "<u>cpu", "<s>corpus", "<q>", "<script", "</title>,"):
        assert markup not in page
    for shown in ("&lt;b&gt;arm", "&lt;i&gt;task", "&lt;u&gt;cpu", "&lt;s&gt;corpus", "&lt;q&gt;", "&lt;script"):
        assert shown in page


def test_the_same_record_gives_the_same_page_in_whatever_order_its_runs_came() -> None:
    record = study_record()
    assert render(record) == render(json.loads(json.dumps(record)))
    assert render(record | {"runs": record["runs"][::-1]}) == render(record)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scores": False}, "No run was fine-tuned, so there are no scores."),
        ({"sensitivity": ()}, "Nothing was run without restarts of the schedule"),
        ({"scratch": False}, "forward transfer is not measured"),
        ({"seeds": (0,), "sensitivity": (0,)}, "one seed: cannot be told"),
        ({"arms": ("multitask",)}, "cannot be judged: no two of its methods have scores to compare"),
    ],
)
def test_a_study_with_parts_missing_has_a_page_that_says_which(changes: dict[str, Any], said: str) -> None:
    page = render(study_record(**changes) | {"status": "running", "finished": None})
    assert said in page
    assert "The study is not finished" in page
    assert not re.search(r"(?<!\. )\bNone\b|\bnan\b", page)


def test_a_study_whose_first_run_is_not_done_has_a_page() -> None:
    bare = {"runs": [], "scratch": [], "machine": {}, "data": {}, "encoder": {}, "batch_tokens": None, "finished": None}
    page = render(study_record() | bare | {"status": "running"})
    assert "no two of its methods have scores to compare" in page
    assert "has no finished run yet" in page


@pytest.mark.parametrize("text", ["", "[]", '{"kind": "study"}', "null", '{"kind": "finetuning"}'])
def test_a_damaged_record_is_told_and_leaves_no_page(tmp_path: Path, text: str) -> None:
    (tmp_path / "study.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError):
        write_study_page(tmp_path)
    assert os.listdir(tmp_path) == ["study.json"]


@pytest.mark.parametrize("key", ["arms", "tasks", "runs", "settings", "steps", "status"])
def test_a_record_that_lacks_a_part_is_told(tmp_path: Path, key: str) -> None:
    with pytest.raises(DataError):
        written(tmp_path, {name: value for name, value in study_record().items() if name != key})


def test_a_folder_without_a_study_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"study\.json cannot be read as the record of a study"):
        write_study_page(tmp_path)


def test_runs_that_may_not_be_compared_make_no_page(tmp_path: Path) -> None:
    record = study_record()
    record["runs"][0]["iterations"]["knowledge_masking"] -= 1
    with pytest.raises(DataError, match="iterations"):
        written(tmp_path, record)


def test_a_full_disk_is_told_and_the_earlier_page_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = written(tmp_path, study_record(scores=False))

    def full(source: object, target: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ernie2.storage.atomic.os.replace", full)
    with pytest.raises(StorageError, match="No space left on device"):
        written(tmp_path, study_record())
    assert (tmp_path / "study.html").read_text(encoding="utf-8") == before
    assert not list(tmp_path.glob("*.tmp"))
