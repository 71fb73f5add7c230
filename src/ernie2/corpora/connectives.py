"""Raw text → discourse pairs: two adjacent sentences of a paragraph, and the connective that opened the second.

The method is that of Discovery (Sileo et al., NAACL 2019), whose list of 174 labels is used for English; the Chinese
list is ours. A list has one connective per line. "_" stands for a space; a comma at the end, as in "thus,", is
required in the text. The label is the line without that comma. The following rules are ours; they prefer few false
pairs over many pairs:

* Only the opening of a sentence is examined; the longest connective of the list wins.
* An English connective must be followed by a comma, even if the list has none: "However hard he tried" does not count.
  The conjunctions "and" and "but" need no comma. "This" never counts, because it is the subject of its sentence. In a
  Chinese list a comma is required only where it is written. That list is in simplified characters; a connective in
  traditional ones counts under the same label.
* The connective and its comma are removed; the remaining sentence begins with a capital if the script has case.
* A `[no-conn]` pair is two adjacent sentences, the second of which opens with nothing like a connective. An opening
  that looks like one makes no pair at all if its comma is missing, if it is inside a quotation, if it is not a label
  ("In addition"), or if it is recognised only by a comma after the first few words ("As such, …").
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from heapq import heappush, heapreplace
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ernie2.config.data_settings import CorpusSettings
from ernie2.corpora.documents import FORMATS, Document, Drops, hash64, read_documents
from ernie2.corpora.sentences import sentence_bounds
from ernie2.errors import ConfigError, DataError, did_you_mean
from ernie2.storage.listing import bundled_data_folder, list_files
from ernie2.storage.table_writing import check_output, write_rows
from ernie2.storage.temporary import temporary_file

NO_CONNECTIVE = "[no-conn]"
"""Label of the pairs that no connective joins, as in Discovery."""
COLUMNS = ("sentence1", "sentence2", "label", "group")

_COMMAS = ",，"
_ENDS = ".!?。！？…"
_CLOSING = "\"'”’»」』）)]】》"
_OPENING_QUOTES = "\"'“‘«„「『《（([【"
_BALANCED = (("“", "”"), ("「", "」"), ("『", "』"), ("（", "）"), ("(", ")"), ("《", "》"))


@dataclass(frozen=True)
class ConnectiveRules:
    """Language-specific rules for recognising connectives."""

    alphabetic: bool
    """Words end at white space, sentences begin with a capital, and length is in words instead of characters."""
    no_comma: frozenset[str]
    """Labels that need no comma; if not `alphabetic`, those whose line has none."""
    lookalikes: tuple[str, ...]
    """Openings that begin like a connective but are not; the second sentence of a `[no-conn]` pair may have one."""
    unlisted: tuple[str, ...]
    """Connectives that are not labels; the second sentence of a `[no-conn]` pair may not open with one."""
    early_comma: re.Pattern[str]
    """An opening so short before its comma that it may be a connective."""
    min_length: int
    """Minimum words (characters) of a sentence of a pair."""
    max_length: int
    """Maximum words (characters) of a sentence of a pair."""


_ENGLISH = ConnectiveRules(
    alphabetic=True,
    no_comma=frozenset({"and", "but"}),
    lookalikes=("this", "but for", "and so on", "and/or"),
    unlisted=(
        *("above all", "after all", "after that", "apart from that", "as such", "at first", "at the same time"),
        *("despite this", "due to this", "even so", "for this reason", "in addition", "in any case", "in conclusion"),
        *("in general", "in spite of this", "of course", "on top of that", "that is", "that said", "to sum up"),
        *("to this end", "with that", "with this in mind"),
    ),
    early_comma=re.compile(r"(?:[^\s,]+\s+){0,2}[^\s,]+\s?,(?!\d)"),
    min_length=3,
    max_length=100,
)
_CHINESE_UNLISTED = "并 而 从而 以及 鉴于此 有鉴于此 对此 总的来看"
_CHINESE_LOOKALIKES = (
    "但愿 但凡 但丁 但以理 但书 所以然 同样的 同样是 相反的 为此的 由此处 由此产生的 首先要务 其次数 此前的 此后的 "
    "其后的 其后代 其后裔 其后人 其后期 其后面 其后方 后来的 后来者 后来人 后来居上 随后的 起初的 "
    "最终的 最终版 最终结果 最终回 最终幻想"
)
_TRADITIONAL = str.maketrans(
    "却尽虽话则为样这来结并况说仅与时间举个换总体综实际显诚随后终于别据遗运讶许顺较确当见从鉴对",
    "卻盡雖話則為樣這來結並況說僅與時間舉個換總體綜實際顯誠隨後終於別據遺運訝許順較確當見從鑒對",
)


@dataclass(frozen=True)
class Connectives:
    """The connectives of a language and the rules for recognising them; see `load_connectives`."""

    labels: tuple[str, ...]
    """All labels in the order of the list, `[no-conn]` first."""
    rules: ConnectiveRules
    _forms: dict[str, str] = field(repr=False)
    _pattern: re.Pattern[str] = field(repr=False)
    _unlisted: re.Pattern[str] = field(repr=False)

    def split_opening(self, sentence: str) -> tuple[str | None, str]:
        """Return (label, rest): the connective that opens `sentence`, and the sentence without it.

        (`[no-conn]`, sentence) if no connective opens it; (None, reason) if that is uncertain or the rest is unusable.

        >>> load_connectives("en").split_opening("In fact, it rained.")
        ('in_fact', 'It rained.')
        """
        match = self._match(sentence)
        if match is None:
            inner = sentence.lstrip(_OPENING_QUOTES)
            if len(inner) < len(sentence) and self._match(inner) is not None:
                return None, "connective inside a quotation"
            if self._unlisted.match(inner):
                return None, "connective that is no label"
            if self.rules.early_comma.match(inner):
                return None, "comma after its first words"
            return NO_CONNECTIVE, sentence
        label, end = match
        rest = sentence[end:].lstrip()
        comma = rest[:1] in _COMMAS if rest else False
        if not comma and label not in self.rules.no_comma:
            return None, "connective without its comma"
        rest = rest.lstrip(_COMMAS if self.rules.alphabetic else _COMMAS + "、:：").lstrip()
        if self._match(rest) is not None:
            return None, "two connectives"
        return label, rest[:1].upper() + rest[1:] if self.rules.alphabetic else rest

    def _match(self, text: str) -> tuple[str, int] | None:
        """Return (label, end) of the longest connective that opens `text`; None for no match or a lookalike."""
        match = self._pattern.match(text)
        if match is None:
            return None
        words = " ".join(match[0].lower().split())
        return None if words in self.rules.lookalikes else (self._forms[words], match.end())


class Pair(NamedTuple):
    """Two adjacent sentences, the connective between them, and the group of their document."""

    sentence1: str
    sentence2: str
    label: str
    group: str


@dataclass
class MiningResult:
    """Rows written per label, and rows left out by reason."""

    labels: Counter[str]
    drops: Drops


@cache
def load_connectives(language: str) -> Connectives:
    """Return the connectives of an ISO 639 code, ignoring a region. Raises `ConfigError` for a code without a list."""
    code = language.replace("_", "-").split("-")[0].lower()
    folder = bundled_data_folder() / "connectives"
    known = sorted(entry.name.removesuffix(".txt") for entry in folder.iterdir())
    if code not in known:
        raise ConfigError(
            f"no list of connectives for the language {language!r}.{did_you_mean(code, known)} "
            f"Known: {', '.join(known)}."
        )
    no_connective, *listed = (folder / f"{code}.txt").read_text(encoding="utf-8").split()
    labels = (no_connective, *(line.rstrip(_COMMAS) for line in listed))
    rules = _ENGLISH
    if code == "zh":
        rules = ConnectiveRules(
            alphabetic=False,
            no_comma=frozenset(line for line in listed if line[-1] not in _COMMAS),
            lookalikes=_with_traditional(_CHINESE_LOOKALIKES),
            unlisted=_with_traditional(_CHINESE_UNLISTED),
            early_comma=re.compile(r"[^，,]{1,4}，"),
            min_length=5,
            max_length=200,
        )
    forms = {label.replace("_", " "): label for label in labels[1:]}
    if not rules.alphabetic:
        forms |= {form.translate(_TRADITIONAL): label for form, label in forms.items()}
    return Connectives(
        labels, rules, forms, _openings({*forms, *rules.lookalikes}, rules), _openings(rules.unlisted, rules)
    )


def _with_traditional(words: str) -> tuple[str, ...]:
    return tuple(f"{words} {words.translate(_TRADITIONAL)}".split())


def _openings(words: Iterable[str], rules: ConnectiveRules) -> re.Pattern[str]:
    """Return a pattern that matches the longest of `words` at the beginning of a text."""
    alternatives = "|".join(re.escape(word).replace(r"\ ", r"\s+") for word in sorted(words, key=len, reverse=True))
    end = r"(?![\w'’-])" if rules.alphabetic else ""
    return re.compile(f"(?:{alternatives}){end}", re.IGNORECASE)


def discourse_pairs(document: Document, language: str, drops: Drops) -> Iterator[Pair]:
    """Yield the pairs of `document` in order; `drops` counts adjacent sentences that make no pair."""
    connectives = load_connectives(language)
    for start, end in document.paragraphs:
        paragraph = document.text[start:end]
        sentences = [" ".join(paragraph[first:last].split()) for first, last in sentence_bounds(paragraph, language)]
        reasons = [_reject_reason(sentence, connectives.rules) for sentence in sentences]
        for index in range(1, len(sentences)):
            reason = reasons[index - 1] or reasons[index]
            label, rest = connectives.split_opening(sentences[index]) if reason is None else (None, reason)
            if label not in (None, NO_CONNECTIVE):
                reason = _reject_reason(rest, connectives.rules, opens=False)
                label, rest = (label, rest) if reason is None else (None, reason)
            if label is None:
                drops.add(rest)
            else:
                yield Pair(sentences[index - 1], rest, label, document.group)


def mine_discourse(
    corpus: CorpusSettings,
    out: Path,
    max_per_label: int,
    on_progress: Callable[[int, int, int], None] = lambda documents, characters, pairs: None,
) -> MiningResult:
    """Write the discourse pairs of `corpus` to the table `out`, columns `COLUMNS`, in the order of the text.

    A label with more than `max_per_label` pairs keeps those with the smallest hashes: a sample of the entire text that
    does not depend on its order. A repeated pair is written once. Candidates are in a temporary file beside `out`;
    memory holds a few numbers per selected pair. `on_progress` is called after every document with the numbers of
    documents, characters and candidates so far. Raises `ConfigError`, `StorageError`, and `DataError`, also if the text
    has no connective.
    """
    load_connectives(corpus.language)
    if max_per_label < 1:
        raise ConfigError(f"max_per_label is {max_per_label}; set it to 1 or more.")
    check_output(out, list_files(corpus.paths, FORMATS))
    drops = Drops()
    selected = _SmallestHashes(max_per_label, drops)
    documents = characters = 0
    with temporary_file(out) as file:
        for document in read_documents(corpus, drops):
            for pair in discourse_pairs(document, corpus.language, drops):
                selected.add(pair, file)
            documents, characters = documents + 1, characters + len(document.text)
            on_progress(documents, characters, selected.offered)
        if not set(selected.heaps) - {NO_CONNECTIVE}:
            raise DataError(
                f"{', '.join(corpus.paths)}: no sentence of {documents:,} documents opens with a connective of the "
                f"language {corpus.language!r} (left out: {str(drops) or 'nothing'}). Check the language, and that the "
                "text consists of sentences."
            )
        write_rows(out, COLUMNS, selected.rows(file))
    return MiningResult(Counter({label: len(heap) for label, heap in selected.heaps.items()}), drops)


class _SmallestHashes:
    """The pairs of smallest hash per label: one heap per label of (−hash, offset in a file of candidates)."""

    def __init__(self, max_per_label: int, drops: Drops) -> None:
        self.max_per_label, self.drops, self.offered = max_per_label, drops, 0
        self.heaps: dict[str, list[tuple[int, int]]] = {}
        self._hashes: dict[str, set[int]] = {}
        self._end = 0

    def add(self, pair: Pair, file: BinaryIO) -> None:
        """Add `pair` unless it is a repetition or its hash is above those of `max_per_label` pairs.

        The largest hash of a full heap only falls, so a pair that was rejected or removed is rejected again. No pair is
        selected twice, although only the hashes of selected pairs are stored.
        """
        self.offered += 1
        number = hash64(f"{pair.sentence1}\x1f{pair.sentence2}")
        heap, hashes = self.heaps.setdefault(pair.label, []), self._hashes.setdefault(pair.label, set())
        if number in hashes:
            self.drops.add("repeated pair")
            return
        if len(heap) == self.max_per_label:
            self.drops.add(f"pairs over the cap of {self.max_per_label:,} per label")
            if number > -heap[0][0]:
                return
            hashes.discard(-heapreplace(heap, (-number, self._end))[0])
        else:
            heappush(heap, (-number, self._end))
        hashes.add(number)
        line = json.dumps(pair).encode() + b"\n"
        file.write(line)
        self._end += len(line)

    def rows(self, file: BinaryIO) -> Iterator[Sequence[str]]:
        """Yield the selected pairs as rows in the order they came."""
        for offset in sorted(offset for heap in self.heaps.values() for _, offset in heap):
            file.seek(offset)
            yield json.loads(file.readline())


def _cuts_quotation(sentence: str) -> bool:
    """Return whether a quotation in single marks extends beyond `sentence`; apostrophes do not count."""
    if sentence[0] in "'‘" and not re.search(r"[.,!?…\w]['’](?!\w)", sentence):
        return True
    return sentence[-1] in "'’" and not re.search(r"(?<!\w)['‘]\w", sentence)


def _reject_reason(sentence: str, rules: ConnectiveRules, *, opens: bool = True) -> str | None:
    """Return why `sentence` cannot be part of a pair, or None; `opens`: it is complete, as it was in the text."""
    length = sentence.count(" ") + 1 if rules.alphabetic else len(sentence)
    if length < rules.min_length:
        return "short sentence"
    if length > rules.max_length:
        return "long sentence"
    if rules.alphabetic and opens and sentence[0].islower():
        return "sentence in lower case"
    if sentence.rstrip(_CLOSING)[-1:] not in tuple(_ENDS):
        return "sentence without its end"
    quoted = rules.alphabetic and _cuts_quotation(sentence)
    cut = (
        quoted
        or sentence.count('"') % 2
        or any(sentence.count(left) != sentence.count(right) for left, right in _BALANCED)
    )
    return "quotation or bracket cut apart" if cut else None
