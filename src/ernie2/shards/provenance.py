"""What a set of shards is made from: whether shards that are there serve a recipe or belong to another one."""

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
"""Goes up when the same input would give other shards."""
_NAMES = {"version": "the version of ernie2"}
_INPUT = ("files", "gazetteer")
"""Parts that are input files, not settings."""


def digest_parts(recipe: Recipe, given: SubwordTokenizer | None, inputs: InputFiles) -> dict[str, str]:
    """Return a SHA-256 for each thing the shards of a recipe depend on.

    version, corpora (their settings), files (path and content), tokenizer, knowledge, gazetteer, shards (settings).
    `given` is the tokeniser that `tokenizer.file` names.
    """
    corpora = {name: [[file, inputs.states[file]] for file in files] for name, files in inputs.corpora.items()}
    gazetteer = inputs.gazetteer
    parts = {
        **_settings_of(recipe),
        "tokenizer": _tokenizer_of(recipe, given),
        "files": corpora,
        "gazetteer": None if gazetteer is None else [gazetteer, inputs.states[gazetteer]],
    }
    return {name: digest(value) for name, value in parts.items()}


def load_recipe_tokenizer(recipe: Recipe) -> SubwordTokenizer | None:
    """Return the tokeniser that `tokenizer.file` names, None where one is trained. Raises `TokenizerError`."""
    file = recipe.tokenizer.file
    return None if file is None else load_tokenizer(file, recipe.tokenizer.lowercase)


def find_matching_shards(
    folder: Path, parts: Mapping[str, str], states: Mapping[str, str], *, replace: bool = False
) -> Shards | None:
    """Return the shards in `folder` where they are whole and were made from `parts`.

    None where there are none, where damaged ones are to be made again from the same, and where others are to be
    replaced. Raises `ShardError` for others unless `replace`; it names the input files of other `states`.
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
        f"{folder} holds shards {_how_built(before, parts, before_states, states)}. Use another shards.folder, or "
        "replace them with `ernie2 prepare RECIPE --replace`; runs trained on them may then not be resumed or "
        "evaluated on them."
    )


def check_settings(shards: Shards, recipe: Recipe) -> None:
    """Raise `ShardError` where `shards` were made with other settings than `recipe` has; looks at no input files."""
    before = shards.facts.get("parts")
    if not isinstance(before, dict):  # written by hand, as tests and benchmarks do
        return
    parts: dict[str, Any] = _settings_of(recipe)
    with suppress(TokenizerError):  # gone like the corpora
        parts["tokenizer"] = _tokenizer_of(recipe, load_recipe_tokenizer(recipe))
    now = {name: digest(value) for name, value in parts.items()}
    if different := _differing(before, now, now):
        raise ShardError(
            f"{shards.folder} was made with other settings than the recipe has ({different}). Give the recipe it was "
            "made with, choose another shards.folder, or make it again with `ernie2 prepare RECIPE --replace`."
        )


def _settings_of(recipe: Recipe) -> dict[str, Any]:
    return {
        "version": [FORMAT, BUILD_VERSION],
        "corpora": {name: corpus.model_dump(exclude={"weight", "path"}) for name, corpus in recipe.corpora.items()},
        "knowledge": recipe.knowledge.model_dump(),
        "shards": recipe.shards.model_dump(exclude={"folder"}),
    }


def _tokenizer_of(recipe: Recipe, given: SubwordTokenizer | None) -> Any:
    return given.fingerprint if given is not None else recipe.tokenizer.model_dump(exclude={"max_unknown"})


def _how_built(
    before: Mapping[str, str], now: Mapping[str, str], before_states: Mapping[str, str], states: Mapping[str, str]
) -> str:
    """How shards that do not serve were built, in words."""
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
    """The parts that differ, in words."""
    different = [name for name in names or {**before, **now} if before.get(name) != now.get(name)]
    return ", ".join(_NAMES.get(name, name) for name in different)


def digest(value: Any) -> str:
    """Return the SHA-256 of a value, by its JSON."""
    return sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
