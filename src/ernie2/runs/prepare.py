"""Prepare the shards of a recipe, or open existing ones, and report missing data and unusable corpora."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ernie2.batches.feeds import build_feeds, heldout_feed
from ernie2.batches.streams import Feed
from ernie2.config.settings import Recipe
from ernie2.console import Bar, log_info, log_warning, progress
from ernie2.corpora.documents import corpus_files
from ernie2.errors import DataError, ShardError
from ernie2.inspecting.text import is_lossy, loss_lines
from ernie2.runs.recipes import load_recipe
from ernie2.shards.executor import Progress as PreparationProgress
from ernie2.shards.prepare import prepare as make_shards
from ernie2.shards.provenance import check_settings
from ernie2.shards.shard_folders import load_shards_tokenizer
from ernie2.shards.store import Shards
from ernie2.tasks.base import Vocabulary
from ernie2.tasks.building import build_tasks, vocabulary_of
from ernie2.tasks.usable_data import UsableTable, corpora_by_note, usable_table

RecipeSource = str | Path | Mapping[str, Any]


def prepare(
    recipe: RecipeSource, overrides: Sequence[str] = (), workers: int | None = None, *, replace: bool = False
) -> Path:
    """Prepare the corpora of a recipe as shards, log the usable documents per task and corpus, and return the folder.

    Finished shards are not prepared again. Raises `ShardError` if the folder contains shards of other inputs or
    settings, unless `replace`, and `TaskError` if a task can use less than 1 % of the documents it should read.
    """
    checked = load_recipe(recipe, overrides)
    shards = prepare_shards(checked, workers, replace=replace)
    tasks = build_tasks(checked.tasks, vocabulary_for(shards), shards.corpora)
    log_info("Usable sections of documents per task and corpus:")
    table = usable_table(shards.corpora, tasks, sequence_tokens=checked.batch.sequence_tokens)
    for task, counts in table.items():
        shown = ", ".join(f"{corpus} {c['usable']:,} of {c['of']:,}" for corpus, c in counts.items())
        log_info(f"  {task:<26} {shown}")
    read, _ = build_feeds(
        shards, tasks, sequence_tokens=checked.batch.sequence_tokens
    )  # raises if a task can use too little
    warn_about_corpora(table, read)
    tokens = checked.batch.sequence_tokens
    warn_no_heldout([task.name for task in tasks if not heldout_feed(read[task.name], task, tokens).corpora])
    return shards.folder


def check_shards_match(shards: Shards, recipe: Recipe) -> None:
    if set(shards.corpora) != set(recipe.corpora):
        raise ShardError(
            f"{shards.folder} contains corpora {sorted(shards.corpora)}, but the recipe names {sorted(recipe.corpora)}."
        )
    check_settings(shards, recipe)


def prepare_shards(recipe: Recipe, workers: int | None, *, replace: bool = False) -> Shards:
    """Return the shards of a recipe, prepare them if necessary, and log the data dropped from each corpus.

    If the corpora are missing, existing shards with the recipe's settings are used. Raises `ShardError` if the folder
    contains shards of other inputs or settings, unless `replace`.
    """
    folder = Path(recipe.shards.folder)
    if (folder / "shards.json").exists():
        try:
            for corpus in recipe.corpora.values():
                corpus_files(corpus)
        except DataError as error:
            log_warning(f"Using the existing shards in {folder} ({error})")
            shards = Shards(folder)
            check_shards_match(shards, recipe)
            _log_data_loss(shards)
            return shards
    require_data(recipe)
    with ExitStack() as shown:
        shards = make_shards(recipe, workers=workers, progress=_show_progress(shown), replace=replace)
    _log_data_loss(shards)
    return shards


def missing_data(recipe: Recipe) -> list[str]:
    """Return a line "key: problem" for each corpus, vocabulary and entity list of `recipe` that does not exist."""
    lines = []
    for name, corpus in recipe.corpora.items():
        try:
            corpus_files(corpus)
        except DataError as error:
            lines.append(f"corpora.{name}.path: {error}")
    for key, file in (("tokenizer.file", recipe.tokenizer.file), ("knowledge.gazetteer", recipe.knowledge.gazetteer)):
        if file is not None and not Path(file).is_file():
            lines.append(f"{key}: file not found: {file!r}.")
    return lines


def require_data(recipe: Recipe, *, of_study: bool = False) -> None:
    """Raise `DataError` listing all missing input files; with `of_study`, keys start with "recipe."."""
    if lines := missing_data(recipe):
        keys = "recipe." if of_study else ""
        listed = "\n".join(f"  - {keys}{line}" for line in lines)
        key = keys + lines[0].partition(":")[0]
        copy = (
            " or in a copy of the recipe (`ernie2 recipes NAME my-recipe.yaml`), or remove the corpus there and the "
            "tasks that use only it"
        )
        raise DataError(
            f"recipe {recipe.name!r} names input files that were not found:\n{listed}\n"
            f"Name your files on the command line ({key}=FILE){'' if of_study else copy}."
        )


def _log_data_loss(shards: Shards) -> None:
    for name, corpus in shards.corpora.items():
        log = log_warning if is_lossy(corpus.facts) else log_info
        log(f"{name}: {'; '.join(loss_lines(corpus.facts))}")


_STAGE_TITLES = {
    "read": "Reading the corpora",
    "vocabulary": "Training a vocabulary",
    "tokenise": "Tokenising and annotating",
    "phrases": "Choosing phrases",
    "mark": "Marking phrases",
    "unchanged": "The shards already exist",
}


def _show_progress(shown: ExitStack) -> Callable[[PreparationProgress], None]:
    """Return a callback that shows the stages of `prepare`: a bar in characters, or a line if the total is unknown."""
    bars: dict[str, Bar] = {}
    announced: set[str] = set()

    def update(now: PreparationProgress) -> None:
        title = _STAGE_TITLES[now.stage]
        if not now.total:
            if now.stage not in announced:
                announced.add(now.stage)
                log_info(title)
            return
        if now.stage not in bars:
            shown.close()
            bars[now.stage] = shown.enter_context(progress(title, now.total, "characters"))
        bars[now.stage].advance(now.done - bars[now.stage].done)

    return update


def warn_no_heldout(tasks: Sequence[str]) -> None:
    """Warn about tasks without held-out documents."""
    if tasks:
        log_warning(
            f"No held-out documents for {', '.join(tasks)}; prepare with a larger shards.heldout to evaluate "
            f"{'it' if len(tasks) == 1 else 'them'}."
        )


def warn_about_corpora(usable: UsableTable, read: Mapping[str, Feed]) -> None:
    """Warn about corpora that a task does not read, and about problems in those it reads."""
    for name, feed in read.items():
        reads = [corpus.name for corpus in feed.corpora]
        for corpus in usable[name]:
            if corpus not in reads:
                why = usable[name][corpus].get("why", "too few of its documents are usable")
                log_warning(f"Note: {name} does not read {corpus}: {why}.")
        for note, corpora in corpora_by_note({corpus: usable[name][corpus] for corpus in reads}).items():
            log_warning(f"Note: {name}, {'corpus' if len(corpora) == 1 else 'corpora'} {', '.join(corpora)}: {note}")


def vocabulary_for(shards: Shards) -> Vocabulary:
    """Return the token ids that tasks need, from the shards' tokeniser."""
    return vocabulary_of(load_shards_tokenizer(shards))
