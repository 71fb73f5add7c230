"""study.html and its chart: every figure of the analysis, escaped, whole or unfinished, with nothing from outside."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest

from ernie2.reporting.study import accuracy_panels, axis_range, mean_line, render_html, render_markdown, render_svg
from ernie2.studies.analysis.analyse import analyse
from study_records import METHODS, TITLES, study_record

SVG = "{http://www.w3.org/2000/svg}"
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


def drawn(record: dict[str, Any]) -> str:
    return render_html(analyse(record))


def chart(record: dict[str, Any]) -> str:
    return render_svg(analyse(record).record)


def test_the_page_holds_the_picture_and_needs_nothing_else() -> None:
    text = drawn(study_record())
    assert chart(study_record()) in text
    assert "https://" not in text
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "<script" not in text


def test_elements_are_closed_in_the_order_they_were_opened() -> None:
    balance = Balance()
    balance.feed(drawn(study_record()))
    assert balance.wrong == []
    assert balance.open == []


def test_the_page_has_every_table_and_sentence_of_the_study() -> None:
    record = study_record()
    text, analysis = drawn(record), analyse(record)
    rows = [line for line in render_markdown(analysis).splitlines() if line.startswith("|") and "---" not in line]
    for row in rows:
        cells = "</td><td>".join(cell.strip() for cell in row.strip("|").split("|")[1:])
        assert cells in text or cells.replace("</td><td>", '</th><th scope="col">') in text
    for words in (*analysis.notes, *analysis.ratios):
        assert words in text


def test_the_verdict_comes_before_the_figures() -> None:
    text = drawn(study_record())
    titles = (
        "Comparison of the methods",
        "Scores after fine-tuning",
        "Accuracy over training",
        "Forgetting",
        "Cost of",
        "Notes",
    )
    places = [text.index(f"<h2>{title}") for title in titles]
    assert places == sorted(places)


def test_the_paper_s_figures_are_not_shown_without_the_words_on_its_size() -> None:
    text = drawn(study_record())
    assert "<td>77.3</td>" in text
    assert "base-size model" in text


def test_names_with_markup_in_them_are_shown_as_they_are() -> None:
    record = study_record()
    record["methods"][0]["title"] = "<b>method</b>"
    record["tasks"][0]["title"] = "<i>task"
    record["machine"]["cpu"] = "<u>cpu"
    record["data"]["corpora"] = {"<s>corpus": {"documents": 1, "licence": "<q>"}}
    record["settings"] = {"</pre><script>": "&"}
    record["preset"] = "</title>"
    text = drawn(record)
    for markup in ("<b>method", "<i>task", "<u>cpu", "<s>corpus", "<q>", "<script", "</title>,"):
        assert markup not in text
    for shown in ("&lt;b&gt;method", "&lt;i&gt;task", "&lt;u&gt;cpu", "&lt;s&gt;corpus", "&lt;q&gt;", "&lt;script"):
        assert shown in text


def test_the_same_record_gives_the_same_page_in_whatever_order_its_runs_came() -> None:
    record = study_record()
    assert drawn(record) == drawn(json.loads(json.dumps(record)))
    assert drawn(record | {"runs": record["runs"][::-1]}) == drawn(record)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": False}, "No run was fine-tuned, so there are no scores."),
        ({"sensitivity": ()}, "There are no runs without restarts of the schedule"),
        ({"scratch": False}, "forward transfer is not measured"),
        ({"seeds": (0,), "sensitivity": (0,)}, "one seed: no verdict"),
        ({"methods": ("multitask",)}, "cannot be tested: no two of its methods have scores"),
    ],
)
def test_a_study_with_parts_missing_has_a_page_that_says_which(changes: dict[str, Any], message: str) -> None:
    text = drawn(study_record(**changes) | {"status": "running", "finished": None})
    assert message in text
    assert "The study is not finished" in text
    assert not re.search(r"(?<!\. )\bNone\b|\bnan\b", text)


def test_a_study_whose_first_run_is_not_done_has_a_page() -> None:
    bare = {"runs": [], "scratch": [], "machine": {}, "data": {}, "encoder": {}, "batch_tokens": None, "finished": None}
    text = drawn(study_record() | bare | {"status": "running"})
    assert "no two of its methods have scores" in text
    assert "has no finished run yet" in text


def test_a_panel_a_task_has_a_line_an_arm_up_to_its_accuracy_at_the_end() -> None:
    record = study_record()
    of_tasks = list(accuracy_panels(analyse(record).record))
    assert [panel.title for panel in of_tasks] == list(TITLES)
    for panel, task in zip(of_tasks, record["tasks"], strict=True):
        assert [line.title for line in panel.lines] == list(METHODS.values())
        ends = [run["heldout"][-1]["tasks"][task["name"]]["accuracy"] for run in record["runs"]
                if (run["method"], run["restart"]) == ("combined", "per_stage")]  # fmt: skip
        share, value = panel.lines[3].points[-1]
        assert (share, value) == (1.0, pytest.approx(sum(ends) / 3))
        assert all(panel.low <= value <= panel.high for line in panel.lines for _, value in line.points)
    assert of_tasks[0].baseline == pytest.approx(0.05)


def test_a_mean_is_computed_where_all_lines_have_a_value() -> None:
    mean = mean_line([[(0.0, 0.0), (0.5, 1.0), (1.0, 0.0)], [(0.25, 0.5), (1.0, 0.5)]])
    assert mean == ((0.25, 0.5), (0.5, 0.75), (1.0, 0.25))


@pytest.mark.parametrize(
    ("values", "axis"),
    [
        ([0.51, 0.58], (0.5, 0.58, 0.02)),
        ([0.03, 0.97], (0.0, 1.0, 0.2)),
        ([0.5], (0.5, 0.51, 0.01)),
        ([], (0.0, 1.0, 0.2)),
    ],
)
def test_an_axis_holds_its_values_between_round_numbers(values: list[float], axis: tuple[float, ...]) -> None:
    assert axis_range(values) == pytest.approx(axis)


def test_it_is_well_formed_with_names_escaped_and_a_line_a_task_and_arm() -> None:
    record = study_record()
    record["methods"][0]["title"] = "<b>method & \x1b</b>"
    root = ElementTree.fromstring(chart(record))
    lines = [path for path in root.iter(f"{SVG}path") if (path.get("class") or "").startswith("method-")]
    assert len(lines) == 4 + 4 * 4  # the key, and a panel a task
    assert any(text.text == "<b>method & \\x1b</b>" for text in root.iter(f"{SVG}text"))


def test_a_study_without_runs_has_a_picture_that_says_so() -> None:
    assert chart(study_record(seeds=(), sensitivity=())).count("not measured yet") == 4
