"""The three pipeline steps of `prepare`: read the input, tokenise a unit, mark phrases in a shard.

Each reads and writes the staging directory and nothing else, and can be done again after a kill at any moment.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.pipeline.base import PipelineStep
from numpy.typing import NDArray

from ernie2.config.data_settings import KnowledgeSettings, ShardSettings
from ernie2.config.settings import Recipe
from ernie2.shards.columns import Batch, ColumnMaker, shard_columns
from ernie2.shards.knowledge import phrases
from ernie2.shards.knowledge.annotators import annotators
from ernie2.shards.staging import StagingDirectory
from ernie2.shards.store import HELDOUT, WHAT_NOW, Shard, add_columns, span_columns, write_shard
from ernie2.shards.units import ReadCorpus, load_read, read_corpora, read_unit
from ernie2.shards.wordpieces import WordPieces, load_wordpieces
from ernie2.storage.arrays import write_arrays
from ernie2.storage.json_files import write_checked_json
from ernie2.storage.removing import remove

_REPORTED_AT_ONCE = 1_000_000
"""Characters of input that are read before progress is recorded."""


class ReadInput(PipelineStep):  # type: ignore[misc]
    """Reads the corpora into units of work: one task."""

    type = "ernie2"
    name = "read"

    def __init__(self, recipe: Recipe, staging: StagingDirectory) -> None:
        super().__init__()
        self.recipe, self.staging = recipe, staging

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        """Writes `units/` and read.json."""
        read = 0

        def report(characters: int) -> None:
            nonlocal read
            read += characters
            if read >= _REPORTED_AT_ONCE:
                self.staging.advance(read)
                read = 0

        with self.staging.in_use():
            remove(self.staging.folder / "units", what_now=WHAT_NOW)
            read_corpora(self.recipe.corpora, self.recipe.shards, self.staging.folder, report)


class Tokenise(PipelineStep):  # type: ignore[misc]
    """Makes a shard of a unit, and counts its n-grams where phrases are mined."""

    type = "ernie2"
    name = "tokenise"

    def __init__(
        self,
        knowledge: KnowledgeSettings,
        settings: ShardSettings,
        units: Sequence[tuple[str, str]],
        staging: StagingDirectory,
    ) -> None:
        super().__init__()
        self.knowledge, self.settings, self.units, self.staging = knowledge, settings, units, staging

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        """Writes the shard, its record and its counts of unit number `rank`."""
        with self.staging.in_use(), _one_thread():
            work = self.staging.folder
            name, unit = self.units[rank]
            corpus = next(corpus for corpus in load_read(work) if corpus.name == name)
            wordpieces = _loaded(work / "set")
            marking = annotators(self.knowledge, corpus.language)
            pairs = bool(corpus.labels)
            maker = ColumnMaker(wordpieces, corpus.language, marking, self.settings, pairs=pairs)
            batches: list[Batch] = []
            for batch, characters in maker.batches(read_unit(work / "units" / f"{unit}.jsonl.zst")):
                self.staging.advance(characters)
                if batch is not None:
                    batches.append(batch)
            record = {
                "dropped": dict(maker.dropped),
                "dropped_spans": dict(maker.dropped_spans),
                "encoded_tokens": maker.encoded,
                "unknown_tokens": maker.unknown,
            }
            if batches:
                record |= self._write(corpus, unit, batches, wordpieces, rank)
            write_checked_json(work / "records" / f"{unit}.json", record, what_now=WHAT_NOW)

    def _write(
        self, corpus: ReadCorpus, unit: str, batches: list[Batch], wordpieces: WordPieces, rank: int
    ) -> dict[str, Any]:
        work = self.staging.folder
        split = [corpus.split(group) for batch in batches for group in batch.groups]
        columns = shard_columns(batches, split, corpus.labels)
        names = [name for batch in batches for name in batch.names]
        facts: dict[str, Any] = {"corpus": corpus.name, "tokenizer": wordpieces.fingerprint}
        if corpus.labels:
            facts["labels"] = corpus.labels
        write_shard(work / "set" / corpus.name / unit, columns, names, facts)
        if self.knowledge.phrases is not None:
            words = phrases.words_of(Shard(work / "set" / corpus.name / unit), _lettered(work))
            counts = phrases.count(words, rank, self.knowledge.phrases.max_words)
            write_arrays(work / "counts" / f"{unit}.npz", counts.columns(), what_now=WHAT_NOW)
        first = np.concatenate([batch.first_sections for batch in batches])
        counted = np.bincount(columns["label"], minlength=len(corpus.labels)).tolist() if corpus.labels else []
        return {
            "shard": unit,
            "label_counts": counted,
            "documents": int(first.sum()),
            "heldout_documents": int((first & (columns["split"] == HELDOUT)).sum()),
        }


class MarkPhrases(PipelineStep):  # type: ignore[misc]
    """Adds the places of the chosen phrases to a shard."""

    type = "ernie2"
    name = "mark"

    def __init__(self, units: Sequence[tuple[str, str]], sizes: Sequence[int], staging: StagingDirectory) -> None:
        super().__init__()
        self.units, self.sizes, self.staging = units, sizes, staging

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        """Adds the columns of kind phrase to the shards number `rank`, `rank` + `world_size`, …"""
        with self.staging.in_use():
            for number in range(rank, len(self.units), world_size):
                self._mark(*self.units[number])
                self.staging.advance(self.sizes[number])

    def _mark(self, corpus: str, unit: str) -> None:
        """Marks one shard; doing it twice, after a kill, changes nothing: phrases that stand there are not added to."""
        work = self.staging.folder
        folder = work / "set" / corpus / unit
        if not folder.exists():
            return
        shard = Shard(folder)
        taken = shard.spans["phrase"][0] if "phrase" in shard.spans else None
        runs = phrases.mark(phrases.words_of(shard, _lettered(work)), chosen_phrases(work), taken)
        if len(runs):
            add_columns(folder, span_columns("phrase", runs, shard.sentences[shard.paragraphs[shard.documents]]))


@lru_cache(maxsize=1)
def _loaded(folder: Path) -> WordPieces:
    return load_wordpieces(folder / "tokenizer.json")


@lru_cache(maxsize=1)
def _lettered(work: Path) -> NDArray[np.int8]:
    lettered: NDArray[np.int8] = np.load(work / "lettered.npy")
    return lettered


@lru_cache(maxsize=1)
def chosen_phrases(work: Path) -> phrases.Phrases:
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
