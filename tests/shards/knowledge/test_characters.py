"""Classes of characters, by hand and against Python's own predicates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie2.shards.knowledge.characters import CAPITAL, CASED, INNER, JOINS, LETTER, SPACE, character_classes


@pytest.mark.parametrize(
    ("character", "bits"),
    [
        ("a", LETTER | CASED | JOINS),
        ("É", LETTER | CASED | CAPITAL | JOINS),
        ("ß", LETTER | CASED | JOINS),
        ("7", JOINS),
        ("'", INNER),
        ("\u0301", INNER | JOINS),  # a combining accent
        ("-", 0),
        (" ", SPACE),
        ("的", LETTER),
        ("ก", LETTER),  # Thai: no spaces between words
        ("क", LETTER | JOINS),  # Devanagari: spaces, no case
        ("ა", LETTER | JOINS),  # Georgian has upper-case letters but writes no initial capitals
        ("😀", 0),
    ],
)
def test_a_character_has_the_bits_of_its_kind(character, bits):
    assert character_classes(character).tolist() == [bits]


@given(st.text())
def test_bits_agree_with_the_predicates_of_str(text):
    classes = character_classes(text)
    assert len(classes) == len(text)
    assert [bool(bits & LETTER) for bits in classes] == [character.isalpha() for character in text]
    assert [bool(bits & SPACE) for bits in classes] == [character.isspace() for character in text]


def test_text_outside_the_basic_plane_has_one_class_per_character():
    assert character_classes("a😀b").tolist() == [*character_classes("a"), 0, *character_classes("b")]
