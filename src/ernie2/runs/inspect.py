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
    """Describe the shards of a recipe, or a folder of shards: figures per corpus, labels and examples per task.

    Tasks, their options and the sequence length come from the recipe; for a folder, every known task is shown with
    default options. `containing`: show only examples with this class or a span of this kind.
    """
    if not isinstance(source, Mapping) and Path(source).is_dir():
        if overrides:
            raise ConfigError(f"{source} is a folder of shards; overrides such as {overrides[0]} need a recipe.")
        return render(inspect_shards(Path(source), task, examples, containing=containing))
    recipe = load_recipe(source, overrides)
    folder = Path(recipe.shards.folder)
    if not (folder / "shards.json").exists():
        raise ShardError(f"{folder} contains no shards; run `ernie2 prepare` with this recipe first.")
    check_shards_match(Shards(folder), recipe)
    options = {name: given or {} for name, given in recipe.tasks.items()}
    weights = {name: corpus.weight for name, corpus in recipe.corpora.items()}
    tokens = recipe.batch.sequence_tokens
    figures = inspect_shards(folder, task, examples, 0, options, tokens, containing=containing, weights=weights)
    if task is not None and task not in options:
        log_warning(f"Note: {task} is not in the recipe; it is shown with default options.")
    return render(figures)
