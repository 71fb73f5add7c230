"""The recipe of a run that learns one more task: that of the finished run, with the task and its corpora added.

Earlier tasks keep their options, and the corpora they read are written out, so that what the new task brings feeds the
new task alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ernie2.batches.feeds import feeds
from ernie2.batches.stages import Stage, extend
from ernie2.config.settings import Recipe
from ernie2.errors import ConfigError, did_you_mean
from ernie2.shards.shard_folders import folders_of, tokenizer_of
from ernie2.shards.store import ShardedCorpus, Shards
from ernie2.tasks.base import find
from ernie2.tasks.building import build_tasks, task_options
from ernie2.tasks.recipe import load_recipe
from ernie2.tasks.vocabulary import vocabulary_of

_FREE = ("run", "name", "about", "stages.steps", "stages.patience", "stages.least_gain", "stages.max_epochs")
"""Keys an extension may set, besides train.*, encoder.task_ids and the new task's options."""
_FIXED = {
    "batch": "where the earlier tasks stand in their corpora is counted in packs of these sizes",
    "encoder": "the parameters are those of the finished run; only encoder.task_ids may grow",
    "seed": "it decides in which order the earlier tasks go on through their corpora",
    "corpora": "the new task reads the shards of --data; name some of their corpora under tasks.NAME.corpora",
    "tokenizer": "the shards are made already; `ernie2 prepare` is where this belongs",
    "knowledge": "the shards are made already; `ernie2 prepare` is where this belongs",
    "shards": "the shards are made already; --data names those of the new task",
    "tasks": "earlier tasks keep their options; those of the new task are tasks.NAME.*",
    "stages": "the stages so far are done; stages.steps is the new task's iterations, --replay those of the others",
}


def check_overrides(task: str, overrides: Sequence[str]) -> None:
    """Raises `ConfigError` naming every override that a finished run cannot take any more, each with its reason."""
    problems = []
    for override in overrides:
        key = override.partition("=")[0]
        if key in (*_FREE, "encoder.task_ids") or key.startswith(("train.", f"tasks.{task}.")):
            continue
        first = key.partition(".")[0]
        reason = _FIXED.get(
            first, f"there is no such key.{did_you_mean(first, (*_FIXED, 'train', 'run', 'name', 'about'))}"
        )
        problems.append(f"  - {key}: {reason.replace('NAME', task)}")
    if problems:
        raise ConfigError("an extension cannot set this:\n" + "\n".join(problems))


def new_stages(stages: Sequence[Stage], task: str, overrides: Sequence[str], replay: int | None) -> list[Stage]:
    """The stages of the finished run and the new one; stages.steps among the overrides is the new task's iterations.

    By default it gets as many as the task that entered last got in all.
    """
    given = [override.partition("=")[2] for override in overrides if override.startswith("stages.steps=")]
    if not given:
        last = stages[-1].introduced[0] if stages[-1].introduced else stages[-1].tasks[-1]
        return extend(stages, task, sum(stage.of(last) for stage in stages), replay)
    try:
        steps = int(given[-1])
    except ValueError:
        raise ConfigError(f"stages.steps={given[-1]}: an extension takes one number, the new task's steps.") from None
    return extend(stages, task, steps, replay)


def extended_recipe(
    recipe: Recipe,
    ours: Shards,
    theirs: Shards,
    task: str,
    stages: Sequence[Stage],
    run: Path,
    overrides: Sequence[str] = (),
) -> Recipe:
    """`recipe` with `task` added, which reads corpora of `theirs`; its earlier tasks go on reading those of `ours`.

    `run` is the folder unless an override names one; `stages` already hold the new one. Raises `ConfigError` for wrong
    options, `TaskError` where the new task has nothing to read in `theirs`.
    """
    find(task)  # raises for a task there is none of
    values = recipe.model_dump(mode="json")
    values |= {"run": str(run), "name": f"{recipe.name}-{task}"}
    earlier = _written_out(recipe.tasks, ours, recipe.batch.sequence_tokens)
    values["tasks"] = {**earlier, task: {}}
    values["stages"]["steps"] = {name: sum(stage.of(name) for stage in stages) for name in values["tasks"]}
    if recipe.stages.order is not None:
        values["stages"]["order"] = [*values["stages"]["order"], task]
    weighed = all(corpus.weight is not None for corpus in recipe.corpora.values())
    for name, corpus in theirs.corpora.items():
        if name not in values["corpora"]:
            values["corpora"][name] = _described(theirs, name, corpus, weighed)
    kept = [override for override in overrides if not override.startswith("stages.steps=")]
    checked = load_recipe(values, kept)
    _grows(recipe, checked)
    added = _written_out({task: checked.tasks[task]}, theirs, checked.batch.sequence_tokens)
    return load_recipe({**checked.model_dump(mode="json"), "tasks": {**earlier, **added}})


def _written_out(
    options: Mapping[str, Mapping[str, Any] | None], shards: Shards, sequence_tokens: int
) -> dict[str, dict[str, Any]]:
    """By task, its options with every default filled in and the corpora it reads in `shards` named, in order."""
    vocabulary = vocabulary_of(tokenizer_of(shards))
    tasks = build_tasks(options, vocabulary, shards.corpora)
    written, (feed, _) = task_options(tasks), feeds(shards, tasks, sequence_tokens=sequence_tokens)
    for name, fed in feed.items():
        written[name]["corpora"] = [corpus.name for corpus in fed.corpora]
    return written


def _described(shards: Shards, name: str, corpus: ShardedCorpus, weighed: bool) -> dict[str, Any]:
    """A corpus found in a folder of shards, as an entry of a recipe."""
    weight = corpus.facts.get("weight") or (corpus.tokens("train") if weighed else None)
    return {
        "path": corpus.facts.get("sources") or [str(folder / name) for folder in folders_of(shards)],
        "language": corpus.language,
        "licence": corpus.licence,
        "weight": weight if weighed else None,
        **({"pairs": {}} if corpus.labels else {}),
    }


def _grows(before: Recipe, after: Recipe) -> None:
    """Refuses a task table smaller than the one there is."""
    if after.encoder.task_ids < before.encoder.task_ids:
        raise ConfigError(
            f"encoder.task_ids={after.encoder.task_ids} is below the {before.encoder.task_ids} rows there are; the "
            "table may only grow."
        )
