"""Show what prepared shards contain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ernie2.console import log_warning
from ernie2.errors import ConfigError, ShardError
from ernie2.inspecting.inspection import inspect as inspect_shards
from ernie2.inspecting.text import render
from ernie2.runs.prepare import RecipeSource, check_shards_match
from ernie2.runs.recipes import load_recipe
from ernie2.shards.store import Shards


def inspect(
    source: RecipeSource,
    task: str | None = None,
    examples: int = 5,
    containing: str | None = None,
    overrides: Sequence[str] = (),
) -> str:
    """What is in the shards of a recipe, or in a folder of shards: figures per corpus, labels and examples per task.

    A recipe gives the tasks, their options and the length of sequences; a folder is looked at through every known task
    with its defaults. `containing`: examples must contain this class or a span of this kind.
    """
    if not isinstance(source, Mapping) and Path(source).is_dir():
        if overrides:
            raise ConfigError(f"{source} is a folder of shards; only a recipe takes values such as {overrides[0]}.")
        return render(inspect_shards(Path(source), task, examples, containing=containing))
    recipe = load_recipe(source, overrides)
    folder = Path(recipe.shards.folder)
    if not (folder / "shards.json").exists():
        raise ShardError(f"{folder} holds no shards of this recipe yet; run `ernie2 prepare` with it first.")
    check_shards_match(Shards(folder), recipe)
    options = {name: given or {} for name, given in recipe.tasks.items()}
    weights = {name: corpus.weight for name, corpus in recipe.corpora.items()}
    tokens = recipe.batch.sequence_tokens
    found = inspect_shards(folder, task, examples, 0, options, tokens, containing=containing, weights=weights)
    if task is not None and task not in options:
        log_warning(f"Note: {task} is not in the recipe, so it is shown with its default options.")
    return render(found)
