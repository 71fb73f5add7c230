"""Shards: annotated, tokenised documents as flat columns on disk; the only format that later stages read.

A shard is a folder of `.npy` columns and a `shard.json` with counts and checksums, written atomically. It has T tokens,
S sentences, P paragraphs and D documents. Offsets are in CSR form (n + 1 entries, first 0):

    tokens.npy           (T,) uint16, or uint32 for vocabularies above 65,536      token ids
    flags.npy            (T,) uint8     bits WORD_START | CAPITALISED | CASED
    document_count.npy   (T,) uint16    how often this id occurs in its document
    sentences.npy        (S + 1,) int64 sentence → first token
    paragraphs.npy       (P + 1,) int64 paragraph → first sentence
    documents.npy        (D + 1,) int64 document → first paragraph
    spans_KIND.npy       (N, 2) int64   token runs [start, end) of a kind, sorted, disjoint, within a sentence
    spans_KIND_at.npy    (D + 1,) int64 document → first span
    split.npy            (D,) uint8     0 train, 1 held out
    group.npy            (D,) uint64    hash of the group, which stays on one side of the split
    label.npy            (D,) uint16    labelled pairs only: the class, an index into `labels` of shard.json
    names.json           ids of the documents

A "document" of a shard is a section of at most `document_tokens` tokens of the user's document, split at paragraphs.
Reason: token-document relation predicts whether a word occurs again; in an entire book nearly every word does. A
labelled pair is one document of exactly two paragraphs, its two texts, and is never split.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ernie2.errors import DamagedFile, ShardError, TaskError
from ernie2.storage.arrays import write_array
from ernie2.storage.atomic import checksum, staged_files, staged_folder, write_json
from ernie2.storage.checksums import first_mismatch
from ernie2.storage.json_files import read_json, read_versioned_json, write_checked_json

Array = NDArray[Any]

FORMAT = 2
ADVICE = "Free space or choose another shards.folder, then run the same command again: finished work is reused."
"""Advice if a dataset cannot be written."""
WORD_START, CAPITALISED, CASED = 1, 2, 4
"""Bits of `flags`: first token of a word; the word begins with a capital; its script has case."""
SPAN_KINDS = ("word", "phrase", "entity", "user")
"""From weakest to strongest: if spans of two kinds overlap, the later kind wins."""
TRAIN, HELDOUT = 0, 1
SPLITS = {"train": TRAIN, "heldout": HELDOUT}


@dataclass(frozen=True, slots=True)
class AnnotatedDocument:
    """One document of a shard; all offsets count from its first token.

    `tokens` (n,), `flags` (n,) uint8, `document_count` (n,) uint16; `sentences` (s + 1,) token offsets; `paragraphs`
    (p + 1,) sentence numbers; `spans` kind → (k, 2) token runs; `group`: hash that documents of one group share.
    `label`: the class of a labelled pair, whose two texts are its two paragraphs; None for text.
    """

    name: str
    group: int
    tokens: Array
    flags: Array
    document_count: Array
    sentences: Array
    paragraphs: Array
    spans: Mapping[str, Array]
    label: str | None = None

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.tokens)

    @property
    def sentence_count(self) -> int:
        """Number of sentences."""
        return len(self.sentences) - 1


class Shard:
    """One shard folder; columns are memory-mapped instead of loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts: dict[str, Any] = _read_facts(folder / "shard.json", folder)
        columns = {name: _open_column(folder / f"{name}.npy", facts) for name, facts in self.facts["columns"].items()}
        self.tokens, self.flags, self.document_count = (columns[c] for c in ("tokens", "flags", "document_count"))
        self.sentences, self.paragraphs, self.documents = (columns[c] for c in ("sentences", "paragraphs", "documents"))
        self.split, self.group = columns["split"], columns["group"]
        kinds = [kind for kind in SPAN_KINDS if f"spans_{kind}" in columns]
        self.spans = {kind: (columns[f"spans_{kind}"], columns[f"spans_{kind}_at"]) for kind in kinds}
        self.labels: tuple[str, ...] = tuple(self.facts.get("labels", ()))
        """Classes of the corpus, for labelled pairs; empty for documents."""
        self.label: Array | None = columns.get("label")
        """(D,) uint16 indices into `labels`; None for documents."""

    def __reduce__(self) -> tuple[type[Shard], tuple[Path]]:
        """Pickle the path only: another process opens the folder itself."""
        return Shard, (self.folder,)

    @cached_property
    def names(self) -> list[str]:
        """Ids of the documents."""
        _compare(self.folder, self.facts["files"], _uncached_first_mismatch)
        return read_json(self.folder / "names.json", list)

    def document(self, row: int) -> AnnotatedDocument:
        """Return document `row`, 0 ≤ row < D."""
        first_paragraph, end_paragraph = self.documents[row : row + 2].tolist()
        paragraphs = self.paragraphs[first_paragraph : end_paragraph + 1]
        first_sentence, end_sentence = int(paragraphs[0]), int(paragraphs[-1])
        sentences = self.sentences[first_sentence : end_sentence + 1]
        start, end = int(sentences[0]), int(sentences[-1])
        spans = {}
        for kind, (runs, at) in self.spans.items():
            first, last = at[row : row + 2].tolist()
            if last > first:
                spans[kind] = runs[first:last] - start
        return AnnotatedDocument(
            name=self.names[row],
            group=int(self.group[row]),
            tokens=self.tokens[start:end],
            flags=self.flags[start:end],
            document_count=self.document_count[start:end],
            sentences=sentences - start,
            paragraphs=paragraphs - first_sentence,
            spans=spans,
            label=None if self.label is None else self.labels[self.label[row]],
        )

    def verify(self) -> None:
        """Compare files changed since the last call with their checksums. Raises `ShardError` naming a damaged one."""
        columns = {f"{name}.npy": column["sha256"] for name, column in self.facts["columns"].items()}
        _compare(self.folder, columns | self.facts["files"], first_mismatch)


