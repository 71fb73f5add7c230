"""Prepare a dataset: read corpora, tokenise, mine and mark phrases, write shards and their manifest.

    read      one pass over the input: units of work, duplicates dropped, the split drawn     (units.py)
    tokenise  every unit: sentences, tokens, flags, counts, spans → a shard; n-grams counted  (columns.py)
    phrases   the n-grams worth marking, from train documents only                  (knowledge/phrases.py)
    mark      every shard: their positions, as spans of kind phrase

All stages write to a staging directory inside the shards folder, named by a fingerprint of recipe, input files and
tokeniser: a killed run is continued only if these are the same. At the end the files are moved into place and
`shards.json` is written last. If an older dataset is replaced, its `shards.json` is removed first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ernie2.config.data_settings import PhraseSettings
from ernie2.config.settings import Recipe
from ernie2.console import log_warning
from ernie2.errors import ConfigError, DataError, Ernie2Error, StorageError, TokenizerError
from ernie2.processes import cores
from ernie2.shards.executor import Progress, run_tasks, start_fork_server
from ernie2.shards.input_files import InputFiles, read_input_files
from ernie2.shards.knowledge import phrases
from ernie2.shards.knowledge.annotators import build_annotators
from ernie2.shards.knowledge.characters import JOINS, LETTER, character_classes
from ernie2.shards.manifest import commit, describe, finish
from ernie2.shards.pipeline import Unit, list_units, load_chosen_phrases, mark_phrases, read_input, tokenise
from ernie2.shards.provenance import digest, digest_parts, find_matching_shards, load_recipe_tokenizer
from ernie2.shards.staging import StagingDirectory
from ernie2.shards.store import ADVICE, TRAIN, Shards
from ernie2.shards.tokenizer import SubwordTokenizer, load_tokenizer, train_tokenizer
from ernie2.shards.units import load_corpora
from ernie2.shards.unknown_tokens import check_sample, check_share
from ernie2.storage.arrays import write_array, write_arrays
from ernie2.storage.atomic import remove_leftovers, storage_errors, write_text
from ernie2.storage.readers import writer_lock
from ernie2.storage.removing import discard

Report = Callable[[Progress], None]

MARK_TASK_CHARACTERS = 4_000_000
"""Characters per unit of parallel work in the stage "mark"."""
TRAINING_CHARACTERS = 200_000_000
"""Maximum text to train a vocabulary on, spread evenly over the train documents."""


def prepare(
    recipe: Recipe, workers: int | None = None, progress: Report | None = None, *, replace: bool = False
) -> Shards:
    """Build the shards of a recipe and return them; shards that exist and match are reused.

    `workers`: number of processes, default all cores; the result does not depend on it. `progress` is called repeatedly
    during the stages "read", "vocabulary", "tokenise", "phrases" and "mark", or with "unchanged" if the shards match.
    A killed run is continued. `replace`: replace a dataset built from something else once the new one is complete.

    Raises `ShardError` if the folder contains another dataset and `replace` is false, `FolderInUse` if a process reads
    the dataset to be replaced, `DataError`, `TokenizerError`, `ConfigError` for unusable input, `StorageError` if
    writing fails, `RunFailed` if a worker is killed.
    """
    report = progress or (lambda _: None)
    folder = Path(recipe.shards.folder)
    if folder.exists() and not folder.is_dir():
        raise StorageError(f"shards.folder: {folder} is a file; name a folder.")
    for corpus in recipe.corpora.values():
        build_annotators(recipe.knowledge, corpus.language)  # report errors before any work
    loaded = load_recipe_tokenizer(recipe)
    for note in loaded.notes if loaded is not None else ():
        log_warning(note)
    inputs = read_input_files(recipe, folder)
    parts = digest_parts(recipe, loaded, inputs)
    staging = StagingDirectory(folder / f".prepare-{digest(parts)[:16]}")
    existing = find_matching_shards(folder, parts, inputs.states, replace=replace)
    if existing is not None:
        remove_leftovers(folder)
        if staging.folder.exists():  # an earlier removal failed or was interrupted
            with suppress(StorageError), staging.locked():
                discard(staging.folder)
        return _reuse(existing, recipe, inputs, report)
    if (folder / "shards.json").exists():
        with _exclusive_folder(folder):
            pass  # raise now instead of after hours of work
    workers = workers or cores()
    if workers > 1:
        start_fork_server()
    input_error: Ernie2Error | None = None
    with staging.locked():
        # another run may have built them while this one waited for the lock
        if (existing := find_matching_shards(folder, parts, inputs.states, replace=replace)) is not None:
            discard(staging.folder)
            return _reuse(existing, recipe, inputs, report)
        for old in folder.glob(".prepare-*"):
            if old != staging.folder:
                discard(old)
        try:
            if not (staging.folder / "finished.json").exists():
                manifest = {**_build(recipe, loaded, parts, staging, workers, report), "inputs": dict(inputs.states)}
                with storage_errors(folder, advice=ADVICE):
                    finish(folder, staging.folder, manifest)
            with _exclusive_folder(folder):
                commit(folder, staging.folder)
        except (DataError, TokenizerError, ConfigError) as error:
            input_error = error  # discard the staged files: the same input would fail again
        discard(staging.folder)
    if input_error is not None:
        with suppress(OSError):
            folder.rmdir()  # only if empty
        raise input_error
    inputs.save_hashes(folder)
    return Shards(folder)


def _reuse(existing: Shards, recipe: Recipe, inputs: InputFiles, report: Report) -> Shards:
    inputs.save_hashes(existing.folder)
    _check_unknown_share(existing.facts, recipe)
    report(Progress("unchanged", 0, 0))
    return existing


@contextmanager
def _exclusive_folder(folder: Path) -> Iterator[None]:
    """Lock the folder for replacing its shards.

    Raises `FolderInUse` if a process reads them, `StorageError` if writing fails.
    """
    with storage_errors(folder, advice=ADVICE), writer_lock(folder, alternative="choose another shards.folder"):
        yield


def _build(
    recipe: Recipe,
    loaded: SubwordTokenizer | None,
    parts: Mapping[str, str],
    staging: StagingDirectory,
    workers: int,
    report: Report,
) -> dict[str, Any]:
    """Run all stages in the staging directory; return the content of shards.json."""
    folder = staging.folder

    def stage(name: str, total: int | None) -> Callable[[int], None]:
        return lambda done: report(Progress(name, done, total))

    run_tasks("read", partial(read_input, recipe, staging), [0], 1, staging, stage("read", None))
    corpora = load_corpora(folder)
    units = list_units(corpora, folder)
    sizes = [unit.characters for unit in units]
    tokenizer = _stage_tokenizer(recipe, loaded, units, folder, stage("vocabulary", sum(sizes)))
    with storage_errors(folder.parent, advice=ADVICE):
        for name, corpus_units in groupby(units, key=lambda unit: unit.corpus.name):
            check_sample(name, next(corpus_units).documents(), tokenizer, recipe.tokenizer.max_unknown)
    tokenising = partial(tokenise, recipe.knowledge, recipe.shards, units, staging)
    run_tasks("tokenise", tokenising, sizes, workers, staging, stage("tokenise", sum(sizes)))
    phrase_count = 0
    if recipe.knowledge.phrases is not None and (folder / "counts").exists():  # if not, `describe` raises
        report(Progress("phrases", 0, sum(sizes)))
        with storage_errors(folder.parent, advice=ADVICE):
            phrase_count = _choose_phrases(recipe.knowledge.phrases, tokenizer, units, folder)
        tasks = max(1, min(len(units), sum(sizes) // MARK_TASK_CHARACTERS))  # a unit alone is too small
        shares = [sum(sizes[task::tasks]) for task in range(tasks)]
        marking = partial(mark_phrases, units, staging, tasks)
        run_tasks("mark", marking, shares, workers, staging, stage("mark", sum(sizes)))
    with storage_errors(folder.parent, advice=ADVICE):
        manifest = describe(corpora, tokenizer, parts, phrase_count, folder)
    _check_unknown_share(manifest, recipe)
    return manifest


def _check_unknown_share(manifest: Mapping[str, Any], recipe: Recipe) -> None:
    for name, facts in manifest["corpora"].items():
        check_share(name, facts["unknown_share"], recipe.tokenizer.max_unknown)


def _stage_tokenizer(
    recipe: Recipe, loaded: SubwordTokenizer | None, units: Sequence[Unit], folder: Path, report: Callable[[int], None]
) -> SubwordTokenizer:
    """Load or train the tokeniser, save it for the workers and return it."""
    saved = folder / "set" / "tokenizer.json"
    tokenizer = loaded
    if not saved.exists():
        if tokenizer is None:
            assert recipe.tokenizer.train is not None
            texts = _training_texts(units, report)
            tokenizer = train_tokenizer(texts, recipe.tokenizer.train, recipe.tokenizer.lowercase is not False)
        tokenizer.save(folder / "set")
    tokenizer = tokenizer or load_tokenizer(saved)
    if not (folder / "lettered.npy").exists():
        write_array(folder / "lettered.npy", phrases.classify_tokens(tokenizer), advice=ADVICE)
    return tokenizer


def _training_texts(units: Sequence[Unit], report: Callable[[int], None]) -> Iterator[str]:
    """Yield the texts of train documents, or of every n-th if there are more than `TRAINING_CHARACTERS`."""
    every = max(1, -(-sum(unit.characters for unit in units) // TRAINING_CHARACTERS))
    number = done = 0
    for unit in units:
        for document in unit.documents():
            done += len(document.text)
            if unit.corpus.split(document.group) == TRAIN:
                if number % every == 0:
                    yield document.text
                number += 1
        report(done)


def _choose_phrases(settings: PhraseSettings, tokenizer: SubwordTokenizer, units: Sequence[Unit], folder: Path) -> int:
    """Merge the counts of all shards; write the chosen phrases for workers and as a table; return their number."""
    if (folder / "phrases.npz").exists():
        return len(load_chosen_phrases(folder).hashes)

    def counts_of_shards() -> Iterator[phrases.Counts]:
        for unit in units:
            if unit.counts.exists():
                with np.load(unit.counts) as columns:
                    yield phrases.Counts(**columns)

    chosen = phrases.select_phrases(phrases.merge_counts(counts_of_shards()), settings)

    @lru_cache(maxsize=64)
    def tokens(shard: int) -> NDArray[Any]:
        return np.load(units[shard].shard / "tokens.npy", mmap_mode="r")  # type: ignore[no-any-return]

    lines = ["phrase\tcount\tnpmi\n"]
    rows = zip(chosen.places.tolist(), chosen.counts.tolist(), chosen.npmi.tolist(), strict=True)
    for (shard, first, end), count, npmi in rows:
        phrase = _join_unspaced(tokenizer.decode(tokens(shard)[first:end]))
        lines.append(f"{phrase}\t{count}\t{npmi:.4f}\n")
    write_text(folder / "set" / "phrases.tsv", "".join(lines), advice=ADVICE)
    write_arrays(folder / "phrases.npz", chosen._asdict(), advice=ADVICE)
    return len(chosen.hashes)


def _join_unspaced(text: str) -> str:
    """Remove the spaces that decoding inserts between characters of unspaced scripts: 物 理 学 -> 物理学."""
    if text.isascii():
        return text
    classes = character_classes(text)
    unspaced = ((classes & LETTER) > 0) & ((classes & JOINS) == 0)
    inner = range(1, len(text) - 1)
    spaces = {i for i in inner if text[i] == " " and unspaced[i - 1] and unspaced[i + 1]}
    return "".join(character for i, character in enumerate(text) if i not in spaces)
