"""The picture of forgetting: means over seeds, axes that hold them, names escaped, well-formed XML."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from ernie2.reporting.study_chart import chart, mean_line, panels, scale
from ernie2.studies.analysis.reading import read
from study_records import ARMS, TITLES, study_record

SVG = "{http://www.w3.org/2000/svg}"


def test_a_panel_a_task_has_a_line_an_arm_up_to_its_accuracy_at_the_end() -> None:
    record = study_record()
    drawn = list(panels(read(record)))
    assert [panel.title for panel in drawn] == list(TITLES)
    for panel, task in zip(drawn, record["tasks"], strict=True):
        assert [line.title for line in panel.lines] == list(ARMS.values())
        ends = [run["heldout"][-1]["tasks"][task["name"]]["accuracy"] for run in record["runs"]
                if (run["arm"], run["restart"]) == ("combined", "per_stage")]  # fmt: skip
        share, value = panel.lines[3].points[-1]
        assert (share, value) == (1.0, pytest.approx(sum(ends) / 3))
        assert all(panel.low <= value <= panel.high for line in panel.lines for _, value in line.points)
    assert drawn[0].baseline == pytest.approx(0.05)


def test_a_mean_is_taken_where_all_lines_have_a_value() -> None:
    found = mean_line([[(0.0, 0.0), (0.5, 1.0), (1.0, 0.0)], [(0.25, 0.5), (1.0, 0.5)]])
    assert found == ((0.25, 0.5), (0.5, 0.75), (1.0, 0.25))


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
    assert scale(values) == pytest.approx(axis)


def test_it_is_well_formed_with_names_escaped_and_a_line_a_task_and_arm() -> None:
    record = study_record()
    record["arms"][0]["title"] = "<b>arm & \x1b</b>"
    root = ElementTree.fromstring(chart(record))
    lines = [path for path in root.iter(f"{SVG}path") if (path.get("class") or "").startswith("arm-")]
    assert len(lines) == 4 + 4 * 4  # the key, and a panel a task
    assert any(text.text == "<b>arm & \\x1b</b>" for text in root.iter(f"{SVG}text"))


def test_a_study_without_runs_has_a_picture_that_says_so() -> None:
    assert chart(study_record(seeds=(), sensitivity=())).count("not measured yet") == 4
