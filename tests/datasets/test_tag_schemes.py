"""Tag schemes: entities of small examples, round trips through every scheme, and detection of the scheme."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie2.datasets.tag_schemes import (
    Scheme,
    TaggedText,
    check_prefixes,
    detect_scheme,
    entities,
    first_violation,
    parse_scheme,
    scheme_notes,
)
from ernie2.errors import ConfigError, DataError

# PER 0–2 · LOC 3–4 · LOC 4–6 · PER 7–8
WRITTEN: dict[Scheme, str] = {
    "IOB1": "I-PER I-PER O I-LOC B-LOC I-LOC O I-PER",
    "IOB2": "B-PER I-PER O B-LOC B-LOC I-LOC O B-PER",
    "IOE2": "I-PER E-PER O E-LOC I-LOC E-LOC O E-PER",
    "BIOES": "B-PER E-PER O S-LOC B-LOC E-LOC O S-PER",
    "BILOU": "B-PER L-PER O U-LOC B-LOC L-LOC O U-PER",
    "BMES": "B-PER E-PER O S-LOC B-LOC E-LOC O S-PER",
}


def tagged(*texts: str) -> list[TaggedText]:
    return [TaggedText(f"f, line {number}", text.split()) for number, text in enumerate(texts, 1)]


@pytest.mark.parametrize("scheme", WRITTEN)
def test_the_same_entities_are_read_from_every_scheme(scheme: Scheme) -> None:
    expected = [("PER", 0, 2), ("LOC", 3, 4), ("LOC", 4, 6), ("PER", 7, 8)]
    assert entities(WRITTEN[scheme].split(), scheme) == expected


def test_an_entity_of_ioe1_ends_at_e_only_before_another_of_its_kind() -> None:
    assert entities(["I-LOC", "E-LOC", "I-LOC", "O", "I-PER"], "IOE1") == [("LOC", 0, 2), ("LOC", 2, 3), ("PER", 4, 5)]
    assert entities(["I-LOC", "E-LOC", "O"], "IOE1") == []


def test_entities_of_iob2_begin_at_b() -> None:
    tags = ["B-PER", "I-PER", "I-LOC", "O", "I-LOC", "B-LOC", "B-LOC"]
    assert entities(tags) == [("PER", 0, 2), ("LOC", 5, 6), ("LOC", 6, 7)]
    assert entities([]) == []


def test_tags_that_violate_the_scheme_mark_no_entity() -> None:
    assert entities(["I-X", "O", "B-X", "I-X", "O"], "BIOES") == []
    assert entities(["B-X", "I-X", "E-Y"], "BIOES") == []
    assert entities(["I-X", "B-X"], "IOE2") == []
    assert entities(["O", "B-X", "O"], "IOB1") == []


@st.composite
def placed(draw: st.DrawFn) -> tuple[int, list[tuple[str, int, int]]]:
    """A length and entities in it, some of them touching."""
    found, at = [], 0
    for _ in range(draw(st.integers(0, 4))):
        start = at + draw(st.integers(0, 2))
        at = start + draw(st.integers(1, 4))
        found.append((draw(st.sampled_from(["PER", "B-LOC"])), start, at))
    return at + draw(st.integers(0, 2)), found


def written(length: int, found: list[tuple[str, int, int]], scheme: Scheme) -> list[str]:
    """The tags of entities, written from the definition of each scheme."""
    tags = ["O"] * length
    for number, (kind, start, end) in enumerate(found):
        before = number > 0 and found[number - 1][0] == kind and found[number - 1][2] == start
        after = number + 1 < len(found) and found[number + 1][0] == kind and found[number + 1][1] == end
        first, inside, last, single = {
            "IOB1": ("B" if before else "I", "I", "I", "B" if before else "I"),
            "IOB2": ("B", "I", "I", "B"),
            "IOE1": ("I", "I", "E" if after else "I", "E" if after else "I"),
            "IOE2": ("I", "I", "E", "E"),
            "BIOES": ("B", "I", "E", "S"),
            "BILOU": ("B", "I", "L", "U"),
            "BMES": ("B", "M", "E", "S"),
        }[scheme]
        letters = [single] if end - start == 1 else [first, *[inside] * (end - start - 2), last]
        tags[start:end] = [f"{letter}-{kind}" for letter in letters]
    return tags


@given(placed(), st.sampled_from(["IOB1", "IOB2", "IOE2", "BIOES", "BILOU", "BMES"]))
def test_entities_come_back_from_every_scheme(case: tuple[int, list[Any]], scheme: Scheme) -> None:
    tags = written(*case, scheme)
    assert entities(tags, scheme) == case[1]
    assert first_violation(tags, scheme) is None


@given(placed())
def test_entities_survive_ioe1_unless_a_single_token_precedes_its_kind(
    case: tuple[int, list[Any]],
) -> None:
    tags = written(*case, "IOE1")
    assert first_violation(tags, "IOE1") is None
    if not any(tag[0] == "E" and (at == 0 or tags[at - 1][1:] != tag[1:]) for at, tag in enumerate(tags)):
        assert entities(tags, "IOE1") == case[1]


@pytest.mark.parametrize("scheme", WRITTEN)
def test_the_scheme_of_training_tags_is_detected(scheme: Scheme) -> None:
    inside = {"BIOES": "B-X I-X E-X", "BMES": "B-X M-X E-X", "BILOU": "B-X I-X L-X"}.get(scheme, "O O")
    found, reason = detect_scheme(tagged(WRITTEN[scheme], inside))
    assert found == scheme
    assert "name another with --scheme" in reason


def test_ambiguous_tags_are_iob2_with_the_reason() -> None:
    assert detect_scheme(tagged("B-X O")) == (
        "IOB2",
        "the only prefix is B-, which fits several schemes; name another with --scheme",
    )
    assert detect_scheme(tagged("I-X I-X O I-Y"))[0] == "IOB1"
    assert detect_scheme(tagged("I-X E-X I-X O I-Y"))[0] == "IOE1"


def test_tags_without_prefixes_have_no_scheme_and_bare_letters_have_one() -> None:
    assert detect_scheme(tagged("NN VB O", "ADJ-SG NN"))[0] is None
    assert detect_scheme(tagged("B M E S B E"))[0] == "BMES"
    assert entities(["B", "M", "E", "S"], "BMES") == [("_", 0, 3), ("_", 3, 4)]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("B-X I-X", "O X-X"), "line 2: the tag 'X-X' has no prefix of a tag scheme"),
        (("B-X I-X", "PER"), "line 2: the tag 'PER' has no prefix"),
        (("B-X M-X E-X", "O", "B-X I-X L-X"), "line 3: the tag 'I-X' and the prefixes B, E, L, M of other"),
        (("B-X E-X", "U-X"), "line 2: the tag 'U-X'"),
        (("B-X I-X", "O I-X", "I-X B-X"), "line 2: the tag 'I-X' of token 2 does not follow IOB2, nor .* IOB1"),
        (("B-X I-X E-X S-X", "B-X I-X"), "line 2: the tag 'B-X' of token 1 does not follow BIOES"),
        (("I-X E-X", "I-X"), "line 2: the tag 'I-X' of token 1 does not follow IOE2, nor do all tags follow IOE1"),
        (("I-X S-X",), "line 1: the tag 'I-X' of token 1 does not follow BIOES"),
    ],
)
def test_mixed_schemes_and_unknown_prefixes_are_refused_with_the_line(texts: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=f"f, {message}"):
        detect_scheme(tagged(*texts))


def test_a_named_scheme_is_used_but_other_prefixes_are_refused() -> None:
    assert [parse_scheme(name) for name in ("iobes", "BIO", "none")] == ["BIOES", "IOB2", None]
    with pytest.raises(ConfigError, match=r"no tag scheme 'BIOS'.*Known: IOB1"):
        parse_scheme("BIOS")
    check_prefixes(tagged("I-X O"), "IOB2")
    with pytest.raises(DataError, match=r"line 2: the tag 'E-X' is none of IOB2 \(prefixes: B, I, O\)"):
        check_prefixes(tagged("B-X", "E-X"), "IOB2")


def test_tags_of_no_entity_are_counted_and_a_file_of_another_scheme_is_refused() -> None:
    assert scheme_notes("dev", tagged("B-X I-X O"), "IOB2") == []
    assert scheme_notes("dev", tagged("B-X I-X", "O I-X"), "IOB2") == [
        "dev: 1 of 3 tagged tokens belong to no entity under IOB2 (first: f, line 2)"
    ]
    assert scheme_notes("test", [], "IOB2") == []  # no labels
    assert scheme_notes("dev", tagged("O O"), "IOB2") == ["dev: every tag is O; there is no entity to find"]
    with pytest.raises(DataError, match="dev: 2 of 2 tagged tokens belong to no entity under IOB2"):
        scheme_notes("dev", tagged("I-X I-X", "O"), "IOB2")
