"""The tasks of `prepare`: read the input, tokenise a unit, mark phrases in shards; the last argument is the rank.

Each task reads and writes the staging directory only, and can be repeated after a kill at any point.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ernie2.config.data_settings import KnowledgeSettings, ShardSettings
from ernie2.config.settings import Recipe
from ernie2.shards.columns import ColumnBatch, ColumnBuilder, shard_columns
from ernie2.shards.knowledge import phrases
from ernie2.shards.knowledge.annotators import build_annotators
from ernie2.shards.staging import StagingDirectory
from ernie2.shards.store import ADVICE, HELDOUT, Shard, add_columns, span_columns, write_shard
from ernie2.shards.tokenizer import SubwordTokenizer, load_tokenizer
from ernie2.shards.units import CorpusUnits, UnitDocument, read_corpora, read_unit
from ernie2.storage.arrays import write_arrays
from ernie2.storage.json_files import write_checked_json
from ernie2.storage.removing import remove

_REPORT_INTERVAL = 1_000_000
"""Characters of input between two records of progress."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit of work of a corpus, and its files in the staging directory `folder`."""

    corpus: CorpusUnits
    name: str
    characters: int
    folder: Path

    @property
    def shard(self) -> Path:
        """Folder of its shard; missing if all of its documents were dropped."""
        return self.folder / "set" / self.corpus.name / self.name

    @property
    def counts(self) -> Path:
        """File of its n-gram counts."""
        return self.folder / "counts" / f"{self.name}.npz"

    def documents(self) -> Iterator[UnitDocument]:
        """Yield its documents."""
        return read_unit(self.folder / "units" / f"{self.name}.jsonl.zst")


def list_units(corpora: Sequence[CorpusUnits], folder: Path) -> list[Unit]:
    """Return the units of work in order."""
    return [
        Unit(corpus, name, characters, folder)
        for corpus in corpora
        for name, characters in zip(corpus.units, corpus.unit_characters, strict=True)
    ]


def read_input(recipe: Recipe, staging: StagingDirectory, rank: int) -> None:
    """Read the corpora into units of work: write `units/` and read.json. This is a single task."""
    unreported = 0

    def report(characters: int) -> None:
        nonlocal unreported
        unreported += characters
        if unreported >= _REPORT_INTERVAL:
            staging.advance(unreported)
            unreported = 0

    remove(staging.folder / "units", advice=ADVICE)
    read_corpora(recipe.corpora, recipe.shards, staging.folder, report)


def tokenise(
    knowledge: KnowledgeSettings,
    settings: ShardSettings,
    units: Sequence[Unit],
    staging: StagingDirectory,
    rank: int,
) -> None:
    """Write the shard of unit `rank`, its record, and if phrases are mined, its n-gram counts."""
    unit, folder = units[rank], staging.folder
    tokenizer = _load_staged_tokenizer(folder / "set")
    annotators = build_annotators(knowledge, unit.corpus.language)
    pairs = bool(unit.corpus.labels)
    builder = ColumnBuilder(tokenizer, unit.corpus.language, annotators, settings, pairs=pairs)
    batches: list[ColumnBatch] = []
    with _single_threaded_tokenizer():
        for batch, characters in builder.batches(unit.documents()):
            staging.advance(characters)
            if batch is not None:
                batches.append(batch)
    record = {
        "dropped": dict(builder.dropped),
        "dropped_spans": dict(builder.dropped_spans),
        "encoded_tokens": builder.encoded,
        "unknown_tokens": builder.unknown,
    }
    if batches:
        record |= _write_shard(unit, batches, tokenizer)
        _count_phrases(unit, rank, knowledge)
    write_checked_json(folder / "records" / f"{unit.name}.json", record, advice=ADVICE)


def mark_phrases(units: Sequence[Unit], staging: StagingDirectory, tasks: int, rank: int) -> None:
    """Add the spans of the chosen phrases to the shards `rank`, `rank` + `tasks`, …

    Repeating it after a kill changes nothing: existing phrase spans are not added again.
    """
    for unit in units[rank::tasks]:
        if unit.shard.exists():
            shard = Shard(unit.shard)
            existing = shard.spans["phrase"][0] if "phrase" in shard.spans else None
            words = phrases.phrase_words(shard, _load_token_classes(unit.folder))
            runs = phrases.find_phrases(words, load_chosen_phrases(unit.folder), existing)
            if len(runs):
                documents = shard.sentences[shard.paragraphs[shard.documents]]
                add_columns(unit.shard, span_columns("phrase", runs, documents))
        staging.advance(unit.characters)


def _write_shard(unit: Unit, batches: list[ColumnBatch], tokenizer: SubwordTokenizer) -> dict[str, Any]:
    """Write a shard; return its part of the record."""
    corpus = unit.corpus
    split = [corpus.split(group) for batch in batches for group in batch.groups]
    columns = shard_columns(batches, split, corpus.labels)
    names = [name for batch in batches for name in batch.names]
    labels = {"labels": corpus.labels} if corpus.labels else {}
    write_shard(unit.shard, columns, names, {"corpus": corpus.name, "tokenizer": tokenizer.fingerprint, **labels})
    first = np.concatenate([batch.first_sections for batch in batches])
    return {
        "shard": unit.name,
        "label_counts": np.bincount(columns["label"], minlength=len(corpus.labels)).tolist() if labels else [],
        "documents": int(first.sum()),
        "heldout_documents": int((first & (columns["split"] == HELDOUT)).sum()),
    }


def _count_phrases(unit: Unit, rank: int, knowledge: KnowledgeSettings) -> None:
    if knowledge.phrases is not None:
        words = phrases.phrase_words(Shard(unit.shard), _load_token_classes(unit.folder))
        counts = phrases.count_ngrams(words, rank, knowledge.phrases.max_words)
        write_arrays(unit.counts, counts._asdict(), advice=ADVICE)


@lru_cache(maxsize=1)
def _load_staged_tokenizer(folder: Path) -> SubwordTokenizer:
    return load_tokenizer(folder / "tokenizer.json")


@lru_cache(maxsize=1)
def _load_token_classes(folder: Path) -> NDArray[np.int8]:
    return np.asarray(np.load(folder / "lettered.npy"))


@lru_cache(maxsize=1)
def load_chosen_phrases(folder: Path) -> phrases.Phrases:
    """Load the chosen phrases, once per process."""
    with np.load(folder / "phrases.npz") as columns:
        return phrases.Phrases(**columns)


@contextmanager
def _single_threaded_tokenizer() -> Iterator[None]:
    """Limit the tokeniser to one thread; the other cores have their own workers."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before