@contextmanager
def verify_on_error(corpora: Iterable[ShardedCorpus]) -> Iterator[None]:
    """If the body raises, compare the shards it read with their checksums, and raise `ShardError` if they are damaged.

    Damaged offsets and labels make code fail far from the damaged file.
    """
    try:
        yield
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError, TaskError):
        for shard in [shard for corpus in corpora for shard in corpus.shards]:
            shard.verify()
        raise


class ShardedCorpus:
    """All shards of one corpus; train and held-out documents are numbered separately across shards."""

    def __init__(self, name: str, facts: Mapping[str, Any], shards: Sequence[Shard]) -> None:
        self.name = name
        self.facts = facts
        self.language = str(facts["language"])
        self.licence = str(facts["licence"])
        self.labels: tuple[str, ...] = tuple(facts.get("labels", ()))
        """Classes of a corpus of labelled pairs; empty for documents."""
        self.shards = shards
        self._rows = {code: [np.flatnonzero(shard.split == code) for shard in shards] for code in SPLITS.values()}
        self._ends = {code: list(accumulate(len(r) for r in rows)) for code, rows in self._rows.items()}
        self._outside_group: tuple[tuple[str, int], Array] | None = None

    def num_documents(self, split: str) -> int:
        """Return the number of documents in `split` ("train" or "heldout")."""
        ends = self._ends[SPLITS[split]]
        return ends[-1] if ends else 0

    def num_tokens(self, split: str) -> int:
        """Return the number of tokens in `split`."""
        return self._num_tokens[SPLITS[split]]

    @cached_property
    def _num_tokens(self) -> dict[int, int]:
        lengths = [np.diff(shard.sentences[shard.paragraphs[shard.documents]]) for shard in self.shards]
        totals = {}
        for code, rows in self._rows.items():
            totals[code] = sum(int(length[row].sum()) for length, row in zip(lengths, rows, strict=True))
        return totals

    def document(self, split: str, number: int) -> AnnotatedDocument:
        """Return document `number` of `split`, 0 ≤ number < num_documents(split)."""
        code = SPLITS[split]
        ends = self._ends[code]
        shard = bisect_right(ends, number)
        row = number - (ends[shard - 1] if shard else 0)
        return self.shards[shard].document(int(self._rows[code][shard][row]))

    def documents_outside_group(self, split: str, group: int) -> Array:
        """Return the numbers (k,) of the documents of `split` outside `group`; the last result is cached."""
        if self._outside_group is None or self._outside_group[0] != (split, group):
            rows = zip(self.shards, self._rows[SPLITS[split]], strict=True)
            groups = np.concatenate([np.zeros(0, np.uint64), *(shard.group[at] for shard, at in rows)])
            self._outside_group = (split, group), np.flatnonzero(groups != np.uint64(group))
        return self._outside_group[1]


