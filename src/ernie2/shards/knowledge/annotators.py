"""Annotators: mark words, phrases and entities of a text as character spans.

An annotator is anything with `spans(text, paragraphs)` that yields (kind, (n, 2) starts and ends in characters). Four
are here: a gazetteer, Chinese words and names by rjieba, a spaCy pipeline, and spans given with the input. Phrases
mined from the corpus itself need counts over all of it and are in `phrases.py`.
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
"""rjieba's tags of persons (known ones are nrfg, foreign ones nrt), places, organisations and other names."""


class Annotator(Protocol):
    """Marks knowledge in texts."""

    def spans(self, text: str, paragraphs: Sequence[tuple[int, int]]) -> Iterable[tuple[str, Spans]]:
        """Yields (kind, (n, 2) spans) in characters of `text`; `paragraphs` are the (start, end) of what may be read.

        Kinds are those of `shards.SPAN_KINDS`. Spans may come in any order and may overlap.
        """
        ...


class Gazetteer:
    """Finds the entries of a list in a text; of those that overlap, the leftmost and then the longest.

    An entry with a capital letter is found only as it is written; one without is found in any case. A match must not
    begin or end inside a word, except in scripts without spaces (Chinese, Japanese, Thai, …). White space of any kind,
    line breaks inside a paragraph too, and accents in characters of their own make no difference (`matching_text`).
    """

    def __init__(self, entries: Mapping[str, str]) -> None:
        """`entries`: text -> kind."""
        compared: dict[str, str] = {}
        for entry, kind in entries.items():
            compared.setdefault(matching_text(entry).text, kind)
        compared.pop("", None)
        exact = {entry: kind for entry, kind in compared.items() if entry != _folded(entry)}
        folded = {entry: kind for entry, kind in compared.items() if entry not in exact}
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
        """As `Annotator.spans`; the whole of `text` is searched."""
        if not self._searches:
            return
        seen = matching_text(text)
        kinds, runs = [], []
        for automaton, kind_of, fold in self._searches:
            # overlapping matches too: which of them count, word boundaries decide
            matches = automaton.find_matches_as_indexes(_folded(seen.text) if fold else seen.text, overlapping=True)
            table = np.fromiter(chain.from_iterable(matches), dtype=np.int64, count=3 * len(matches)).reshape(-1, 3)
            kinds.append(kind_of[table[:, 0]])
            runs.append(table[:, 1:])
        found, spans = np.concatenate(kinds), np.concatenate(runs)
        whole = ~cuts_word(seen.text, spans)
        found, spans = found[whole], spans[whole]
        kept = leftmost_longest(spans)
        for number, kind in enumerate(GAZETTEER_KINDS):
            yield kind, seen.original(spans[kept[found[kept] == number]])


class ChineseWords:
    """Chinese words of two characters and more, and names of people, places, organisations and others, by rjieba.

    rjieba also joins characters into words that its dictionary does not list. Few of these are words to the segmenter
    of ERNIE 1.0 (docs/masking.md has the figures), so they count only where they are tagged as a name.
    """

    def spans(self, text: str, paragraphs: Sequence[tuple[int, int]]) -> Iterator[tuple[str, Spans]]:
        """As `Annotator.spans`: kinds word and entity. A name of one character is an entity and no word."""
        from rjieba import has_word, tag

        found: dict[str, list[Spans]] = {"word": [], "entity": []}
        for start, end in paragraphs:
            # starts and ends in turn: hundreds of thousands of pairs would keep the garbage collector busy
            words: list[int] = []
            entities: list[int] = []
            seen = matching_text(text[start:end])
            at = 0
            for word, kind in tag(seen.text):
                after = at + len(word)
                named = kind in CHINESE_ENTITIES
                if named:
                    entities += (at, after)
                if after - at > 1 and word.isalnum() and (named or has_word(word) or word.isascii()):
                    words += (at, after)
                at = after
            for kind, flat in (("word", words), ("entity", entities)):
                runs = np.array(flat, dtype=np.int64).reshape(-1, 2)
                if not seen.text.isascii():  # rjieba cuts words at accents and takes letters beyond ASCII one by one
                    runs = runs[~cuts_word(seen.text, runs)]
                    if kind == "word" and len(more := non_ascii_words(seen.text)):
                        runs = np.concatenate([runs, more])
                found[kind].append(start + seen.original(runs))
        for kind, parts in found.items():
            yield kind, np.concatenate([as_spans([]), *parts])


class SpacySpans:
    """Named entities, and noun chunks of two words and more as phrases, of an installed spaCy pipeline.

    Slow beside the others (some 40 kB/s). Entity types that are numbers or times are left out.
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
                f"knowledge.spacy: no spaCy pipeline {pipeline!r} is installed. python -m spacy download {pipeline}"
            ) from error
        self._chunks = "parser" in self._pipeline.pipe_names

    def spans(self, text: str, paragraphs: Sequence[tuple[int, int]]) -> Iterator[tuple[str, Spans]]:
        """As `Annotator.spans`: kinds entity and phrase."""
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
    """The annotators of a recipe for texts of `language`.

    Raises `ConfigError` or `DataError` for a gazetteer or pipeline that cannot be used.
    """
    found: list[Annotator] = []
    if settings.gazetteer is not None:
        found.append(_gazetteer(settings.gazetteer, _lines(settings.gazetteer)))
    if settings.chinese and language.replace("_", "-").split("-")[0].lower() == "zh":
        found.append(ChineseWords())
    if settings.spacy is not None:
        found.append(_spacy(settings.spacy))
    return found


# a worker builds each once, however many units of work it goes through
@lru_cache(maxsize=1)
def _gazetteer(path: str, lines: tuple[bytes, ...]) -> Gazetteer:
    return Gazetteer(read_gazetteer(path, lines))


_spacy = lru_cache(maxsize=1)(SpacySpans)


def _lines(path: str) -> tuple[bytes, ...]:
    if Path(path).is_dir():
        raise DataError(f"knowledge.gazetteer: {path} is a directory; name a text file with one entity a line.")
    return tuple(read_lines(path))


def read_gazetteer(path: str, lines: tuple[bytes, ...] | None = None) -> dict[str, str]:
    """Entries of a gazetteer file: text -> kind ("entity" unless the line says `entity<TAB>kind`).

    `lines` are given where the file has been read already. Blank lines are skipped; of an entry given twice the first
    line counts. Raises `DataError` with the line at fault.
    """
    entries: dict[str, str] = {}
    for number, line in enumerate(_lines(path) if lines is None else lines, start=1):
        entry, _, kind = decode_line(line, f"{path}, line {number}").partition("\t")
        entry, kind = entry.strip(), kind.strip() or "entity"
        if not entry:
            continue
        if kind not in GAZETTEER_KINDS:
            raise DataError(
                f"{path}, line {number}: {kind!r} is not a kind of entry.{did_you_mean(kind, GAZETTEER_KINDS)} "
                f"Write `entity<TAB>kind` with kind {' or '.join(GAZETTEER_KINDS)}, or the entity alone."
            )
        entries.setdefault(entry, kind)
    if not entries:
        raise DataError(
            f"{path}: the gazetteer holds no entry; write one entity a line, or leave knowledge.gazetteer out."
        )
    return entries


def _folded(text: str) -> str:
    """`text` in lower case, of the same length: a letter that grows when lower-cased ("İ") stays as it is."""
    lower = text.lower()
    return lower if len(lower) == len(text) else "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
