"""What a dataset is built from: whether existing shards match a recipe."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from ernie2.config.settings import Recipe
from ernie2.errors import ShardError, TokenizerError
from ernie2.shards.input_files import InputFiles, changed_files
from ernie2.shards.store import FORMAT, Shards
from ernie2.shards.tokenizer import SubwordTokenizer, load_tokenizer

BUILD_VERSION = 4
"""Incremented when the same input gives different shards."""
_NAMES = {"version": "the version of ernie2"}
_INPUT = ("files", "gazetteer")
"""Parts that are input files instead of settings."""


def digest_parts(recipe: Recipe, loaded: SubwordTokenizer | None, inputs: InputFiles) -> dict[str, str]:
    """Return a SHA-256 for each part that the shards of a recipe depend on.

    Parts: version, corpora (their settings), files (path and content), tokenizer, knowledge, gazetteer, shards
    (settings). `loaded`: the tokeniser of `tokenizer.file`.
    """
    corpora = {name: [[file, inputs.states[file]] for file in files] for name, files in inputs.corpora.items()}
    gazetteer = inputs.gazetteer
    parts = {
        **_setting_parts(recipe),
        "tokenizer": _tokenizer_part(recipe, loaded),
        "files": corpora,
        "gazetteer": None if gazetteer is None else [gazetteer, inputs.states[gazetteer]],
    }
    return {name: digest(value) for name, value in parts.items()}


def load_recipe_tokenizer(recipe: Recipe) -> SubwordTokenizer | None:
    """Load the tokeniser of `tokenizer.file`; None if one is to be trained. Raises `TokenizerError`."""
    file = recipe.tokenizer.file
    return None if file is None else load_tokenizer(file, recipe.tokenizer.lowercase)


def find_matching_shards(
    folder: Path, parts: Mapping[str, str], states: Mapping[str, str], *, replace: bool = False
) -> Shards | None:
    """Return the shards in `folder` if they are intact and were built from `parts`.

    None if there are none, if damaged ones are to be rebuilt from the same parts, or if others are to be replaced.
    Raises `ShardError` for others unless `replace`; it names the input files whose `states` differ.
    """
    if not (folder / "shards.json").exists():
        return None
    try:
        facts = json.loads((folder / "shards.json").read_text(encoding="utf-8"))
        before, before_states = dict(facts["parts"]), dict(facts["inputs"])
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        before, before_states = {}, {}
    if before == parts:
        try:
            return Shards(folder)
        except ShardError:
            return None
    if replace:
        return None
    raise ShardError(
        f"{folder} contains shards {_describe_change(before, parts, before_states, states)}. Use another "
        "shards.folder, or replace them with `ernie2 prepare RECIPE --replace`; runs trained on the old shards can "
        "then no longer be resumed or evaluated."
    )


def check_settings(shards: Shards, recipe: Recipe) -> None:
    """Raise `ShardError` if `shards` were built with other settings than `recipe` has; input files are not compared."""
    before = shards.facts.get("parts")
    if not isinstance(before, dict):  # written by hand, as tests and benchmarks do
        return
    parts: dict[str, Any] = _setting_parts(recipe)
    with suppress(TokenizerError):  # the file may be missing, like the corpora
        parts["tokenizer"] = _tokenizer_part(recipe, load_recipe_tokenizer(recipe))
    now = {name: digest(value) for name, value in parts.items()}
    if different := _differing(before, now, now):
        raise ShardError(
            f"{shards.folder} was built with other settings than the recipe has ({different}). Use the recipe it was "
            "built with, choose another shards.folder, or rebuild it with `ernie2 prepare RECIPE --replace`."
        )


def _setting_parts(recipe: Recipe) -> dict[str, Any]:
    return {
        "version": [FORMAT, BUILD_VERSION],
        "corpora": {name: corpus.model_dump(exclude={"weight", "path"}) for name, corpus in recipe.corpora.items()},
        "knowledge": recipe.knowledge.model_dump(),
        "shards": recipe.shards.model_dump(exclude={"folder"}),
    }


def _tokenizer_part(recipe: Recipe, loaded: SubwordTokenizer | None) -> Any:
    return loaded.fingerprint if loaded is not None else recipe.tokenizer.model_dump(exclude={"max_unknown"})


def _describe_change(
    before: Mapping[str, str], now: Mapping[str, str], before_states: Mapping[str, str], states: Mapping[str, str]
) -> str:
    if not before:
        return "built by another version, or damaged ones"
    settings = _differing(before, now, [name for name in {**before, **now} if name not in _INPUT])
    files = changed_files(before_states, states)
    if not files and not settings:
        files = "the order of the files, or which corpus reads them"
    built = [f"from different input ({files})"] if files else []
    built += [f"with different settings ({settings})"] if settings else []
    return f"built {' and '.join(built)}"


def _differing(before: Mapping[str, str], now: Mapping[str, str], names: Iterable[str] | None = None) -> str:
    different = [name for name in names or {**before, **now} if before.get(name) != now.get(name)]
    return ", ".join(_NAMES.get(name, name) for name in different)


def digest(value: Any) -> str:
    """Return the SHA-256 of a value's JSON."""
    return sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
