"""Units of work: one streaming pass over the corpora drops duplicates, draws the split and cuts the text into units.

The end of a unit depends on the input and `shard_tokens` only, so any number of workers builds the same shards. State
about all documents, the texts seen and the size of every group, is in an SQLite file: memory is bounded for any corpus.
"""

from __future__ import annotations

import io
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path

import fsspec
import zstandard
from pydantic_core import from_json, to_json

from ernie2.config.data_settings import CorpusSettings, ShardSettings
from ernie2.corpora.documents import Document, Drops, corpus_files, hash64, read_documents
from ernie2.corpora.pairs import read_pairs, sort_labels
from ernie2.errors import DataError
from ernie2.shards.store import ADVICE, HELDOUT, TRAIN
from ernie2.storage.atomic import open_zstd, write_bytes
from ernie2.storage.temporary import temporary_database

BYTES_PER_TOKEN = 4
"""Bytes per token, to size a unit of about `shard_tokens` tokens before tokenisation."""
MIN_UNITS = 16
"""A small corpus is cut into about this many units, to feed many workers evenly."""
MIN_UNIT_BYTES = 1 << 18
"""Bytes of text; `MIN_UNITS` makes no unit smaller, except the last of a corpus."""
DUPLICATE = "duplicate"
OTHER_LABEL = "same texts, another label"
OUTSIDE = "outside shards.share"
NO_GROUP = 1 << 64
"""A split threshold above every group's hash."""

_TABLES = """
    CREATE TABLE texts (hash BLOB PRIMARY KEY, label TEXT) WITHOUT ROWID;
    CREATE TABLE groups (corpus TEXT, hash BLOB, documents INTEGER, PRIMARY KEY (corpus, hash)) WITHOUT ROWID;
"""
_UNPACKED = {".gz": 3, ".zst": 3, ".parquet": 3}  # bytes of text in a byte of such a file, roughly


@dataclass(frozen=True, slots=True)
class UnitDocument:
    """A document before tokenisation; `group`: `hash64` of its group name, which decides its side of the split.

    `spans`: [start, end, kind] in characters. `label`: the class of a labelled pair, None for a text.
    """

    name: str
    group: int
    text: str
    spans: list[tuple[int, int, str]]
    label: str | None = None


@dataclass
class CorpusUnits:
    """Units and statistics of one corpus; `threshold`: groups with a hash below it are held out.

    `cut`: texts that were too long for one document. `labels`: classes of a corpus of labelled pairs, in the order of
    `sort_labels`; empty for documents.
    """

    name: str
    language: str
    licence: str
    sources: list[str]
    units: list[str] = field(default_factory=list)
    unit_characters: list[int] = field(default_factory=list)
    documents: int = 0
    heldout_documents: int = 0
    characters: int = 0
    threshold: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    cut: int = 0
    labels: list[str] = field(default_factory=list)

    def split(self, group: int) -> int:
        """Return the side of the split of the group with this hash."""
        return HELDOUT if group < self.threshold else TRAIN


def read_corpora(
    corpora: Mapping[str, CorpusSettings], settings: ShardSettings, folder: Path, report: Callable[[int], None]
) -> list[CorpusUnits]:
    """Read every corpus once and write its units into `folder`/units.

    `report` is called with the characters of every document. A text that occurred before, in this or an earlier corpus,
    is dropped as "duplicate". Labelled pairs are compared within their corpus only, because another corpus may label
    the same texts differently. A pair whose texts occurred before with another label is dropped as `OTHER_LABEL`.
    Raises `DataError` for input that cannot be read, or of which nothing is left.
    """
    read = []
    with temporary_database(folder / "known.sqlite", advice=ADVICE) as database:
        seen = _SeenTexts(database)
        for name, corpus in corpora.items():
            read.append(_read_corpus(name, corpus, settings, folder, seen, report))
    write_bytes(folder / "read.json", to_json([asdict(corpus) for corpus in read]), advice=ADVICE)
    return read


def load_corpora(folder: Path) -> list[CorpusUnits]:
    """Load the result of `read_corpora` from its record."""
    return [CorpusUnits(**corpus) for corpus in from_json((folder / "read.json").read_bytes())]


def read_unit(file: Path) -> Iterator[UnitDocument]:
    """Yield the documents of a unit."""
    with io.BufferedReader(zstandard.open(file, "rb"), 1 << 20) as lines:
        for line in lines:
            yield UnitDocument(*from_json(line))


def is_in_share(group: str, share: float) -> bool:
    """Return whether documents of this group are in the used `share`; independent of their side of the split."""
    return share >= 1 or hash64(group, person=b"share") < share * NO_GROUP