class Shards:
    """One or more prepared datasets, read as one; `facts` is the content of shards.json.

    `ernie2 extend` adds the folder of the new task. Corpora are then those of all `folders` in order, tokeniser and
    facts those of the first, and `fingerprint` hashes the folders' fingerprints. A folder named twice is read once.
    Raises `ShardError` if a folder has no shards, tokenisers differ, or two folders have a corpus of the same name.
    """

    def __init__(self, *folders: Path | str) -> None:
        unique: dict[Path, Path] = {}
        for folder in map(Path, folders):
            unique.setdefault(folder.resolve(), folder)
        self.folders = tuple(unique.values())
        self.folder = self.folders[0]
        all_facts = [_read_facts(folder / "shards.json", folder) for folder in self.folders]
        self.tokenizer_fingerprint = str(all_facts[0]["tokenizer"])
        self.corpora: dict[str, ShardedCorpus] = {}
        for folder, facts in zip(self.folders, all_facts, strict=True):
            self._add(folder, facts)
        fingerprints = [str(facts["fingerprint"]) for facts in all_facts]
        joined = "\n".join(fingerprints).encode()
        self.fingerprint = fingerprints[0] if len(fingerprints) == 1 else sha256(joined).hexdigest()
        corpora = {name: corpus.facts for name, corpus in self.corpora.items()}
        self.facts: dict[str, Any] = {**all_facts[0], "fingerprint": self.fingerprint, "corpora": corpora}

    def _add(self, folder: Path, facts: Mapping[str, Any]) -> None:
        if facts["tokenizer"] != self.tokenizer_fingerprint:
            raise ShardError(
                f"{folder} was prepared with another tokeniser ({facts['tokenizer'][:12]}) than {self.folder} "
                f"({self.tokenizer_fingerprint[:12]}): its ids mean other tokens. Prepare it again with "
                f"tokenizer.train=null tokenizer.file={self.folder / 'tokenizer.json'}."
            )
        for name, described in facts["corpora"].items():
            if name in self.corpora:
                raise ShardError(
                    f"{self.corpora[name].shards[0].folder.parents[1]} and {folder} both have a corpus {name!r}. "
                    "Rename it under `corpora` in the new recipe, and prepare that into a new folder."
                )
            shards = [Shard(folder / name / shard) for shard in described["shards"]]
            for shard in shards:
                if shard.facts["tokenizer"] != self.tokenizer_fingerprint:
                    raise ShardError(
                        f"{shard.folder} was prepared with another tokeniser ({shard.facts['tokenizer'][:12]}) than "
                        f"{folder} ({self.tokenizer_fingerprint[:12]}). Run `ernie2 prepare` into a new folder."
                    )
            _compare_named(folder, facts, *(f"{name}/{shard}/shard.json" for shard in described["shards"]))
            self.corpora[name] = ShardedCorpus(name, described, shards)
        _compare_named(folder, facts, "phrases.tsv")

    def verify_files(self, *names: str) -> None:
        """Compare files of the first folder with the checksums in its shards.json; skip files without one.

        Raises `ShardError` naming one that differs.
        """
        _compare_named(self.folder, self.facts, *names)


def write_shard(folder: Path, columns: Mapping[str, Array], names: Sequence[str], facts: Mapping[str, Any]) -> None:
    """Write a shard atomically; replace an existing one. Raises `StorageError`.

    `facts`: "tokenizer" and "corpus", for labelled pairs also "labels", the names of the classes.
    """
    with staged_folder(folder, replace=True, advice=ADVICE) as staging:
        described = {name: _save(staging, name, column) for name, column in sorted(columns.items())}
        write_json(staging / "names.json", names)
        files = {"names.json": checksum(staging / "names.json")}
        counts = {"documents": len(columns["documents"]) - 1, "tokens": len(columns["tokens"])}
        description = {"format": FORMAT, **facts, **counts, "columns": described, "files": files}
        write_checked_json(staging / "shard.json", description)


