"""The tasks of `prepare`: read the input, tokenise a unit, mark phrases in shards; the last argument says which.

Each reads and writes the staging directory and nothing else, and can be done again after a kill at any moment.
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

_REPORTED_AT_ONCE = 1_000_000
"""Characters of input that are read before progress is recorded."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit of work of a corpus, and its files in the staging directory `work`."""

    corpus: CorpusUnits
    name: str
    characters: int
    work: Path

    @property
    def shard(self) -> Path:
        """The folder of its shard, which is missing where nothing was left of its documents."""
        return self.work / "set" / self.corpus.name / self.name

    @property
    def counts(self) -> Path:
        """The counts of its n-grams."""
        return self.work / "counts" / f"{self.name}.npz"

    def documents(self) -> Iterator[UnitDocument]:
        """Read its documents."""
        return read_unit(self.work / "units" / f"{self.name}.jsonl.zst")


def list_units(corpora: Sequence[CorpusUnits], work: Path) -> list[Unit]:
    """Return the units of work in their order."""
    return [
        Unit(corpus, name, characters, work)
        for corpus in corpora
        for name, characters in zip(corpus.units, corpus.unit_characters, strict=True)
    ]


def read_input(recipe: Recipe, staging: StagingDirectory, rank: int) -> None:
    """Read the corpora into units of work: write `units/` and read.json. There is one such task."""
    read = 0

    def report(characters: int) -> None:
        nonlocal read
        read += characters
        if read >= _REPORTED_AT_ONCE:
            staging.advance(read)
            read = 0

    remove(staging.folder / "units", advice=ADVICE)
    read_corpora(recipe.corpora, recipe.shards, staging.folder, report)


def tokenise(
    knowledge: KnowledgeSettings,
    settings: ShardSettings,
    units: Sequence[Unit],
    staging: StagingDirectory,
    rank: int,
) -> None:
    """Make the shard of unit number `rank`, its record, and where phrases are mined the counts of its n-grams."""
    unit, work = units[rank], staging.folder
    tokenizer = _loaded(work / "set")
    marking = build_annotators(knowledge, unit.corpus.language)
    pairs = bool(unit.corpus.labels)
    maker = ColumnBuilder(tokenizer, unit.corpus.language, marking, settings, pairs=pairs)
    batches: list[ColumnBatch] = []
    with _one_thread():
        for batch, characters in maker.batches(unit.documents()):
            staging.advance(characters)
            if batch is not None:
                batches.append(batch)
    record = {
        "dropped": dict(maker.dropped),
        "dropped_spans": dict(maker.dropped_spans),
        "encoded_tokens": maker.encoded,
        "unknown_tokens": maker.unknown,
    }
    if batches:
        record |= _write(unit, batches, tokenizer)
        _count_phrases(unit, rank, knowledge)
    write_checked_json(work / "records" / f"{unit.name}.json", record, advice=ADVICE)


def mark_phrases(units: Sequence[Unit], staging: StagingDirectory, tasks: int, rank: int) -> None:
    """Add the places of the chosen phrases to the shards number `rank`, `rank` + `tasks`, …

    Doing it twice, after a kill, changes nothing: phrases that stand there are not added to.
    """
    for unit in units[rank::tasks]:
        if unit.shard.exists():
            shard = Shard(unit.shard)
            taken = shard.spans["phrase"][0] if "phrase" in shard.spans else None
            words = phrases.phrase_words(shard, _lettered(unit.work))
            runs = phrases.find_phrases(words, load_chosen_phrases(unit.work), taken)
            if len(runs):
                documents = shard.sentences[shard.paragraphs[shard.documents]]
                add_columns(unit.shard, span_columns("phrase", runs, documents))
        staging.advance(unit.characters)


def _write(unit: Unit, batches: list[ColumnBatch], tokenizer: SubwordTokenizer) -> dict[str, Any]:
    """Write a shard; returns what its record says of it."""
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
        words = phrases.phrase_words(Shard(unit.shard), _lettered(unit.work))
        counts = phrases.count_ngrams(words, rank, knowledge.phrases.max_words)
        write_arrays(unit.counts, counts._asdict(), advice=ADVICE)


@lru_cache(maxsize=1)
def _loaded(folder: Path) -> SubwordTokenizer:
    return load_tokenizer(folder / "tokenizer.json")


@lru_cache(maxsize=1)
def _lettered(work: Path) -> NDArray[np.int8]:
    return np.asarray(np.load(work / "lettered.npy"))


@lru_cache(maxsize=1)
def load_chosen_phrases(work: Path) -> phrases.Phrases:
    """Return the phrases that were chosen, read once in a process."""
    with np.load(work / "phrases.npz") as columns:
        return phrases.Phrases(**columns)


@contextmanager
def _one_thread() -> Iterator[None]:
    """The tokeniser uses one thread: the other cores have workers of their own."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before
