"""Normalised text for matching, and the positions of its characters in the original."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie2.shards.knowledge.matching_text import matching_text


@pytest.mark.parametrize(
    ("text", "compared"),
    [
        ("Tower Bridge", "Tower Bridge"),
        ("Tower \t\n Bridge", "Tower Bridge"),
        ("Tower\n\nBridge", "Tower\nBridge"),
        ("清华\n大学 北京", "清华大学 北京"),
        ("清华\nMBA", "清华 MBA"),
        ("Cafe\u0301\n\u0301", "Café \u0301"),
        ("\u212bngstro\u0308m", "Ångström"),
        ("\u1112\u1161\u11ab", "한"),
        ("To\u00adwer\u200b", "Tower"),
        ("", ""),
    ],
)
def test_a_text_is_matched_composed_and_with_single_spaces(text, compared):
    assert matching_text(text).text == compared


@given(st.text(st.sampled_from("aB é\u0301\u0308\n\u00a0\u00ad\u200b中文\u212b\u1112\u1161\u11ab") | st.characters()))
def test_every_normalised_character_maps_to_a_run_of_the_text(text):
    text = text.encode("utf-8", "ignore").decode()
    seen = matching_text(text)
    assert len(seen.starts) == len(seen.ends) == len(seen.text)
    assert unicodedata.is_normalized("NFC", seen.text) or not unicodedata.is_normalized("NFC", text)
    assert (seen.starts < seen.ends).all()
    assert (seen.starts[1:] >= seen.starts[:-1]).all()
    for character, start, end in zip(seen.text, seen.starts.tolist(), seen.ends.tolist(), strict=True):
        run = "".join(c for c in text[start:end] if unicodedata.category(c) not in ("Cc", "Cf"))
        assert character in unicodedata.normalize("NFC", run) or text[start:end].isspace()
