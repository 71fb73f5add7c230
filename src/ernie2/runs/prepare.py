"""The shards of a recipe: made or found, described, inspected."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ernie2.batches.feeds import feeds, heldout_feed
from ernie2.batches.stream import Feed
from ernie2.config.settings import Recipe
from ernie2.console import Bar, log_info, log_warning, progress
from ernie2.corpora.documents import resolve
from ernie2.errors import ConfigError, DataError, ShardError
from ernie2.inspecting.figures import inspect as look
from ernie2.inspecting.text import is_lossy, loss_lines, render
from ernie2.shards.executor import Progress as PreparationProgress
from ernie2.shards.prepare import prepare as make_shards
from ernie2.shards.provenance import check_settings
from ernie2.shards.shard_folders import tokenizer_of
from ernie2.shards.store import Shards
from ernie2.tasks.base import Vocabulary
from ernie2.tasks.building import build_tasks, vocabulary_of
from ernie2.tasks.recipe import load_recipe
from ernie2.tasks.usable_data import UsableTable, corpora_by_note, usable_table

RecipeSource = str | Path | Mapping[str, Any]


def prepare(
    recipe: RecipeSource, overrides: Sequence[str] = (), workers: int | None = None, *, replace: bool = False
) -> Path:
    """Make shards of a recipe's corpora, print the usable documents per task × corpus, and return their folder.

    Work already done is not done again. Raises `ShardError` where the folder holds shards made from something else,
    unless they are to be replaced, and `TaskError` where a task can use less than 1 % of what it should read.
    """
    checked = load_recipe(recipe, overrides)
    shards = shards_of(checked, workers, replace=replace)
    tasks = build_tasks(checked.tasks, vocabulary_for(shards), shards.corpora)
    log_info("UsableData documents per task and corpus:")
    table = usable_table(shards.corpora, tasks, sequence_tokens=checked.batch.sequence_tokens)
    for task, counts in table.items():
        shown = ", ".join(f"{corpus} {c['usable']:,} of {c['of']:,}" for corpus, c in counts.items())
        log_info(f"  {task:<26} {shown}")
    read, _ = feeds(shards, tasks, sequence_tokens=checked.batch.sequence_tokens)  # raises for a task that is refused
    say_notes(table, read)
    tokens = checked.batch.sequence_tokens
    say_missing([task.name for task in tasks if not heldout_feed(read[task.name], task, tokens).corpora])
    return shards.folder


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
        return render(look(Path(source), task, examples, containing=containing))
    recipe = load_recipe(source, overrides)
    folder = Path(recipe.shards.folder)
    if not (folder / "shards.json").exists():
        raise ShardError(f"{folder} holds no shards of this recipe yet; run `ernie2 prepare` with it first.")
    _check_same(Shards(folder), recipe)
    options = {name: given or {} for name, given in recipe.tasks.items()}
    weights = {name: corpus.weight for name, corpus in recipe.corpora.items()}
    tokens = recipe.batch.sequence_tokens
    found = look(folder, task, examples, 0, options, tokens, containing=containing, weights=weights)
    if task is not None and task not in options:
        log_warning(f"Note: {task} is not in the recipe, so it is shown with its default options.")
    return render(found)


def _check_same(shards: Shards, recipe: Recipe) -> None:
    if set(shards.corpora) != set(recipe.corpora):
        raise ShardError(
            f"{shards.folder} holds corpora {sorted(shards.corpora)}, the recipe names {sorted(recipe.corpora)}."
        )
    check_settings(shards, recipe)


def shards_of(recipe: Recipe, workers: int | None, *, replace: bool = False) -> Shards:
    """Return the shards of a recipe, made now or found, and print what was lost of each corpus in them.

    Found ones of the recipe's settings serve where the corpora are gone. Raises `ShardError` where the folder holds
    shards made from something else, unless they are to be replaced.
    """
    folder = Path(recipe.shards.folder)
    if (folder / "shards.json").exists():
        try:
            for corpus in recipe.corpora.values():
                resolve(corpus)
        except DataError as error:
            log_warning(f"Using the shards in {folder} as they are ({error})")
            shards = Shards(folder)
            _check_same(shards, recipe)
            _say_losses(shards)
            return shards
    require_data(recipe)
    with ExitStack() as shown:
        shards = make_shards(recipe, workers=workers, progress=_show_preparation(shown), replace=replace)
    _say_losses(shards)
    return shards


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


def require_data(recipe: Recipe, *, of_study: bool = False) -> None:
    """Raises `DataError` naming everything that is absent, where anything is; keys `of_study` begin with recipe."""
    if lines := absent_data(recipe):
        keys = "recipe." if of_study else ""
        listed = "\n".join(f"  - {keys}{line}" for line in lines)
        key = keys + lines[0].partition(":")[0]
        copy = (
            " or in a copy of the recipe (`ernie2 recipes NAME my-recipe.yaml`); or remove the corpus there, with the "
            "tasks that use only it"
        )
        raise DataError(
            f"recipe {recipe.name!r} names input files that were not found:\n{listed}\n"
            f"Name your own files, on the command line ({key}=FILE){'' if of_study else copy}."
        )


def _say_losses(shards: Shards) -> None:
    for name, corpus in shards.corpora.items():
        log = log_warning if is_lossy(corpus.facts) else log_info
        log(f"{name}: {'; '.join(loss_lines(corpus.facts))}")


_PREPARATION = {
    "read": "Reading the corpora",
    "vocabulary": "Training a vocabulary",
    "tokenise": "Tokenising and annotating",
    "phrases": "Choosing phrases",
    "mark": "Marking phrases",
    "unchanged": "These shards are there already",
}


def _show_preparation(shown: ExitStack) -> Callable[[PreparationProgress], None]:
    """Shows the stages of `prepare`: a bar in characters where the total is known, a line where it is not."""
    bars: dict[str, Bar] = {}
    announced: set[str] = set()

    def told(now: PreparationProgress) -> None:
        title = _PREPARATION[now.stage]
        if not now.total:
            if now.stage not in announced:
                announced.add(now.stage)
                log_info(title)
            return
        if now.stage not in bars:
            shown.close()
            bars[now.stage] = shown.enter_context(progress(title, now.total, "characters"))
        bars[now.stage].advance(now.done - bars[now.stage].done)

    return told


def say_missing(tasks: Sequence[str]) -> None:
    """Names the tasks there is nothing to measure on."""
    if tasks:
        log_warning(
            f"No held-out documents to measure {', '.join(tasks)} on; prepare with a larger shards.heldout to have "
            "figures."
        )


def say_notes(usable: UsableTable, read: Mapping[str, Feed]) -> None:
    """Prints corpora that a task leaves out, and what to warn of in those it reads."""
    for name, feed in read.items():
        reads = [corpus.name for corpus in feed.corpora]
        for corpus in usable[name]:
            if corpus not in reads:
                why = usable[name][corpus].get("why", "it offers too little")
                log_warning(f"Note: {name} does not read {corpus}: {why}.")
        for note, corpora in corpora_by_note({corpus: usable[name][corpus] for corpus in reads}).items():
            log_warning(f"Note: {name}, {'corpus' if len(corpora) == 1 else 'corpora'} {', '.join(corpora)}: {note}")


def vocabulary_for(shards: Shards) -> Vocabulary:
    """The ids of the shards' tokeniser that tasks need."""
    return vocabulary_of(tokenizer_of(shards))
