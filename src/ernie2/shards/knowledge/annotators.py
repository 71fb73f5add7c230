"""Annotators: mark words, phrases and entities of a text as character spans.

An annotator has a method `spans(text, paragraphs)` that yields (kind, (n, 2) starts and ends in characters). There are
three: a gazetteer, Chinese words and names by rjieba, and a spaCy pipeline. Phrases mined from the corpus itself need
counts over all of it and are in `phrases.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Protocol

import ahocorasick_rs
import numpy as np

from ernie2.config.data_settings import KnowledgeSettings
from ernie2.errors import ConfigError, DataError, did_you_mean, install_advice
from ernie2.shards.knowledge.characters import cuts_word, non_ascii_words
from ernie2.shards.knowledge.matching_text import matching_text
from ernie2.shards.knowledge.token_runs import Spans, as_spans, leftmost_longest
from ernie2.storage.files import decode_line, read_lines

GAZETTEER_KINDS = ("entity", "phrase")
CHINESE_ENTITIES = frozenset({"nr", "nrfg", "nrt", "ns", "nt", "nz"})
"""rjieba's tags of persons (nrfg: known, nrt: foreign), places, organisations and other names."""


class Annotator(Protocol):
    """Marks knowledge spans in texts."""

    def spans(self, text: str, paragraphs: Sequence[tuple[int, int]]) -> Iterable[tuple[str, Spans]]:
        """Yield (kind, (n, 2) spans) in characters of `text`; `paragraphs`: (start, end) of the parts to annotate.

        Kinds are those of `store.SPAN_KINDS`. Spans may be unsorted and may overlap.
        """
        ...


class Gazetteer:
    """Matches the entries of a list in a text; of overlapping matches, the leftmost and then the longest.

    An entry with a capital letter is matched case-sensitively, others in any case. A match must not begin or end inside
    a word, except in scripts without spaces (Chinese, Japanese, Thai, …). All kinds of white space are equal, including
    line breaks inside a paragraph; so are composed and combining accents (`matching_text`).
    """

    def __init__(self, entries: Mapping[str, str]) -> None:
        """`entries`: text -> kind."""
        normalised: dict[str, str] = {}
        for entry, kind in entries.items():
            normalised.setdefault(matching_text(entry).text, kind)
        normalised.pop("", None)
        exact = {entry: kind for entry, kind in normalised.items() if entry != _fold_case(entry)}
        folded = {entry: kind for entry, kind in normalised.items() if entry not in exact}
        self._searches = [
            (
                ahocorasick_rs.AhoCorasick(list(patterns)),
                np.array(list(map(GAZETTEER_KINDS.index, patterns.values()))),
                fold,
            )
            for patterns, fold in ((exact, False), (folded, True))
            if patterns
        ]

    def spans(self, text: str, paragraphs: Sequence[tuple[int, int]]) -> Iterator[tuple[str, Spans]]:
        """As `Annotator.spans`; searches all of `text`."""
        if not self._searches:
            return
        normal = matching_text(text)
        kind_parts, span_parts = [], []
        for automaton, kind_of, fold in self._searches:
            # include overlapping matches, as word boundaries exclude some
            matches = automaton.find_matches_as_indexes(
                _fold_case(normal.text) if fold else normal.text, overlapping=True
            )
            table = np.fromiter(chain.from_iterable(matches), dtype=np.int64, count=3 * len(matches)).reshape(-1, 3)
            kind_parts.append(kind_of[table[:, 0]])
            span_parts.append(table[:, 1:])
        kinds, spans = np.concatenate(kind_parts), np.concatenate(span_parts)
        at_boundaries = ~cuts_word(normal.text, spans)
        kinds, spans = kinds[at_boundaries], spans[at_boundaries]
        selected = leftmost_longest(spans)
        for number, kind in enumerate(GAZETTEER_KINDS):
            yield kind, normal.original(spans[selected[kinds[selected] == number]])


class ChineseWords:
    """Marks Chinese words of two or more characters, and names of people, places, organisations and others, by rjieba.

    rjieba also joins characters into words that its dictionary does not list. Few of these are words to the segmenter
    of ERNIE 1.0 (see docs/masking.md for figures), so they count only if tagged as a name.
    """

    def spans(self, text: str, paragraphs: Sequence[tuple[int, int]]) -> Iterator[tuple[str, Spans]]:
        """As `Annotator.spans`, kinds word and entity; a name of one character is an entity but no word."""
        from rjieba import has_word, tag

        by_kind: dict[str, list[Spans]] = {"word": [], "entity": []}
        for start, end in paragraphs:
            # flat lists of starts and ends: hundreds of thousands of tuples would slow garbage collection
            words: list[int] = []
            entities: list[int] = []
            normal = matching_text(text[start:end])
            at = 0
            for word, kind in tag(normal.text):
                after = at + len(word)
                is_name = kind in CHINESE_ENTITIES
                if is_name:
                    entities += (at, after)
                if after - at > 1 and word.isalnum() and (is_name or has_word(word) or word.isascii()):
                    words += (at, after)
                at = after
            for kind, flat in (("word", words), ("entity", entities)):
                runs = np.array(flat, dtype=np.int64).reshape(-1, 2)
                if not normal.text.isascii():  # rjieba cuts words at accents and splits letters beyond ASCII
                    runs = runs[~cuts_word(normal.text, runs)]
                    if kind == "word" and len(more := non_ascii_words(normal.text)):
                        runs = np.concatenate([runs, more])
                by_kind[kind].append(start + normal.original(runs))
        for kind, parts in by_kind.items():
            yield kind, np.concatenate([as_spans([]), *parts])


