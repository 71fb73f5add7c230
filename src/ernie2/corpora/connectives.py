"""Raw text → discourse pairs: two adjacent sentences of a paragraph, and the connective that opened the second.

The method is that of Discovery (Sileo et al., NAACL 2019), whose list of 174 labels serves for English; the Chinese
list is ours. In a list a line is a connective; "_" stands for a space, a mark at the end, as in "thus,", for a comma
that must follow. The label is the line without that mark, so that all labels have one form. Ours are the rules that
decide what counts, all for few false pairs rather than many pairs:

* Only the opening of a sentence is looked at; the longest connective of the list wins.
* An English connective must be followed by a comma, also where the list writes none: "However hard he tried" is none.
  "And" and "but" do without, being conjunctions, and "this" never counts, being the subject of its sentence. In a
  Chinese list the comma is needed where it is written. That list is in simplified characters; a connective in
  traditional ones counts under the same label.
* The connective is taken away with its comma, and the rest begins with a capital where the script has case.
* `[no-conn]` pairs are adjacent sentences of which the second opens with nothing like a connective. What looks like one
  but lacks its comma, stands inside a quotation, is no label ("In addition") or shows only by a comma after the first
  few words ("As such, …") makes no pair at all.
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
    """What differs between languages in telling connectives."""

    letters: bool
    """Words end at white space, sentences begin with a capital, and length is counted in words, not in characters."""
    bare: frozenset[str]
    """Labels that count without a comma; with `letters` false, those whose line has none."""
    lookalikes: tuple[str, ...]
    """Openings that begin like a connective and are none; they may open the second sentence of a `[no-conn]` pair."""
    unlisted: tuple[str, ...]
    """Connectives that are no labels; they may not open the second sentence of a `[no-conn]` pair."""
    early_comma: re.Pattern[str]
    """An opening so short before its comma that it may be a connective."""
    shortest: int
    """A sentence of fewer words (characters) makes no pair."""
    longest: int
    """A sentence of more words (characters) makes no pair."""


_ENGLISH = ConnectiveRules(
    letters=True,
    bare=frozenset({"and", "but"}),
    lookalikes=("this", "but for", "and so on", "and/or"),
    unlisted=(
        *("above all", "after all", "after that", "apart from that", "as such", "at first", "at the same time"),
        *("despite this", "due to this", "even so", "for this reason", "in addition", "in any case", "in conclusion"),
        *("in general", "in spite of this", "of course", "on top of that", "that is", "that said", "to sum up"),
        *("to this end", "with that", "with this in mind"),
    ),
    early_comma=re.compile(r"(?:[^\s,]+\s+){0,2}[^\s,]+\s?,(?!\d)"),
    shortest=3,
    longest=100,
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
    """The connectives of a language and the rules that tell their uses; made by `load_connectives`."""

    labels: tuple[str, ...]
    """All labels in the order of the list, `[no-conn]` first."""
    rules: ConnectiveRules
    _forms: dict[str, str] = field(repr=False)
    _pattern: re.Pattern[str] = field(repr=False)
    _unlisted: re.Pattern[str] = field(repr=False)

    def opening(self, sentence: str) -> tuple[str | None, str]:
        """(label, rest) of `sentence`, rest without the connective; (`[no-conn]`, sentence) where none opens it; (None,
        reason) where this cannot be on_progress or the rest is of no use.

        >>> load_connectives("en").opening("In fact, it rained.")
        ('in_fact', 'It rained.')
        """
        found = self._match(sentence)
        if found is None:
            inner = sentence.lstrip(_OPENING_QUOTES)
            if len(inner) < len(sentence) and self._match(inner) is not None:
                return None, "connective inside a quotation"
            if self._unlisted.match(inner):
                return None, "connective that is no label"
            if self.rules.early_comma.match(inner):
                return None, "comma after its first words"
            return NO_CONNECTIVE, sentence
        label, end = found
        rest = sentence[end:].lstrip()
        comma = rest[:1] in _COMMAS if rest else False
        if not comma and label not in self.rules.bare:
            return None, "connective without its comma"
        rest = rest.lstrip(_COMMAS if self.rules.letters else _COMMAS + "、:：").lstrip()
        if self._match(rest) is not None:
            return None, "two connectives"
        return label, rest[:1].upper() + rest[1:] if self.rules.letters else rest

    def _match(self, text: str) -> tuple[str, int] | None:
        """(label, end) of the longest connective that opens `text`; None where there is none or only a lookalike."""
        match = self._pattern.match(text)
        if match is None:
            return None
        words = " ".join(match[0].lower().split())
        return None if words in self.rules.lookalikes else (self._forms[words], match.end())


class Pair(NamedTuple):
    """Two adjacent sentences, the connective that stood between them, and the group of their document."""

    sentence1: str
    sentence2: str
    label: str
    group: str


@dataclass
class MiningResult:
    """What a run of mining wrote: rows per label, and what was left out by reason."""

    labels: Counter[str]
    drops: Drops


@cache
def load_connectives(language: str) -> Connectives:
    """The connectives of an ISO 639 code, a region ignored. Raises `ConfigError` for one that has no list."""
    code = language.replace("_", "-").split("-")[0].lower()
    folder = bundled_data_folder() / "connectives"
    known = sorted(entry.name.removesuffix(".txt") for entry in folder.iterdir())
    if code not in known:
        raise ConfigError(
            f"there is no list of connectives for the language {language!r}.{did_you_mean(code, known)} "
            f"Known: {', '.join(known)}."
        )
    no_connective, *listed = (folder / f"{code}.txt").read_text(encoding="utf-8").split()
    labels = (no_connective, *(line.rstrip(_COMMAS) for line in listed))
    rules = _ENGLISH
    if code == "zh":
        rules = ConnectiveRules(
            letters=False,
            bare=frozenset(line for line in listed if line[-1] not in _COMMAS),
            lookalikes=_with_traditional(_CHINESE_LOOKALIKES),
            unlisted=_with_traditional(_CHINESE_UNLISTED),
            early_comma=re.compile(r"[^，,]{1,4}，"),
            shortest=5,
            longest=200,
        )
    forms = {label.replace("_", " "): label for label in labels[1:]}
    if not rules.letters:
        forms |= {form.translate(_TRADITIONAL): label for form, label in forms.items()}
    return Connectives(
        labels, rules, forms, _openings({*forms, *rules.lookalikes}, rules), _openings(rules.unlisted, rules)
    )


def _with_traditional(words: str) -> tuple[str, ...]:
    return tuple(f"{words} {words.translate(_TRADITIONAL)}".split())


def _openings(words: Iterable[str], rules: ConnectiveRules) -> re.Pattern[str]:
    """A pattern that matches the longest of `words` at the beginning of a text."""
    alternatives = "|".join(re.escape(word).replace(r"\ ", r"\s+") for word in sorted(words, key=len, reverse=True))
    end = r"(?![\w'’-])" if rules.letters else ""
    return re.compile(f"(?:{alternatives}){end}", re.IGNORECASE)


def discourse_pairs(document: Document, language: str, drops: Drops) -> Iterator[Pair]:
    """Every pair of `document`, in its order; `drops` counts adjacent sentences that make none."""
    connectives = load_connectives(language)
    for start, end in document.paragraphs:
        paragraph = document.text[start:end]
        sentences = [" ".join(paragraph[first:last].split()) for first, last in sentence_bounds(paragraph, language)]
        faults = [_fault(sentence, connectives.rules) for sentence in sentences]
        for index in range(1, len(sentences)):
            fault = faults[index - 1] or faults[index]
            label, rest = connectives.opening(sentences[index]) if fault is None else (None, fault)
            if label not in (None, NO_CONNECTIVE):
                fault = _fault(rest, connectives.rules, opens=False)
                label, rest = (label, rest) if fault is None else (None, fault)
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
        raise ConfigError(f"max_per_label is {max_per_label}; at least one pair a label must be kept.")
    check_output(out, list_files(corpus.paths, FORMATS))
    drops = Drops()
    kept = _SmallestHashes(max_per_label, drops)
    documents = characters = 0
    with temporary_file(out) as file:
        for document in read_documents(corpus, drops):
            for pair in discourse_pairs(document, corpus.language, drops):
                kept.offer(pair, file)
            documents, characters = documents + 1, characters + len(document.text)
            on_progress(documents, characters, kept.offered)
        if not set(kept.heaps) - {NO_CONNECTIVE}:
            raise DataError(
                f"{', '.join(corpus.paths)}: no sentence of {documents:,} documents opens with a connective of the "
                f"language {corpus.language!r} (left out: {str(drops) or 'nothing'}). Is the language right, and is "
                "the text in sentences?"
            )
        write_rows(out, COLUMNS, kept.rows(file))
    return MiningResult(Counter({label: len(heap) for label, heap in kept.heaps.items()}), drops)


class _SmallestHashes:
    """The pairs of smallest hash of every label: (−hash, offset in a file of candidates), in one heap a label."""

    def __init__(self, most: int, drops: Drops) -> None:
        self.most, self.drops, self.offered = most, drops, 0
        self.heaps: dict[str, list[tuple[int, int]]] = {}
        self._hashes: dict[str, set[int]] = {}
        self._end = 0

    def offer(self, pair: Pair, file: BinaryIO) -> None:
        """Takes `pair` unless it is known, or its hash is above those of as many pairs as may be kept.

        The bound of a full heap only falls, so that a pair which was refused or put out is refused again: no pair is
        ever kept twice, though only the hashes of kept pairs are known.
        """
        self.offered += 1
        number = hash64(f"{pair.sentence1}\x1f{pair.sentence2}")
        heap, hashes = self.heaps.setdefault(pair.label, []), self._hashes.setdefault(pair.label, set())
        if number in hashes:
            self.drops.add("repeated pair")
            return
        if len(heap) == self.most:
            self.drops.add(f"pairs over the cap of {self.most:,} per label")
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
        """The kept pairs as rows, in the order they came."""
        for offset in sorted(offset for heap in self.heaps.values() for _, offset in heap):
            file.seek(offset)
            yield json.loads(file.readline())


def _quotation_cut(sentence: str) -> bool:
    """Whether a quotation in single marks begins or ends `sentence` and goes beyond it; apostrophes are no marks."""
    if sentence[0] in "'‘" and not re.search(r"[.,!?…\w]['’](?!\w)", sentence):
        return True
    return sentence[-1] in "'’" and not re.search(r"(?<!\w)['‘]\w", sentence)


def _fault(sentence: str, rules: ConnectiveRules, *, opens: bool = True) -> str | None:
    """Why `sentence` is of no use in a pair, or None; `opens`: it is a whole sentence as it stood in the text."""
    length = sentence.count(" ") + 1 if rules.letters else len(sentence)
    if length < rules.shortest:
        return "short sentence"
    if length > rules.longest:
        return "long sentence"
    if rules.letters and opens and sentence[0].islower():
        return "sentence in lower case"
    if sentence.rstrip(_CLOSING)[-1:] not in tuple(_ENDS):
        return "sentence without its end"
    quoted = rules.letters and _quotation_cut(sentence)
    cut = (
        quoted
        or sentence.count('"') % 2
        or any(sentence.count(left) != sentence.count(right) for left, right in _BALANCED)
    )
    return "quotation or bracket cut apart" if cut else None
