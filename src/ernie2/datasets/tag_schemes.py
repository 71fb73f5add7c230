"""Tag schemes: how the prefixes of tags (B-PER, I-PER, O) mark entities, and which scheme a training file follows.

| scheme | one token | several tokens | note |
|---|---|---|---|
| IOB1 | I | I I | B only where an entity touches the one before it, of the same kind |
| IOB2 | B | B I | |
| IOE1 | I | I I | E only where an entity touches the one after it, of the same kind |
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
"""What `--scheme` says of tags that mark no entities, such as parts of speech."""

_ENTITY: dict[Scheme, str] = {
    "IOB2": r"B(.)(?:I\1)*",
    "IOB1": r"I(.)(?:I\1)*|(?<=[IB](.))B\2(?:(?:I\2)+|(?!B(?!\2)))",
    "IOE2": r"I(.)(?:I\1)*E\1|E(.)",
    "IOE1": r"I(.)(?:I\1)*(?:E\1(?=[IE]\1)|(?![IE]\1))|(?<=E(.))E\2(?=[IE]\2)",
    "BIOES": r"S(.)|B(.)(?:I\2)*E\2",
    "BILOU": r"U(.)|B(.)(?:I\2)*L\2",
    "BMES": r"S(.)|B(.)(?:M\2)*E\2",
}
"""An entity of every scheme as a pattern, in the order in which schemes are tried. Of a tag it sees two characters: the
prefix, and one that stands for the kind."""
_PREFIXES = {scheme: frozenset(re.findall("[A-Z]", pattern)) for scheme, pattern in _ENTITY.items()}
_LETTERS = frozenset().union(*_PREFIXES.values())


@dataclass(frozen=True, slots=True)
class TaggedText:
    """The tags of one text and its place in a file, for messages."""

    place: str
    tags: Sequence[str]


def parse_scheme(name: str) -> Scheme | None:
    """Return the scheme of this name in any case (IOBES is BIOES), or None for `none`. Raises `ConfigError`."""
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
    """Return (scheme, reason) of training tags; None where no tag but O has a prefix.

    The scheme must hold for every text. Tags that fit IOB2 are IOB2, whatever else they fit. Raises `DataError`, naming
    the place, for prefixes that belong to no one scheme, and for tags that follow none of those their prefixes allow.
    """
    places: dict[str, str] = {}
    for one in training:
        for tag in one.tags:
            places.setdefault(tag, one.place)
    marked = {tag: place for tag, place in places.items() if tag != "O"}
    bare = bool(marked) and all(tag in _LETTERS for tag in marked) and "B" in marked
    if not bare and not any(_is_prefixed(tag) for tag in marked):
        return None, "tags without B-, I- and the like; scored token by token"
    for tag, place in marked.items():
        if not bare and not _is_prefixed(tag):
            raise DataError(
                f"{place}: the tag {tag!r} has no prefix of a tag scheme ({', '.join(sorted(_LETTERS))}, O), but other "
                f"tags have. Mend it, or give --scheme {NO_SCHEME} to score token by token."
            )
    prefixes = {_split(tag)[0] for tag in marked}
    candidates = [scheme for scheme, allowed in _PREFIXES.items() if prefixes <= allowed]
    if not candidates:
        raise DataError(_mixed(marked, prefixes))
    broken: dict[Scheme, tuple[TaggedText, int]] = {}
    for scheme in candidates:
        found = next(((one, at) for one in training if (at := first_violation(one.tags, scheme)) is not None), None)
        if found is None:
            return scheme, _reason(scheme, prefixes)
        broken[scheme] = found
    one, at = broken[candidates[0]]
    raise DataError(
        f"{one.place}: the tag {one.tags[at]!r} of token {at + 1} does not follow {candidates[0]}"
        f"{''.join(f', nor do all tags follow {scheme}' for scheme in candidates[1:])}; the file mixes schemes or has "
        f"faults. Mend the tags, or name the scheme (--scheme {candidates[0]}) to read them by its strict rule."
    )


def check_prefixes(tagged: Sequence[TaggedText], scheme: Scheme) -> None:
    """Raise `DataError`, naming the place, for a tag whose prefix `scheme` does not have."""
    for one in tagged:
        for tag in one.tags:
            if tag != "O" and (_split(tag)[0] not in _PREFIXES[scheme] or not (_is_prefixed(tag) or len(tag) == 1)):
                raise DataError(
                    f"{one.place}: the tag {tag!r} is none of {scheme} (prefixes: "
                    f"{', '.join(sorted(_PREFIXES[scheme]))}, O). Mend it, or name another scheme with --scheme."
                )


def scheme_notes(name: str, tagged: Sequence[TaggedText], scheme: Scheme) -> list[str]:
    """Return what to report of the tags of a file: how many tokens are marked and belong to no entity.

    Raises `DataError` where these are more than nine tenths of the marked ones: the file then follows another scheme.
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
    told = f"{outside:,} of {marked:,} tagged tokens belong to no entity under {scheme} (first: {first.place})"
    if outside * 10 > marked * 9:
        raise DataError(f"{name}: {told}. Give every file the scheme of the training file, or name it with --scheme.")
    return [f"{name}: {told}"]


def entities(tags: Sequence[str], scheme: Scheme = "IOB2") -> list[Entity]:
    """Return the entities that `tags` mark, in order; what does not follow the scheme marks none.

    The result is that of seqeval's strict mode; of BMES, that of BIOES with I for M. seqeval reads no IOE1 entity of
    one token that begins with E- after O.

    B-PER I-PER I-LOC O I-LOC in IOB2 -> PER 0–2.
    """
    split = [_split(tag) for tag in tags]
    kinds = {kind: chr(0x100 + number) for number, kind in enumerate(dict.fromkeys(kind for _, kind in split))}
    text = "".join((prefix if prefix in _LETTERS else "O") + kinds[kind] for prefix, kind in split)
    return [
        (split[found.start() // 2][1], found.start() // 2, found.end() // 2)
        for found in re.finditer(_ENTITY[scheme], text)
    ]


def first_violation(tags: Sequence[str], scheme: Scheme) -> int | None:
    """Return the index of the first tag that does not follow `scheme`, or None."""
    if scheme == "IOE1":  # not by `entities`, which does not find every entity of IOE1
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
        return "the only prefix is I-, so an entity is a run of one kind"
    if prefixes == {"B"}:
        return "the only prefix is B-, which does not tell schemes apart; name another with --scheme"
    return f"the prefixes are {used}, and all tags follow it; name another with --scheme"


def _mixed(marked: dict[str, str], prefixes: set[str]) -> str:
    """The message for prefixes of several schemes: the first two tags that no scheme has together."""
    tags = list(marked.items())
    for number, (tag, place) in enumerate(tags):
        seen = {_split(one)[0] for one, _ in tags[: number + 1]}
        if not any(seen <= allowed for allowed in _PREFIXES.values()):
            return (
                f"{place}: the tag {tag!r} stands with the prefixes {', '.join(sorted(prefixes - {_split(tag)[0]}))} "
                f"of other tags, and no tag scheme has all of them ({', '.join(_PREFIXES)}). Use one scheme throughout."
            )
    raise AssertionError("some scheme has all prefixes")
