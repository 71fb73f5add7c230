"""Input files of a recipe that do not exist: all of them in one error, with what to do."""

from __future__ import annotations

from pathlib import Path

from ernie2.config.settings import Recipe
from ernie2.corpora.documents import resolve
from ernie2.errors import DataError


def absent_data(recipe: Recipe) -> list[str]:
    """One line for each corpus, vocabulary and entity list of `recipe` that cannot be found, led by its key."""
    lines = []
    for name, corpus in recipe.corpora.items():
        try:
            resolve(corpus)
        except DataError as error:
            lines.append(f"corpora.{name}.path: {error}")
    for key, file in (("tokenizer.file", recipe.tokenizer.file), ("knowledge.gazetteer", recipe.knowledge.gazetteer)):
        if file is not None and not Path(file).is_file():
            lines.append(f"{key}: file not found: {file!r}.")
    return lines


def require_data(recipe: Recipe) -> None:
    """Raises `DataError` naming everything that is absent, where anything is."""
    if lines := absent_data(recipe):
        listed = "\n".join(f"  - {line}" for line in lines)
        key = lines[0].partition(":")[0]
        raise DataError(
            f"recipe {recipe.name!r} names input files that were not found:\n{listed}\n"
            f"Name your own files, on the command line ({key}=FILE) or in a copy of the recipe (`ernie2 recipes "
            "NAME my-recipe.yaml`); or remove the corpus there, with the tasks that use only it."
        )
