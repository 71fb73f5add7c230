"""Entities that tags mark, read off by hand."""

from __future__ import annotations

from ernie2.datasets.entities import entities


def test_strict_entities_begin_at_b_and_the_scripts_also_let_i_begin_one() -> None:
    tags = ["B-PER", "I-PER", "I-LOC", "O", "I-LOC", "B-LOC", "B-LOC"]
    assert entities(tags) == [("PER", 0, 2), ("LOC", 5, 6), ("LOC", 6, 7)]
    assert entities(tags, strict=False) == [
        ("PER", 0, 2),
        ("LOC", 2, 3),
        ("LOC", 4, 5),
        ("LOC", 5, 6),
        ("LOC", 6, 7),
    ]
    assert entities(["B-ORG", "I-ORG"]) == [("ORG", 0, 2)]
    assert entities([]) == []