class SpacySpans:
    """Marks entities, and noun chunks of two or more words as phrases, with an installed spaCy pipeline.

    Slow (about 40 kB/s). Entity types that are numbers or times are left out.
    """

    NUMBERS = frozenset({"CARDINAL", "ORDINAL", "DATE", "TIME", "PERCENT", "MONEY", "QUANTITY"})

    def __init__(self, pipeline: str) -> None:
        try:
            import spacy
        except ImportError as error:
            raise ConfigError(
                f"knowledge.spacy={pipeline!r} needs spaCy, which is not installed: {install_advice('spacy')}."
            ) from error
        try:
            self._pipeline = spacy.load(pipeline)
        except OSError as error:
            raise ConfigError(
                f"knowledge.spacy: no spaCy pipeline {pipeline!r}. Run `python -m spacy download {pipeline}`."
            ) from error
        self._chunks = "parser" in self._pipeline.pipe_names

    def spans(self, text: str, paragraphs: Sequence[tuple[int, int]]) -> Iterator[tuple[str, Spans]]:
        """As `Annotator.spans`, kinds entity and phrase."""
        entities, phrases = [], []
        documents = self._pipeline.pipe(text[start:end] for start, end in paragraphs)
        for (base, _), document in zip(paragraphs, documents, strict=True):
            entities += [
                (base + entity.start_char, base + entity.end_char)
                for entity in document.ents
                if entity.label_ not in self.NUMBERS
            ]
            for chunk in document.noun_chunks if self._chunks else ():
                inner = chunk[1:] if chunk[0].is_stop else chunk
                if len(inner) > 1:
                    phrases.append((base + inner.start_char, base + inner.end_char))
        yield "entity", as_spans(entities)
        yield "phrase", as_spans(phrases)


def build_annotators(settings: KnowledgeSettings, language: str) -> list[Annotator]:
    """Return the annotators of a recipe for texts of `language`.

    Raises `ConfigError` or `DataError` for an unusable gazetteer or pipeline.
    """
    annotators: list[Annotator] = []
    if settings.gazetteer is not None:
        annotators.append(_gazetteer(settings.gazetteer, _read_gazetteer_lines(settings.gazetteer)))
    if settings.chinese and language.replace("_", "-").split("-")[0].lower() == "zh":
        annotators.append(ChineseWords())
    if settings.spacy is not None:
        annotators.append(_spacy(settings.spacy))
    return annotators


# cached: a worker builds each once for all units of work
@lru_cache(maxsize=1)
def _gazetteer(path: str, lines: tuple[bytes, ...]) -> Gazetteer:
    return Gazetteer(read_gazetteer(path, lines))


_spacy = lru_cache(maxsize=1)(SpacySpans)


def _read_gazetteer_lines(path: str) -> tuple[bytes, ...]:
    if Path(path).is_dir():
        raise DataError(f"knowledge.gazetteer: {path} is a directory; name a text file with one entity per line.")
    return tuple(read_lines(path))


def read_gazetteer(path: str, lines: tuple[bytes, ...] | None = None) -> dict[str, str]:
    """Read a gazetteer file: text -> kind ("entity" unless the line is `entity<TAB>kind`).

    `lines`: its lines, if read already. Blank lines are skipped; the first of duplicate entries counts. Raises
    `DataError` naming the line.
    """
    entries: dict[str, str] = {}
    for number, line in enumerate(_read_gazetteer_lines(path) if lines is None else lines, start=1):
        entry, _, kind = decode_line(line, f"{path}, line {number}").partition("\t")
        entry, kind = entry.strip(), kind.strip() or "entity"
        if not entry:
            continue
        if kind not in GAZETTEER_KINDS:
            raise DataError(
                f"{path}, line {number}: {kind!r} is not a kind of entry.{did_you_mean(kind, GAZETTEER_KINDS)} "
                f"Write `entity<TAB>kind` with kind {' or '.join(GAZETTEER_KINDS)}, or only the entity."
            )
        entries.setdefault(entry, kind)
    if not entries:
        raise DataError(
            f"{path}: the gazetteer has no entries; write one entity per line, or remove knowledge.gazetteer."
        )
    return entries


def _fold_case(text: str) -> str:
    """Lower-case `text` without changing its length: a letter that would grow ("İ") stays as it is."""
    lower = text.lower()
    return lower if len(lower) == len(text) else "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
