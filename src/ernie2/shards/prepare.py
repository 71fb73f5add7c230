"""Prepare a dataset: read corpora, tokenise, mine and mark phrases, write shards and their manifest.

    read      one pass over the input: units of work, duplicates dropped, the split drawn     (units.py)
    tokenise  every unit: sentences, tokens, flags, counts, spans → a shard; n-grams counted  (columns.py)
    phrases   the n-grams worth marking, from train documents only                  (knowledge/phrases.py)
    mark      every shard: their places, as spans of kind phrase

All of it happens in a staging directory inside the shards folder, named by a fingerprint of recipe parts, input files
and tokeniser, so work is only ever taken up again where it is the same work. At the end everything is moved into place
and `shards.json` is written last; it is removed first where it replaces an older set.
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

MARKED_AT_ONCE = 4_000_000
"""Characters of a task that marks phrases."""
SAMPLE_CHARACTERS = 200_000_000
"""Text a vocabulary is trained on at most, spread evenly over the train documents."""


def prepare(
    recipe: Recipe, workers: int | None = None, progress: Report | None = None, *, replace: bool = False
) -> Shards:
    """Makes the shards of a recipe and returns them; where they are there already, made of the same, does nothing.

    `workers`: processes, default all cores; the result does not depend on it. `progress` is called for the stages
    "read", "vocabulary", "tokenise", "phrases" and "mark" as they go on, and for "unchanged" where there was nothing to
    do. A run that was killed goes on where it was. With `replace`, a set made from something else is
    replaced when the new one is whole.

    Raises `ShardError` where the folder holds another set and `replace` is not given, `FolderInUse` where a process
    reads the set that is to be replaced, `DataError`, `TokenizerError`,
    `ConfigError` for input that cannot be used, `StorageError` when writing
    fails, `RunFailed` when a worker is killed.
    """
    report = progress or (lambda _: None)
    folder = Path(recipe.shards.folder)
    if folder.exists() and not folder.is_dir():
        raise StorageError(f"shards.folder: {folder} is a file; name a folder.")
    for corpus in recipe.corpora.values():
        build_annotators(recipe.knowledge, corpus.language)  # so that what is wrong with one is said before any work
    given = load_recipe_tokenizer(recipe)
    for note in given.notes if given is not None else ():
        log_warning(note)
    inputs = read_input_files(recipe, folder)
    parts = digest_parts(recipe, given, inputs)
    staging = StagingDirectory(folder / f".prepare-{digest(parts)[:16]}")
    ready = find_matching_shards(folder, parts, inputs.states, replace=replace)
    if ready is not None:
        remove_leftovers(folder)
        if staging.folder.exists():  # the disk did not let it go, or a kill came first
            with suppress(StorageError), staging.locked():
                discard(staging.folder)
        return _unchanged(ready, recipe, inputs, report)
    if (folder / "shards.json").exists():
        with _replacing(folder):
            pass  # refused now, not after hours of work
    workers = workers or cores()
    if workers > 1:
        start_fork_server()
    refused: Ernie2Error | None = None
    with staging.locked():
        # another run may have made them while this one waited for the lock
        if (ready := find_matching_shards(folder, parts, inputs.states, replace=replace)) is not None:
            discard(staging.folder)
            return _unchanged(ready, recipe, inputs, report)
        for old in folder.glob(".prepare-*"):
            if old != staging.folder:
                discard(old)
        try:
            if not (staging.folder / "finished.json").exists():
                manifest = {**_make(recipe, given, parts, staging, workers, report), "inputs": dict(inputs.states)}
                with storage_errors(folder, advice=ADVICE):
                    finish(folder, staging.folder, manifest)
            with _replacing(folder):
                commit(folder, staging.folder)
        except (DataError, TokenizerError, ConfigError) as error:
            refused = error  # what was made is of no use: the same input would fail again
        discard(staging.folder)
    if refused is not None:
        with suppress(OSError):
            folder.rmdir()  # only where nothing else is in it
        raise refused
    inputs.save_hashes(folder)
    return Shards(folder)


def _unchanged(ready: Shards, recipe: Recipe, inputs: InputFiles, report: Report) -> Shards:
    inputs.save_hashes(ready.folder)
    _check_unknown(ready.facts, recipe)
    report(Progress("unchanged", 0, 0))
    return ready


@contextmanager
def _replacing(folder: Path) -> Iterator[None]:
    """Replace shards inside. Raises `FolderInUse` where a process reads them, `StorageError` where a write fails."""
    otherwise = "choose another shards.folder"
    with storage_errors(folder, advice=ADVICE), writer_lock(folder, alternative=otherwise):
        yield


def _make(
    recipe: Recipe,
    given: SubwordTokenizer | None,
    parts: Mapping[str, str],
    staging: StagingDirectory,
    workers: int,
    report: Report,
) -> dict[str, Any]:
    """Does all the work inside the staging directory; returns what goes into shards.json."""
    work = staging.folder

    def stage(name: str, total: int | None) -> Callable[[int], None]:
        return lambda done: report(Progress(name, done, total))

    run_tasks("read", partial(read_input, recipe, staging), [0], 1, staging, stage("read", None))
    corpora = load_corpora(work)
    units = list_units(corpora, work)
    sizes = [unit.characters for unit in units]
    tokenizer = _tokenizer(recipe, given, units, work, stage("vocabulary", sum(sizes)))
    with storage_errors(work.parent, advice=ADVICE):
        for name, own in groupby(units, key=lambda unit: unit.corpus.name):
            check_sample(name, next(own).documents(), tokenizer, recipe.tokenizer.max_unknown)
    tokenising = partial(tokenise, recipe.knowledge, recipe.shards, units, staging)
    run_tasks("tokenise", tokenising, sizes, workers, staging, stage("tokenise", sum(sizes)))
    found = 0
    if recipe.knowledge.phrases is not None and (work / "counts").exists():  # else nothing is left: `describe` says so
        report(Progress("phrases", 0, sum(sizes)))
        with storage_errors(work.parent, advice=ADVICE):
            found = _choose_phrases(recipe.knowledge.phrases, tokenizer, units, work)
        tasks = max(1, min(len(units), sum(sizes) // MARKED_AT_ONCE))  # a unit alone is hardly worth a task
        shares = [sum(sizes[task::tasks]) for task in range(tasks)]
        marking = partial(mark_phrases, units, staging, tasks)
        run_tasks("mark", marking, shares, workers, staging, stage("mark", sum(sizes)))
    with storage_errors(work.parent, advice=ADVICE):
        manifest = describe(corpora, tokenizer, parts, found, work)
    _check_unknown(manifest, recipe)
    return manifest


def _check_unknown(manifest: Mapping[str, Any], recipe: Recipe) -> None:
    for name, facts in manifest["corpora"].items():
        check_share(name, facts["unknown_share"], recipe.tokenizer.max_unknown)


def _tokenizer(
    recipe: Recipe, given: SubwordTokenizer | None, units: Sequence[Unit], work: Path, report: Callable[[int], None]
) -> SubwordTokenizer:
    """The tokeniser, saved for the workers; trained on train documents where the recipe says so."""
    saved = work / "set" / "tokenizer.json"
    if not saved.exists():
        if given is None:
            assert recipe.tokenizer.train is not None
            texts = _train_texts(units, report)
            given = train_tokenizer(texts, recipe.tokenizer.train, recipe.tokenizer.lowercase is not False)
        given.save(work / "set")
    tokenizer = given or load_tokenizer(saved)
    if not (work / "lettered.npy").exists():
        write_array(work / "lettered.npy", phrases.classify_tokens(tokenizer), advice=ADVICE)
    return tokenizer


def _train_texts(units: Sequence[Unit], report: Callable[[int], None]) -> Iterator[str]:
    """Texts of train documents: all of them, or every n-th where there are more than a vocabulary needs."""
    every = max(1, -(-sum(unit.characters for unit in units) // SAMPLE_CHARACTERS))
    number = done = 0
    for unit in units:
        for document in unit.documents():
            done += len(document.text)
            if unit.corpus.split(document.group) == TRAIN:
                if number % every == 0:
                    yield document.text
                number += 1
        report(done)


def _choose_phrases(settings: PhraseSettings, tokenizer: SubwordTokenizer, units: Sequence[Unit], work: Path) -> int:
    """Merges the counts of all shards, in their order; writes the phrases, for workers and for a person to read."""
    if (work / "phrases.npz").exists():
        return len(load_chosen_phrases(work).hashes)

    def parts() -> Iterator[phrases.Counts]:
        for unit in units:
            if unit.counts.exists():
                with np.load(unit.counts) as columns:
                    yield phrases.Counts(**columns)

    chosen = phrases.select_phrases(phrases.merge_counts(parts()), settings)

    @lru_cache(maxsize=64)
    def tokens(shard: int) -> NDArray[Any]:
        return np.load(units[shard].shard / "tokens.npy", mmap_mode="r")  # type: ignore[no-any-return]

    lines = ["phrase\tcount\tnpmi\n"]
    rows = zip(chosen.places.tolist(), chosen.counts.tolist(), chosen.npmi.tolist(), strict=True)
    for (shard, first, end), count, npmi in rows:
        phrase = _closed_up(tokenizer.decode(tokens(shard)[first:end]))
        lines.append(f"{phrase}\t{count}\t{npmi:.4f}\n")
    write_text(work / "set" / "phrases.tsv", "".join(lines), advice=ADVICE)
    write_arrays(work / "phrases.npz", chosen._asdict(), advice=ADVICE)
    return len(chosen.hashes)


def _closed_up(text: str) -> str:
    """`text` without the spaces that decoding puts between characters of scripts that have none: 物 理 学 -> 物理学."""
    if text.isascii():
        return text
    classes = character_classes(text)
    unspaced = ((classes & LETTER) > 0) & ((classes & JOINS) == 0)
    inner = range(1, len(text) - 1)
    drop = {i for i in inner if text[i] == " " and unspaced[i - 1] and unspaced[i + 1]}
    return "".join(character for i, character in enumerate(text) if i not in drop)