def _read_corpus(
    name: str,
    corpus: CorpusSettings,
    settings: ShardSettings,
    folder: Path,
    seen: _SeenTexts,
    report: Callable[[int], None],
) -> CorpusUnits:
    result = CorpusUnits(name, corpus.language, corpus.licence, corpus_files(corpus))
    drops, labels = Drops(), Counter[str]()
    with _UnitWriter(folder / "units", name, unit_bytes(result.sources, settings)) as units:
        for document in read_pairs(corpus, drops, name) if corpus.pairs else read_documents(corpus, drops, name):
            report(len(document.text))
            if not is_in_share(document.group, settings.share):
                drops.add(OUTSIDE)
                continue
            if (reason := seen.duplicate_reason(document, name)) is not None:
                drops.add(reason)
                continue
            if document.label is not None:
                labels[document.label] += 1
            result.documents += 1
            result.characters += len(document.text)
            group = hash64(document.group)
            seen.add_to_group(name, group)
            units.write(document, group)
    if not result.documents:
        paths = ", ".join(corpus.paths)
        outside = f"no document of {paths} is in shards.share={settings.share}; increase it."
        elsewhere = f"every document of {paths} is in an earlier corpus; remove this one."
        raise DataError(f"corpora.{name}: {outside if drops.counts[OUTSIDE] else elsewhere}")
    result.units, result.unit_characters = units.names, units.characters
    result.threshold, result.heldout_documents = seen.heldout_threshold(name, result.documents, settings)
    result.dropped, result.cut = drops.as_dict(), drops.cut
    result.labels = sort_labels(labels)
    return result


def unit_bytes(files: list[str], settings: ShardSettings) -> int:
    """Return the bytes of text per unit of a corpus; depends only on the sizes of its files and `shard_tokens`."""
    target = settings.shard_tokens * BYTES_PER_TOKEN
    total = 0
    for file in files:
        system, inner = fsspec.core.url_to_fs(file)
        size = system.info(inner).get("size")
        if size is None:
            return target
        total += size * _UNPACKED.get(Path(inner).suffix.lower(), 1)
    return min(target, max(total // MIN_UNITS, MIN_UNIT_BYTES))


class _UnitWriter(ExitStack):
    """Writes documents into units of about `unit_bytes` bytes of text each."""

    def __init__(self, folder: Path, corpus: str, unit_bytes: int) -> None:
        super().__init__()
        self.names: list[str] = []
        self.characters: list[int] = []
        self._folder, self._corpus, self._unit_bytes = folder, corpus, unit_bytes
        self._bytes = unit_bytes

    def write(self, document: Document, group: int) -> None:
        if self._bytes >= self._unit_bytes:
            self.close()
            self.names.append(f"{self._corpus}-{len(self.names):05d}")
            self.characters.append(0)
            unit = self._folder / f"{self.names[-1]}.jsonl.zst"
            self._stream = self.enter_context(open_zstd(unit, advice=ADVICE))
            self._bytes = 0
        spans = [(span.start, span.end, span.kind) for span in document.spans]
        label = () if document.label is None else (document.label,)
        line = to_json((document.id, group, document.text, spans, *label))
        self._stream.write(line + b"\n")
        self._bytes += len(line)
        self.characters[-1] += len(document.text)


class _SeenTexts:
    """The texts and groups seen so far, on disk."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._database.executescript(_TABLES)

    def duplicate_reason(self, document: Document, corpus: str) -> str | None:
        """Return `DUPLICATE` or `OTHER_LABEL` for a document seen before; None for a new one, which is added."""
        label = document.label
        scope = b"" if label is None else blake2b(corpus.encode(), digest_size=16).digest()
        digest = blake2b(document.text.encode(), digest_size=16, person=scope).digest()
        if self._database.execute("INSERT OR IGNORE INTO texts VALUES (?, ?)", (digest, label)).rowcount == 1:
            return None
        (first,) = self._database.execute("SELECT label FROM texts WHERE hash = ?", (digest,)).fetchone()
        return DUPLICATE if first == label else OTHER_LABEL

    def add_to_group(self, corpus: str, group: int) -> None:
        """Count one more document of a group."""
        self._database.execute(
            "INSERT INTO groups VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET documents = documents + 1",
            (corpus, group.to_bytes(8, "big")),
        )

    def heldout_threshold(self, corpus: str, documents: int, settings: ShardSettings) -> tuple[int, int]:
        """Return (hash below which groups are held out, number of their documents).

        Groups are held out in the order of their hashes, while these are below the share `heldout` or fewer than
        `min_heldout` documents are held out. At most half of the documents are held out.
        """
        share = settings.heldout * NO_GROUP
        held = 0
        rows = self._database.execute("SELECT hash, documents FROM groups WHERE corpus = ? ORDER BY hash", (corpus,))
        for raw, size in rows:
            group = int.from_bytes(raw, "big")
            hold_out = group < share or held < settings.min_heldout
            if not hold_out or 2 * (held + size) > documents:
                return group, held
            held += size
        return NO_GROUP, held
