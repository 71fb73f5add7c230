"""Corpora become shards: the steps, run by datatrove, and the manifest that says what came of them.

    read      one pass over the input: units of work, duplicates dropped, the split drawn     (units.py)
    tokenise  every unit: sentences, tokens, flags, counts, spans → a shard; n-grams counted  (columns.py)
    phrases   the n-grams worth marking, from train documents only                            (phrases.py)
    mark      every shard: their places, as spans of kind phrase

All of it happens in a work folder inside the shards folder, named by a fingerprint of recipe parts, input files and
tokeniser, so work is only ever taken up again where it is the same work. At the end everything is moved into place and
`shards.json` is written last; it is removed first where it replaces an older set.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
from datatrove.pipeline.base import PipelineStep
from numpy.typing import NDArray

from ernie2.annotate import phrases
from ernie2.annotate.columns import Batch, ColumnMaker, shard_columns
from ernie2.annotate.jobs import Progress, Workplace, run_tasks, warm_up, writing
from ernie2.annotate.knowledge import annotators
from ernie2.annotate.shards import FORMAT, HELDOUT, TRAIN, Shard, Shards, add_columns, span_columns, write_shard
from ernie2.annotate.units import ReadCorpus, load_read, read_corpora, read_unit
from ernie2.annotate.wordpieces import WordPieces, load_wordpieces, train_wordpieces
from ernie2.corpora.documents import resolve
from ernie2.errors import DataError, ShardError, StorageError
from ernie2.settings import KnowledgeSettings, Recipe, ShardSettings

Report = Callable[[Progress], None]

STEPS = 1
"""Goes up when the same input would give other shards; part of the fingerprint of the work."""
SAMPLE_CHARACTERS = 200_000_000
"""Text a vocabulary is trained on at most, spread evenly over the train documents."""

_OWN_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "phrases.tsv")


def prepare(recipe: Recipe, workers: int | None = None, progress: Report | None = None) -> Shards:
    """Makes the shards of a recipe and returns them; where they are there already, made of the same, does nothing.

    `workers`: processes, default all cores; the result does not depend on it. `progress` is told of the stages "read",
    "vocabulary", "tokenise", "phrases" and "mark" as they go on, and of "unchanged" where there was nothing to do. A run
    that was killed goes on where it was. An older set in the same folder is replaced when the new one is whole.

    Raises `DataError`, `TokenizerError`, `ConfigError` for input that cannot be used, `StorageError` when writing fails,
    `RunFailed` when a worker is killed.
    """
    report = progress or (lambda _: None)
    folder = Path(recipe.shards.folder)
    if folder.exists() and not folder.is_dir():
        raise StorageError(f"shards.folder: {folder} is a file; name a folder.")
    for corpus in recipe.corpora.values():
        annotators(recipe.knowledge, corpus.language)  # so that what is wrong with one is said before any work
    given = None if recipe.tokenizer.file is None else load_wordpieces(recipe.tokenizer.file, recipe.tokenizer.lowercase)
    key = _fingerprint(recipe, given)
    if (ready := _ready(folder, key)) is not None:
        report(Progress("unchanged", 0, 0))
        return ready
    workers = workers or _cores()
    if workers > 1:
        warm_up()
    place = Workplace(folder / f".prepare-{key[:16]}")
    with place.owned():
        for old in folder.glob(".prepare-*"):
            if old != place.folder:
                shutil.rmtree(old, ignore_errors=True)
        if not (place.folder / "finished.json").exists():
            manifest = _make(recipe, given, key, place, workers, report)
            with writing(folder):
                entries = sorted(entry.name for entry in (place.folder / "set").iterdir())
                finished = {"manifest": manifest, "entries": entries, "old": _old_corpora(folder)}
                _write_json(place.folder / "finished.json", finished)
        with writing(folder):
            _commit(folder, place.folder)
    shutil.rmtree(place.folder, ignore_errors=True)
    return Shards(folder)


def _make(
    recipe: Recipe, given: WordPieces | None, key: str, place: Workplace, workers: int, report: Report
) -> dict[str, Any]:
    """Does all the work inside the work folder; returns what goes into shards.json."""
    work = place.folder

    def stage(name: str, total: int | None) -> Callable[[int], None]:
        return lambda done: report(Progress(name, done, total))

    run_tasks(ReadInput(recipe, place), [0], 1, work / "jobs" / "read", place, stage("read", None))
    corpora = load_read(work)
    wordpieces = _tokenizer(recipe, given, corpora, work, stage("vocabulary", sum(c.characters for c in corpora)))
    units = [(corpus.name, unit) for corpus in corpora for unit in corpus.units]
    sizes = [characters for corpus in corpora for characters in corpus.unit_characters]
    tokenise = Tokenise(recipe.knowledge, recipe.shards, units, place)
    run_tasks(tokenise, sizes, workers, work / "jobs" / "tokenise", place, stage("tokenise", sum(sizes)))
    found = 0
    if recipe.knowledge.phrases is not None:
        report(Progress("phrases", 0, sum(sizes)))
        with writing(work.parent):
            found = _choose_phrases(recipe.knowledge.phrases, wordpieces, units, work)
        mark = MarkPhrases(units, place)
        run_tasks(mark, sizes, workers, work / "jobs" / "mark", place, stage("mark", sum(sizes)))
    with writing(work.parent):
        return _manifest(corpora, wordpieces, key, found, work)


class ReadInput(PipelineStep):  # type: ignore[misc]
    """Reads the corpora into units of work: one task."""

    type = "ernie2"
    name = "read"

    def __init__(self, recipe: Recipe, place: Workplace) -> None:
        super().__init__()
        self.recipe, self.place = recipe, place

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        """Writes `units/` and read.json."""
        told = 0

        def seen(characters: int) -> None:
            nonlocal told
            if characters - told >= 1_000_000:
                self.place.advance(characters - told)
                told = characters

        with self.place.at_work(), _database_errors(self.place.folder.parent):
            units = self.place.folder / "units"
            shutil.rmtree(units, ignore_errors=True)
            units.mkdir(parents=True)
            read_corpora(self.recipe.corpora, self.recipe.shards, self.place.folder, seen)


class Tokenise(PipelineStep):  # type: ignore[misc]
    """Makes a shard of a unit, and counts its n-grams where phrases are mined."""

    type = "ernie2"
    name = "tokenise"

    def __init__(
        self, knowledge: KnowledgeSettings, settings: ShardSettings, units: Sequence[tuple[str, str]], place: Workplace
    ) -> None:
        super().__init__()
        self.knowledge, self.settings, self.units, self.place = knowledge, settings, units, place

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        """Writes the shard, its record and its counts of unit number `rank`."""
        with self.place.at_work(), _one_thread():
            work = self.place.folder
            name, unit = self.units[rank]
            corpus = next(corpus for corpus in load_read(work) if corpus.name == name)
            wordpieces = _loaded(work / "set")
            maker = ColumnMaker(wordpieces, corpus.language, annotators(self.knowledge, corpus.language), self.settings)
            batches: list[Batch] = []
            for batch, characters in maker.batches(read_unit(work / "units" / f"{unit}.jsonl.zst")):
                self.place.advance(characters)
                if batch is not None:
                    batches.append(batch)
            record = _unit_record(maker)
            if batches:
                record |= self._write(corpus, unit, batches, wordpieces, rank)
            _write_json(work / "records" / f"{unit}.json", record)

    def _write(
        self, corpus: ReadCorpus, unit: str, batches: list[Batch], wordpieces: WordPieces, rank: int
    ) -> dict[str, Any]:
        work = self.place.folder
        split = [corpus.split(group) for batch in batches for group in batch.groups]
        columns = shard_columns(batches, split)
        names = [name for batch in batches for name in batch.names]
        facts = {"corpus": corpus.name, "tokenizer": wordpieces.fingerprint}
        write_shard(work / "set" / corpus.name / unit, columns, names, facts)
        if self.knowledge.phrases is not None:
            words = phrases.words_of(Shard(work / "set" / corpus.name / unit), _lettered(work))
            counts = phrases.count(words, rank, self.knowledge.phrases.max_words)
            (work / "counts").mkdir(exist_ok=True)
            with (work / "counts" / f"{unit}.npz").open("wb") as handle:
                np.savez(handle, **counts.columns())
        first = np.concatenate([batch.first_sections for batch in batches])
        return {
            "shard": unit,
            "documents": int(first.sum()),
            "heldout_documents": int((first & (columns["split"] == HELDOUT)).sum()),
        }


class MarkPhrases(PipelineStep):  # type: ignore[misc]
    """Adds the places of the chosen phrases to a shard."""

    type = "ernie2"
    name = "mark"

    def __init__(self, units: Sequence[tuple[str, str]], place: Workplace) -> None:
        super().__init__()
        self.units, self.place = units, place

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        """Adds the columns of kind phrase to shard number `rank`."""
        with self.place.at_work():
            work = self.place.folder
            corpus, unit = self.units[rank]
            folder = work / "set" / corpus / unit
            if not folder.exists():
                return
            shard = Shard(folder)
            chosen = _chosen(work)
            taken = shard.spans["phrase"][0] if "phrase" in shard.spans else None
            runs = phrases.mark(phrases.words_of(shard, _lettered(work)), chosen, taken)
            if len(runs):
                add_columns(folder, span_columns("phrase", runs, shard.sentences[shard.paragraphs[shard.documents]]))


def _fingerprint(recipe: Recipe, given: WordPieces | None) -> str:
    """SHA-256 of all the shards depend on: recipe parts, files by path, size and time, tokeniser, gazetteer."""
    files = {name: [_file_facts(file) for file in resolve(corpus)] for name, corpus in recipe.corpora.items()}
    gazetteer = recipe.knowledge.gazetteer
    described = {
        "format": FORMAT,
        "steps": STEPS,
        "corpora": {name: corpus.model_dump(exclude={"weight"}) for name, corpus in recipe.corpora.items()},
        "files": files,
        "tokenizer": given.fingerprint if given is not None else recipe.tokenizer.model_dump(),
        "knowledge": recipe.knowledge.model_dump(),
        "gazetteer": None if gazetteer is None else _file_facts(gazetteer),
        "shards": recipe.shards.model_dump(exclude={"folder"}),
    }
    return sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()


def _file_facts(file: str) -> list[Any]:
    """Path, size and what else tells one state of a file from another."""
    system, inner = fsspec.core.url_to_fs(file)
    try:
        info = system.info(inner)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}.") from error
    changed = next((info[name] for name in ("mtime", "ETag", "etag", "LastModified", "updated") if name in info), None)
    return [str(inner), info.get("size"), changed]


def _ready(folder: Path, key: str) -> Shards | None:
    """The shards of `folder` where they are whole and were made of just this."""
    try:
        shards = Shards(folder)
    except ShardError:
        return None
    return shards if shards.facts.get("made_from") == key else None


def _tokenizer(
    recipe: Recipe, given: WordPieces | None, corpora: list[ReadCorpus], work: Path, report: Callable[[int], None]
) -> WordPieces:
    """The tokeniser, saved for the workers; trained on train documents where the recipe says so."""
    saved = work / "set" / "tokenizer.json"
    if not saved.exists():
        if given is None:
            assert recipe.tokenizer.train is not None
            texts = _train_texts(corpora, work, report)
            given = train_wordpieces(texts, recipe.tokenizer.train, recipe.tokenizer.lowercase)
        given.save(work / "set")
    wordpieces = given or load_wordpieces(saved)
    if not (work / "lettered.npy").exists():
        tokens = [wordpieces.decode([identity]) for identity in range(wordpieces.vocab_size)]
        lettered = np.array([any(map(str.isalpha, token)) for token in tokens], dtype=np.bool_)
        lettered[sorted(wordpieces.special_ids)] = False
        with writing(work.parent):
            np.save(work / "lettered.npy", lettered)
    return wordpieces


def _train_texts(corpora: list[ReadCorpus], work: Path, report: Callable[[int], None]) -> Iterator[str]:
    """Texts of train documents: all of them, or every n-th where there are more than a vocabulary needs."""
    every = max(1, -(-sum(corpus.characters for corpus in corpora) // SAMPLE_CHARACTERS))
    number = done = 0
    for corpus in corpora:
        for unit in corpus.units:
            for document in read_unit(work / "units" / f"{unit}.jsonl.zst"):
                done += len(document.text)
                if corpus.split(document.group) != TRAIN:
                    continue
                if number % every == 0:
                    yield document.text
                number += 1
            report(done)


@lru_cache(maxsize=1)
def _loaded(folder: Path) -> WordPieces:
    return load_wordpieces(folder / "tokenizer.json")


@lru_cache(maxsize=1)
def _lettered(work: Path) -> NDArray[np.bool_]:
    lettered: NDArray[np.bool_] = np.load(work / "lettered.npy")
    return lettered


@lru_cache(maxsize=1)
def _chosen(work: Path) -> phrases.Phrases:
    with np.load(work / "phrases.npz") as columns:
        return phrases.Phrases(**columns)


def _choose_phrases(settings: Any, wordpieces: WordPieces, units: Sequence[tuple[str, str]], work: Path) -> int:
    """Merges the counts of all shards, in their order, and writes the phrases for the workers and for a person to read."""
    if (work / "phrases.npz").exists():
        return len(_chosen(work))

    def parts() -> Iterator[phrases.Counts]:
        for _, unit in units:
            file = work / "counts" / f"{unit}.npz"
            if file.exists():
                with np.load(file) as columns:
                    yield phrases.Counts.of(columns)

    chosen = phrases.choose(phrases.merged(parts()), settings)
    tokens = _Tokens(units, work)
    lines = ["phrase\tcount\tnpmi\n"]
    for place, count, npmi in zip(chosen.places.tolist(), chosen.counts.tolist(), chosen.npmi.tolist(), strict=True):
        lines.append(f"{wordpieces.decode(tokens.at(*place))}\t{count}\t{npmi:.4f}\n")
    (work / "set" / "phrases.tsv").write_text("".join(lines), encoding="utf-8")
    columns = {name: getattr(chosen, name) for name in chosen.__slots__}
    with (work / "phrases.npz.tmp").open("wb") as handle:
        np.savez(handle, **columns)
    os.replace(work / "phrases.npz.tmp", work / "phrases.npz")
    return len(chosen)


class _Tokens:
    """Tokens of shards by place, each shard opened once."""

    def __init__(self, units: Sequence[tuple[str, str]], work: Path) -> None:
        self._units, self._work = units, work
        self._open = lru_cache(maxsize=64)(self._load)

    def _load(self, shard: int) -> NDArray[Any]:
        corpus, unit = self._units[shard]
        tokens: NDArray[Any] = np.load(self._work / "set" / corpus / unit / "tokens.npy", mmap_mode="r")
        return tokens

    def at(self, shard: int, first: int, end: int) -> list[int]:
        """Token ids [first, end) of a shard."""
        ids: list[int] = self._open(shard)[first:end].tolist()
        return ids


def _unit_record(maker: ColumnMaker) -> dict[str, Any]:
    return {"dropped": dict(maker.dropped), "dropped_spans": dict(maker.dropped_spans)}


def _manifest(corpora: list[ReadCorpus], wordpieces: WordPieces, key: str, found: int, work: Path) -> dict[str, Any]:
    """What shards.json holds. Its fingerprint is one of content: the same wherever and whenever the shards are made."""
    content = sha256(wordpieces.fingerprint.encode())
    described = {}
    for corpus in corpora:
        described[corpus.name] = _corpus_facts(corpus, work)
        for name in described[corpus.name]["shards"]:
            content.update((work / "set" / corpus.name / name / "shard.json").read_bytes())
    return {
        "format": FORMAT,
        "fingerprint": content.hexdigest(),
        "made_from": key,
        "tokenizer": wordpieces.fingerprint,
        "vocab_size": wordpieces.vocab_size,
        "phrases": found,
        "corpora": described,
    }


def _corpus_facts(corpus: ReadCorpus, work: Path) -> dict[str, Any]:
    dropped, dropped_spans, spans = Counter(corpus.dropped), Counter[str](), Counter[str]()
    totals = Counter[str]()
    names = []
    for unit in corpus.units:
        record = json.loads((work / "records" / f"{unit}.json").read_text(encoding="utf-8"))
        dropped.update(record["dropped"])
        dropped_spans.update(record["dropped_spans"])
        if "shard" not in record:
            continue
        names.append(unit)
        totals.update({name: record[name] for name in ("documents", "heldout_documents")})
        columns = json.loads((work / "set" / corpus.name / unit / "shard.json").read_text(encoding="utf-8"))["columns"]
        lengths = {name: column["shape"][0] for name, column in columns.items()}
        totals.update(
            sections=lengths["documents"] - 1,
            paragraphs=lengths["paragraphs"] - 1,
            sentences=lengths["sentences"] - 1,
            tokens=lengths["tokens"],
        )
        spans.update({k.removeprefix("spans_"): n for k, n in lengths.items() if k.startswith("spans_") and k[-3:] != "_at"})
    if not names:
        reasons = ", ".join(f"{reason}: {number}" for reason, number in sorted(dropped.items()))
        raise DataError(f"corpora.{corpus.name}: nothing is left of {', '.join(corpus.sources)} ({reasons}); another vocabulary?")
    return {
        "language": corpus.language,
        "licence": corpus.licence,
        "sources": corpus.sources,
        "shards": names,
        **{name: totals[name] for name in ("documents", "heldout_documents", "sections", "paragraphs", "sentences", "tokens")},
        "spans": dict(sorted(spans.items())),
        "dropped": dict(sorted(dropped.items())),
        "dropped_spans": dict(sorted(dropped_spans.items())),
    }


def _commit(folder: Path, work: Path) -> None:
    """Moves the finished set into place. Without shards.json it is no set: that goes first and comes last.

    Killed half-way, it can be begun again: what is to be moved is known from work/finished.json.
    """
    finished = json.loads((work / "finished.json").read_text(encoding="utf-8"))
    entries = set(finished["entries"])
    for name in entries:
        if (work / "set" / name).is_dir():
            _refuse_strange(folder / name)
    (folder / "shards.json").unlink(missing_ok=True)
    for name in finished["old"]:
        if name not in entries:
            shutil.rmtree(folder / name, ignore_errors=True)
    for name in _OWN_FILES:
        if name not in entries:
            (folder / name).unlink(missing_ok=True)
    for name in sorted(entries):
        source = work / "set" / name
        if not source.exists():
            continue
        if source.is_dir() and (folder / name).exists():
            shutil.rmtree(folder / name)
        os.replace(source, folder / name)
    _write_json(folder / "shards.json", finished["manifest"])


def _old_corpora(folder: Path) -> list[str]:
    try:
        return list(Shards(folder).corpora)
    except ShardError:
        return []


def _refuse_strange(folder: Path) -> None:
    """Raises `StorageError` where a folder that is to be replaced holds anything but shards."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        if not (entry / "shard.json").exists():
            raise StorageError(
                f"{entry} is in the way: the shards of a corpus go into {folder}, which holds something else. Choose another "
                "shards.folder or another name for the corpus."
            )


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(file.name + ".tmp")
    aside.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(aside, file)


@contextmanager
def _database_errors(place: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StorageError(f"{place}: {error}. Free space or choose another shards.folder, then run the same again.") from error


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


def _cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
