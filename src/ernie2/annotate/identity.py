"""What a set of shards is made from: whether shards that are there serve a recipe or belong to another one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import fsspec

from ernie2.annotate.shards import FORMAT, Shards
from ernie2.annotate.wordpieces import WordPieces, load_wordpieces
from ernie2.corpora.documents import resolve
from ernie2.errors import DataError, ShardError, TokenizerError
from ernie2.settings import Recipe

STEPS = 4
"""Goes up when the same input would give other shards."""
_NAMES = {
    "version": "the version of ernie2",
    "files": "input files",
    "gazetteer": "the file of knowledge.gazetteer",
}


def parts_of(recipe: Recipe, given: WordPieces | None) -> dict[str, str]:
    """Return a SHA-256 for each thing the shards of a recipe depend on.

    version, corpora (their settings), files (path, size and time), tokenizer, knowledge, gazetteer, shards (settings).
    `given` is the tokeniser that `tokenizer.file` names. Raises `DataError` where an input file cannot be read.
    """
    gazetteer = recipe.knowledge.gazetteer
    parts = {
        **_settings_of(recipe),
        "tokenizer": _tokenizer_of(recipe, given),
        "files": {name: [_file_facts(file) for file in resolve(corpus)] for name, corpus in recipe.corpora.items()},
        "gazetteer": None if gazetteer is None else _file_facts(gazetteer),
    }
    return {name: _digest(value) for name, value in parts.items()}


def key_of(parts: Mapping[str, str]) -> str:
    """Return the SHA-256 of all parts together."""
    return _digest(parts)


def shards_made_from(folder: Path, parts: Mapping[str, str], *, replace: bool = False) -> Shards | None:
    """Return the shards in `folder` where they are whole and were made from `parts`.

    None where there are none, where damaged ones are to be made again from the same, and where others are to be
    replaced. Raises `ShardError` for others unless `replace`.
    """
    if not (folder / "shards.json").exists():
        return None
    try:
        facts = json.loads((folder / "shards.json").read_text(encoding="utf-8"))
        before: Mapping[str, str] | None = dict(facts["parts"])
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        before = None
    if before == parts:
        try:
            return Shards(folder)
        except ShardError:
            return None
    if replace:
        return None
    why = f"what differs: {_differing(before, parts)}" if before else "by another version, or they are damaged"
    raise ShardError(
        f"{folder} holds shards that were made otherwise ({why}). Choose another shards.folder, or replace them with "
        "`ernie2 prepare RECIPE --replace`; runs trained on them can then not be resumed or evaluated on them."
    )


def check_settings(shards: Shards, recipe: Recipe) -> None:
    """Raise `ShardError` where `shards` were made with other settings than `recipe` has; looks at no input files."""
    before = shards.facts.get("parts")
    if not isinstance(before, dict):  # written by hand, as tests and benchmarks do
        return
    parts: dict[str, Any] = _settings_of(recipe)
    try:
        given = (
            None
            if recipe.tokenizer.file is None
            else load_wordpieces(recipe.tokenizer.file, recipe.tokenizer.lowercase)
        )
        parts["tokenizer"] = _tokenizer_of(recipe, given)
    except TokenizerError:
        pass  # gone like the corpora
    now = {name: _digest(value) for name, value in parts.items()}
    if different := _differing(before, now, now):
        raise ShardError(
            f"{shards.folder} was made with other settings than the recipe has ({different}). Give the recipe it was "
            "made with, choose another shards.folder, or make it again with `ernie2 prepare RECIPE --replace`."
        )


def _settings_of(recipe: Recipe) -> dict[str, Any]:
    return {
        "version": [FORMAT, STEPS],
        "corpora": {name: corpus.model_dump(exclude={"weight", "path"}) for name, corpus in recipe.corpora.items()},
        "knowledge": recipe.knowledge.model_dump(),
        "shards": recipe.shards.model_dump(exclude={"folder"}),
    }


def _tokenizer_of(recipe: Recipe, given: WordPieces | None) -> Any:
    return given.fingerprint if given is not None else recipe.tokenizer.model_dump(exclude={"max_unknown"})


def _differing(before: Mapping[str, str], now: Mapping[str, str], names: Iterable[str] | None = None) -> str:
    """The parts that differ, in words."""
    different = [name for name in names or {**before, **now} if before.get(name) != now.get(name)]
    return ", ".join(_NAMES.get(name, name) for name in different)


def _digest(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _file_facts(file: str) -> list[Any]:
    """Path, size and what else tells one state of a file from another."""
    system, inner = fsspec.core.url_to_fs(file)
    try:
        info = system.info(inner)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}.") from error
    changed = next((info[name] for name in ("mtime", "ETag", "etag", "LastModified", "updated") if name in info), None)
    return [str(inner), info.get("size"), changed]