def add_columns(folder: Path, columns: Mapping[str, Array]) -> None:
    """Add columns to a shard, or replace them: files first, `shard.json` last, so that a kill does no damage."""
    facts = _read_facts(folder / "shard.json", folder)
    with staged_files(folder, (*(f"{name}.npy" for name in columns), "shard.json"), advice=ADVICE) as staging:
        described = {name: _save(staging, name, column) for name, column in columns.items()}
        facts["columns"] = dict(sorted({**facts["columns"], **described}.items()))
        write_checked_json(staging / "shard.json", facts)


def span_columns(kind: str, runs: Array, documents: Array) -> dict[str, Array]:
    """Return the two columns of a kind of spans: `runs` (N, 2), sorted, and the number of each document's first run.

    `documents` (D + 1,): token offsets. Runs [[1, 3], [7, 8]] and documents [0, 5, 9] give [0, 1, 2].
    """
    at = np.searchsorted(runs[:, 0], documents)
    return {f"spans_{kind}": runs.astype(np.int64), f"spans_{kind}_at": at.astype(np.int64)}


def token_dtype(vocab_size: int) -> type[np.unsignedinteger[Any]]:
    """Return uint16 if every id fits, else uint32."""
    return np.uint16 if vocab_size <= 65_536 else np.uint32


def _save(folder: Path, name: str, column: Array) -> dict[str, Any]:
    write_array(folder / f"{name}.npy", column)
    return {"dtype": str(column.dtype), "shape": list(column.shape), "sha256": checksum(folder / f"{name}.npy")}


def _open_column(file: Path, described: Mapping[str, Any]) -> Array:
    """Memory-map a column. Raises `ShardError` if its dtype or shape differs from `described`."""
    try:
        # np.asarray drops the memmap subclass, whose slices cost ten times as much
        column = np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))
        if list(column.shape) != described["shape"] or str(column.dtype) != described["dtype"]:
            raise ValueError(f"{column.dtype} {list(column.shape)} for {described['dtype']} {described['shape']}")
    except Exception as error:  # numpy parses the header as Python, so a damaged one can raise anything
        raise _damaged(file, f"cannot be read ({str(error) or type(error).__name__})") from error
    return column


_PREPARE_AGAIN = "Run `ernie2 prepare RECIPE --replace` to rebuild them."
_Comparison = Callable[[Path, Mapping[str, str]], str | None]


def _uncached_first_mismatch(folder: Path, expected: Mapping[str, str]) -> str | None:
    """Like `first_mismatch`, without its cache."""
    return next((name for name, value in expected.items() if checksum(folder / name) != value), None)


def _compare(folder: Path, expected: Mapping[str, str], find_mismatch: _Comparison) -> None:
    """Raise `ShardError` naming the first file that differs from its checksum."""
    try:
        mismatch = find_mismatch(folder, expected)
    except OSError as error:
        raise _damaged(error.filename, f"cannot be read ({error.strerror})") from error
    if mismatch is not None:
        raise _damaged(folder / mismatch, "does not match its checksum")


def _compare_named(folder: Path, facts: Mapping[str, Any], *names: str) -> None:
    files = facts.get("files", {})
    _compare(folder, {name: files[name] for name in names if name in files}, _uncached_first_mismatch)


def _damaged(file: Path, how: str) -> ShardError:
    return ShardError(f"{file} {how}: the shards are damaged. {_PREPARE_AGAIN}")


def _read_facts(file: Path, folder: Path) -> dict[str, Any]:
    def wrong_format(number: object) -> ShardError:
        older = " (ernie2 0.1 wrote it)" if number == 1 else ""
        return ShardError(f"{file} has format {number!r}{older}; this version reads {FORMAT}. {_PREPARE_AGAIN}")

    try:
        return read_versioned_json(file, FORMAT, wrong_format)
    except (FileNotFoundError, NotADirectoryError):
        state = "is not a folder of shards" if folder.exists() else "does not exist"
        raise ShardError(f"{folder} {state} (no {file.name}). Run `ernie2 prepare RECIPE` first.") from None
    except DamagedFile as error:
        raise ShardError(f"{error} {_PREPARE_AGAIN}") from error
