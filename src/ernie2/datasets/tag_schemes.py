"""Tag schemes: entities marked by prefixes (B-PER, I-PER, O), and detection of the scheme of a training file.

| scheme | one token | several tokens | note |
|---|---|---|---|
| IOB1 | I | I I | B only if an entity directly follows one of the same kind |
| IOB2 | B | B I | |
| IOE1 | I | I I | E only if an entity directly precedes one of the same kind |
| IOE2 | E | I E | |
| BIOES | S | B I E | also called IOBES |
| BILOU | U | B I L | |
| BMES | S | B M E | |

A tag without a kind (B, M, E, S of word segmentation) has the kind `_`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from ernie2.errors import ConfigError, DataError, did_you_mean

Scheme = Literal["IOB1", "IOB2", "IOE1", "IOE2", "BIOES", "BILOU", "BMES"]
Entity = tuple[str, int, int]
"""(kind, first token, token after the last)."""

NO_SCHEME = "none"
"""Value of `--scheme` for tags that do not mark entities, such as parts of speech."""

_ENTITY: dict[Scheme, str] = {
    "IOB2": r"B(.)(?:I\1)*",
    "IOB1": r"I(.)(?:I\1)*|(?<=[IB](.))B\2(?:(?:I\2)+|(?!B(?!\2)))",
    "IOE2": r"I(.)(?:I\1)*E\1|E(.)",
    "IOE1": r"I(.)(?:I\1)*(?:E\1(?=[IE]\1)|(?![IE]\1))|(?<=E(.))E\2(?=[IE]\2)",
    "BIOES": r"S(.)|B(.)(?:I\2)*E\2",
    "BILOU": r"U(.)|B(.)(?:I\2)*L\2",
    "BMES": r"S(.)|B(.)(?:M\2)*E\2",
}
"""Scheme → pattern of an entity, in the order in which schemes are tried. A tag is two characters: the prefix, and one
that encodes the kind."""
_PREFIXES = {scheme: frozenset(re.findall("[A-Z]", pattern)) for scheme, pattern in _ENTITY.items()}
_LETTERS = frozenset().union(*_PREFIXES.values())


@dataclass(frozen=True, slots=True)
class TaggedText:
    """The tags of one text, and its place in a file for messages."""

    place: str
    tags: Sequence[str]


def parse_scheme(name: str) -> Scheme | None:
    """Return the scheme called `name`, case-insensitively (IOBES is BIOES); None for `none`. Raises `ConfigError`."""
    key = name.upper()
    if key == NO_SCHEME.upper():
        return None
    known = get_args(Scheme)
    key = {"IOBES": "BIOES", "BIO": "IOB2", "BILUO": "BILOU"}.get(key, key)
    if key not in known:
        raise ConfigError(
            f"there is no tag scheme {name!r}.{did_you_mean(key, known)} Known: {', '.join(known)}, {NO_SCHEME}."
        )
    return cast(Scheme, key)


def detect_scheme(training: Sequence[TaggedText]) -> tuple[Scheme | None, str]:
    """Return (scheme, reason) for training tags; the scheme is None if no tag has a prefix.

    The scheme must match every text; IOB2 takes precedence. Raises `DataError` with the place for prefixes of different
    schemes, and for tags that violate every scheme with their prefixes.
    """
    places: dict[str, str] = {}
    for one in training:
        for tag in one.tags:
            places.setdefault(tag, one.place)
    marked = {tag: place for tag, place in places.items() if tag != "O"}
    bare = bool(marked) and all(tag in _LETTERS for tag in marked) and "B" in marked
    if not bare and not any(_is_prefixed(tag) for tag in marked):
        return None, "tags without prefixes such as B- and I-; scored token by token"
    for tag, place in marked.items():
        if not bare and not _is_prefixed(tag):
            raise DataError(
                f"{place}: the tag {tag!r} has no prefix of a tag scheme ({', '.join(sorted(_LETTERS))}, O), but other "
                f"tags have. Correct it, or use --scheme {NO_SCHEME} to score token by token."
            )
    prefixes = {_split(tag)[0] for tag in marked}
    candidates = [scheme for scheme, allowed in _PREFIXES.items() if prefixes <= allowed]
    if not candidates:
        raise DataError(_mixed(marked, prefixes))
    violations: dict[Scheme, tuple[TaggedText, int]] = {}
    for scheme in candidates:
        violation = next(((one, at) for one in training if (at := first_violation(one.tags, scheme)) is not None), None)
        if violation is None:
            return scheme, _reason(scheme, prefixes)
        violations[scheme] = violation
    one, at = violations[candidates[0]]
    raise DataError(
        f"{one.place}: the tag {one.tags[at]!r} of token {at + 1} does not follow {candidates[0]}"
        f"{''.join(f', nor do all tags follow {scheme}' for scheme in candidates[1:])}; the file mixes schemes or has "
        f"errors. Correct the tags, or use --scheme {candidates[0]} to ignore tags that violate it."
    )


def check_prefixes(tagged: Sequence[TaggedText], scheme: Scheme) -> None:
    """Raise `DataError` with the place for a tag whose prefix is not one of `scheme`."""
    for one in tagged:
        for tag in one.tags:
            if tag != "O" and (_split(tag)[0] not in _PREFIXES[scheme] or not (_is_prefixed(tag) or len(tag) == 1)):
                raise DataError(
                    f"{one.place}: the tag {tag!r} is none of {scheme} (prefixes: "
                    f"{', '.join(sorted(_PREFIXES[scheme]))}, O). Correct it, or name another scheme with --scheme."
                )


def scheme_notes(name: str, tagged: Sequence[TaggedText], scheme: Scheme) -> list[str]:
    """Return a note on tagged tokens of a file that belong to no entity.

    Raises `DataError` if they are more than 90 % of the tagged tokens, because the file then has another scheme.
    """
    marked = outside = 0
    first: TaggedText | None = None
    for one in tagged:
        covered = sum(end - start for _, start, end in entities(one.tags, scheme))
        here = sum(tag != "O" for tag in one.tags)
        marked, outside = marked + here, outside + here - covered
        if covered < here and first is None:
            first = one
    if first is None:
        return [] if marked or not tagged else [f"{name}: every tag is O; there is no entity to find"]
    summary = f"{outside:,} of {marked:,} tagged tokens belong to no entity under {scheme} (first: {first.place})"
    if outside * 10 > marked * 9:
        raise DataError(
            f"{name}: {summary}. Use the scheme of the training file in all files, or name it with --scheme."
        )
    return [f"{name}: {summary}"]


def entities(tags: Sequence[str], scheme: Scheme = "IOB2") -> list[Entity]:
    """Return the entities marked by `tags`, in order; tags that violate the scheme are ignored.

    The result equals seqeval's strict mode; for BMES, that of BIOES with I for M. Unlike here, seqeval does not read an
    IOE1 entity of one token E- after O.

    B-PER I-PER I-LOC O I-LOC in IOB2 -> PER 0–2.
    """
    split = [_split(tag) for tag in tags]
    kinds = {kind: chr(0x100 + number) for number, kind in enumerate(dict.fromkeys(kind for _, kind in split))}
    text = "".join((prefix if prefix in _LETTERS else "O") + kinds[kind] for prefix, kind in split)
    return [
        (split[match.start() // 2][1], match.start() // 2, match.end() // 2)
        for match in re.finditer(_ENTITY[scheme], text)
    ]


def first_violation(tags: Sequence[str], scheme: Scheme) -> int | None:
    """Return the index of the first tag that violates `scheme`, or None."""
    if scheme == "IOE1":  # `entities` does not find every entity of IOE1
        split = [*map(_split, tags), ("O", "")]
        return next(
            (at for at, (prefix, kind) in enumerate(split[:-1]) if prefix == "E" and split[at + 1][1:] != (kind,)),
            None,
        )
    covered = {at for _, start, end in entities(tags, scheme) for at in range(start, end)}
    return next((at for at, tag in enumerate(tags) if tag != "O" and at not in covered), None)


def _split(tag: str) -> tuple[str, str]:
    """'B-PER' -> ('B', 'PER'); 'B' -> ('B', '_'); 'O' -> ('O', '')."""
    prefix, _, kind = tag.partition("-")
    return ("O", "") if prefix == "O" else (prefix, kind or "_")


def _is_prefixed(tag: str) -> bool:
    return len(tag) > 2 and tag[0] in _LETTERS and tag[1] == "-"


def _reason(scheme: Scheme, prefixes: set[str]) -> str:
    used = ", ".join(f"{prefix}-" for prefix in sorted(prefixes))
    if prefixes == {"I"}:
        return "the only prefix is I-, so an entity is a run of tags of one kind"
    if prefixes == {"B"}:
        return "the only prefix is B-, which fits several schemes; name another with --scheme"
    return f"the prefixes are {used}, and all tags match the scheme; name another with --scheme"


def _mixed(marked: dict[str, str], prefixes: set[str]) -> str:
    """Return the message for prefixes of several schemes, with the first tag that no scheme allows."""
    tags = list(marked.items())
    for number, (tag, place) in enumerate(tags):
        used = {_split(one)[0] for one, _ in tags[: number + 1]}
        if not any(used <= allowed for allowed in _PREFIXES.values()):
            return (
                f"{place}: the tag {tag!r} and the prefixes {', '.join(sorted(prefixes - {_split(tag)[0]}))} of other "
                f"tags belong to no common tag scheme ({', '.join(_PREFIXES)}). Use one scheme throughout."
            )
    raise AssertionError("some scheme has all prefixes")
