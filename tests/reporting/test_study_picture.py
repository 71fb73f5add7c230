"""The forgetting picture as SVG: coordinates by hand, well formed whatever names hold, readable without colours."""

from __future__ import annotations

import itertools
import re
from typing import Any
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from ernie2.reporting.study_picture import MARKS, apart, picture, style
from study_records import study_record

SVG = "{http://www.w3.org/2000/svg}"


def one_line(title: str = "continual", task: str = "Masking") -> dict[str, Any]:
    """One arm, one task, two evaluations: 0.0 at the start and 0.5 at the end, the cheap rule at 0.25."""
    heldout = [
        {
            "step": step,
            "stage": 0,
            "at": at,
            "iterations": {"masking": step},
            "tasks": {"masking": {"accuracy": accuracy, "loss": 1.0, "cheap": 0.25}},
        }
        for step, at, accuracy in ((0, "start", 0.0), (10, "stage_end", 0.5))
    ]
    run = {
        "arm": "continual",
        "restart": "per_stage",
        "seed": 0,
        "stages": [{"begin": 0, "end": 10, "tasks": {"masking": 10}, "introduced": ["masking"]}],
        "heldout": heldout,
    }
    return {
        "tasks": [{"name": "masking", "title": task, "level": "token"}],
        "arms": [{"name": "continual", "title": title}],
        "runs": [run],
    }


def test_a_line_of_two_points_goes_from_one_corner_of_its_plot_to_the_other() -> None:
    drawn = picture(one_line())
    # The plot is 308 by 190 from (42, 30); accuracy runs from 0.0 at 220 to 0.5 at 30.
    assert '<path class="mean" d="M42 220L350 30"/>' in drawn
    assert '<path class="ruled rule" d="M42 125h308"/>' in drawn
    assert 'class="mark" transform="translate(350 30)"' in drawn
    assert '<rect x="42" y="228" width="307" height="4" opacity="1"/>' in drawn


def test_the_values_at_the_ends_of_lines_are_written_beside_them() -> None:
    root = ElementTree.fromstring(picture(one_line()))
    words = [" ".join("".join(text.itertext()).split()) for text in root.iter(f"{SVG}text")]
    assert "0.500 continual" in words
    assert "0.250 best baseline" in words


def test_it_is_well_formed_and_says_what_it_shows_in_words() -> None:
    root = ElementTree.fromstring(picture(study_record()))
    assert root.attrib["role"] == "img"
    named = {node.attrib["id"] for node in root if "id" in node.attrib}
    assert set(root.attrib["aria-labelledby"].split()) == named
    told = root.findtext(f"{SVG}desc") or ""
    assert re.search(r"Knowledge masking: continual 0\.\d{3}, multi-task 0\.\d{3}, continual multi-task 0\.\d{3}", told)
    assert len(root.findall(f"{SVG}g/{SVG}text[@class='name']")) == 4


def test_a_seed_is_a_faint_line_where_there_are_several() -> None:
    assert picture(study_record(seeds=(0, 1, 2))).count(' seed" d="') == 4 * 4 * 3
    assert picture(study_record(seeds=(0,), sensitivity=())).count(' seed" d="') == 0


def test_names_with_markup_or_characters_xml_cannot_hold_are_shown_as_text() -> None:
    drawn = picture(one_line(title="<script>&\x00\x0b\ud800", task='"<b>'))
    assert "<script" not in drawn
    root = ElementTree.fromstring(drawn.encode())
    assert "<script>&" in "".join(root.itertext())
    assert '"<b>' in "".join(root.itertext())


@given(st.text(max_size=30), st.text(max_size=30))
def test_it_is_well_formed_whatever_arms_and_tasks_are_called(title: str, task: str) -> None:
    ElementTree.fromstring(picture(one_line(title, task)).encode())


def test_it_needs_nothing_from_outside_and_the_same_record_gives_the_same_text() -> None:
    drawn = picture(study_record())
    assert drawn == picture(study_record())
    assert "nan" not in drawn
    assert not re.search(r"(href|src|@import|url\()", drawn)


def test_every_arm_has_a_colour_on_light_and_on_dark_paper_and_dashes_of_its_own() -> None:
    rules = [re.findall(rf"\.arm-{number} {{ --arm: (#\w{{6}})", style()) for number in range(len(MARKS))]
    assert all(len(colours) == 2 for colours in rules)
    assert len({colour for colours in rules for colour in colours}) == 2 * len(MARKS)
    dashes = re.findall(r"--dash: ([^;]+);", style())
    assert len(set(dashes)) == len(MARKS) == len(set(MARKS))


def test_a_study_without_a_finished_run_says_so_in_every_panel() -> None:
    empty = study_record() | {"runs": [], "scratch": []}
    drawn = picture(empty)
    ElementTree.fromstring(drawn)
    assert drawn.count("not measured yet") == 4


def test_labels_that_would_cover_each_other_move_apart_around_their_middle() -> None:
    assert apart([10.0, 12.0, 50.0], 15.0, 0.0, 100.0) == [3.5, 18.5, 50.0]
    assert apart([0.0, 1.0], 15.0, 0.0, 100.0) == [0.0, 15.0]
    assert apart([99.0, 100.0], 15.0, 0.0, 100.0) == [85.0, 100.0]


@given(st.lists(st.floats(0, 100), max_size=6))
def test_labels_keep_their_order_their_distance_and_their_bounds(wanted: list[float]) -> None:
    places = apart(sorted(wanted), 15.0, 0.0, 100.0)
    assert len(places) == len(wanted)
    assert all(later - earlier >= 15.0 - 1e-9 for earlier, later in itertools.pairwise(places))
    assert all(-1e-9 <= place <= 100.0 + 1e-9 for place in places)
