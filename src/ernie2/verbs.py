"""The verbs of the command line as functions: prepare, inspect, pretrain, resume, evaluate, report, demo, mine.

Each returns what it made and says on standard output where the result is. The libraries behind a verb are imported when
it is called, so that `ernie2 --help` stays quick.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ernie2.mining import mine_clicks as mine_clicks
from ernie2.mining import mine_discourse as mine_discourse
from ernie2.progress import Bar, progress, say

if TYPE_CHECKING:
    from ernie2.annotate.jobs import Progress as PreparationProgress
    from ernie2.annotate.shards import Shards
    from ernie2.settings import Recipe
    from ernie2.tasks.base import Vocabulary
    from ernie2.train.evaluate import HeldOut
    from ernie2.train.pretraining import Pretraining

RecipeSource = str | Path | Mapping[str, Any]


def list_recipes() -> dict[str, str]:
    """Names of the shipped recipes, each with what it is for."""
    import yaml

    from ernie2.settings import shipped_recipes

    return {name: str(yaml.safe_load(text).get("about", "")) for name, text in sorted(shipped_recipes().items())}


def write_recipe(name: str, destination: str | Path) -> Path:
    """Writes an annotated copy of a shipped recipe; refuses to overwrite a file."""
    from ernie2.errors import ConfigError, did_you_mean
    from ernie2.exporting import write_text
    from ernie2.settings import shipped_recipes

    shipped, destination = shipped_recipes(), Path(destination)
    if name not in shipped:
        raise ConfigError(
            f"no recipe is called {name!r}.{did_you_mean(name, shipped)} Known: {', '.join(sorted(shipped))}."
        )
    if destination.exists():
        raise ConfigError(f"{destination} exists; choose another name or remove it first.")
    destination.parent.mkdir(parents=True, exist_ok=True)
    write_text(destination, shipped[name])
    return destination


def list_tasks() -> list[dict[str, Any]]:
    """Every task that can be named: name, title, level, labels (None: the vocabulary), needs, about, origin."""
    import numpy as np

    from ernie2.tasks.base import Vocabulary, known

    nothing = Vocabulary(size=5, cls=0, sep=1, mask=2, pad=3, unk=4, ordinary=np.zeros(0, np.int64))
    listed = []
    for entry in known():
        task = entry.load()
        labels = task(task.Options(), nothing).labels
        listed.append(
            {
                "name": task.name,
                "title": task.title,
                "level": task.level,
                "labels": None if labels is None else len(labels),
                "needs": task.needs,
                "about": task.about,
                "origin": entry.origin,
            }
        )
    return listed


def prepare(recipe: RecipeSource, overrides: Sequence[str] = (), workers: int | None = None) -> Path:
    """Makes shards of a recipe's corpora and prints the usable documents per task × corpus; returns their folder.

    Work already done is not done again. Raises `TaskError` where a task can use less than 1 % of what it should read.
    """
    from ernie2.settings import load_recipe

    checked = load_recipe(recipe, overrides)
    shards = _prepare(checked, workers)
    _say_usable(checked, shards)
    return shards.folder


def inspect(shards: str | Path, task: str | None = None, examples: int = 5) -> str:
    """What is in a folder of shards: figures per corpus, label statistics and examples per task."""
    from ernie2.inspecting import inspect as look
    from ernie2.inspecting import render

    return render(look(Path(shards), task, examples))


def pretrain(
    recipe: RecipeSource, overrides: Sequence[str] = (), init_from: str | Path | None = None, workers: int | None = None
) -> Path:
    """Prepares shards where there are none yet, trains through all stages, and leaves the run folder it returns.

    `init_from` takes parameters from a run or a Hugging Face folder (a warm start: new schedule, new optimiser).
    """
    from ernie2.errors import CheckpointError, StorageError
    from ernie2.settings import load_recipe
    from ernie2.train.checkpoints import begun
    from ernie2.train.loading import warm_start
    from ernie2.train.pretraining import build, build_tasks, head_specs

    checked = load_recipe(recipe, overrides)
    run = Path(checked.run)
    if begun(run):
        raise CheckpointError(
            f"{run} holds a run already: `ernie2 resume {run}` goes on with it; run=FOLDER starts another."
        )
    shards = _prepare(checked, workers)
    model = None
    if init_from is not None:
        specs = head_specs(build_tasks(checked, _vocabulary(shards)))
        started = warm_start(Path(init_from), checked.encoder, specs, checked.seed, shards)
        model = started.model
        say(f"Parameters from {init_from}")
        for what, names in (("left out", started.left_out), ("newly initialised", started.new)):
            say(f"  {what}: {', '.join(names) or 'nothing'}")
    made = build(checked, shards, model)
    made.facts["initialised_from"] = None if init_from is None else str(init_from)
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{run} cannot be a run folder: {error.strerror}. Name another with run=FOLDER.") from error
    made.trainer.records.cut(0)  # what a run wrote that was stopped before its first checkpoint
    made.trainer.records.describe(made.facts)
    return _train(run, shards, made)


def resume(run: str | Path) -> Path:
    """Goes on with a run from its newest whole checkpoint as if it had never stopped; returns the run folder."""
    from ernie2.annotate.shards import Shards
    from ernie2.errors import ShardError
    from ernie2.settings import load_recipe
    from ernie2.train.checkpoints import newest
    from ernie2.train.pretraining import build
    from ernie2.train.records import read_run

    run = Path(run)
    facts = read_run(run)
    if facts["status"] == "done":
        say(f"{run} is finished; nothing to resume. Results: {run / 'hf'} and {run / 'report.html'}")
        return run
    # the precision the run began in, even where this machine would choose another
    settings = {**facts["recipe"]["train"], "precision": facts["precision"]}
    recipe = load_recipe({**facts["recipe"], "run": str(run), "train": settings})
    shards = Shards(facts["data"]["shards"])
    if shards.fingerprint != facts["data"]["fingerprint"]:
        raise ShardError(
            f"{shards.folder} was made anew since {run} began; a run goes on only with the shards it began with. "
            "Prepare them again from the same corpora and recipe, or start a new run with --init-from."
        )
    checkpoint = newest(run)
    made = build(recipe, shards)
    made.trainer.restore(checkpoint)
    made.facts.update({key: facts[key] for key in ("created", "initialised_from", "git")})
    made.trainer.records.describe(made.facts)
    say(f"Resuming {run} from {checkpoint.folder.name}")
    return _train(run, shards, made)


def evaluate(checkpoint: str | Path, data: str | Path) -> dict[str, dict[str, Any]]:
    """Held-out figures, on the shards at `data`, of every task a checkpoint (run or Hugging Face folder) knows."""
    import torch

    from ernie2.annotate.shards import Shards
    from ernie2.settings import BatchSettings, TrainSettings
    from ernie2.train.evaluate import HeldOut
    from ernie2.train.loading import load
    from ernie2.train.pretraining import open_stream
    from ernie2.train.step import choose_precision

    shards = Shards(data)
    loaded = load(Path(checkpoint), shards)
    recipe = loaded.recipe
    rows = loaded.model.settings.position_rows
    limit = recipe.batch.sequence_tokens if recipe else min(rows, 512)
    batch = (
        recipe.batch if recipe else BatchSettings(batch_tokens=8 * limit, pack_tokens=8 * limit, sequence_tokens=limit)
    )
    instances = recipe.train.heldout_instances if recipe else TrainSettings().heldout_instances
    weights = {name: corpus.weight for name, corpus in recipe.corpora.items()} if recipe else None
    stream, feed, _ = open_stream(shards, loaded.tasks, loaded.ids, batch, recipe.seed if recipe else 0, weights)
    heldout = HeldOut(stream, feed, loaded.tasks, instances, recipe.seed if recipe else 0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = choose_precision(recipe.train.precision if recipe else "auto", device)
    figures = heldout.evaluate(loaded.model.to(device), device, precision)
    _say_missing(heldout)
    _say_figures(figures)
    return figures


def report(run: str | Path) -> Path:
    """Writes RUN/report.html from the run's records; returns its path."""
    from ernie2.reporting.report import write_report

    return write_report(Path(run))


def demo(language: str = "en", folder: str | Path = "ernie2-demo") -> Path:
    """The whole path on the text that is shipped with the package; returns the run folder."""
    from ernie2.demonstration import run_demo

    return run_demo(language, Path(folder))


def _prepare(recipe: Recipe, workers: int | None) -> Shards:
    """Shards of the recipe, made now or found as they were left; found ones serve even where the corpora are gone."""
    from ernie2.annotate.prepare import prepare as make_shards
    from ernie2.annotate.shards import Shards
    from ernie2.corpora.documents import resolve
    from ernie2.errors import DataError, ShardError

    folder = Path(recipe.shards.folder)
    if (folder / "shards.json").exists():
        try:
            for corpus in recipe.corpora.values():
                resolve(corpus)
        except DataError as error:
            say(f"Using the shards in {folder} as they are ({error})")
            shards = Shards(folder)
            if set(shards.corpora) != set(recipe.corpora):
                raise ShardError(
                    f"{folder} holds corpora {sorted(shards.corpora)}, the recipe names {sorted(recipe.corpora)}."
                ) from error
            return shards
    with ExitStack() as shown:
        return make_shards(recipe, workers=workers, progress=_show_preparation(shown))


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
                say(title)
            return
        if now.stage not in bars:
            shown.close()
            bars[now.stage] = shown.enter_context(progress(title, now.total, "characters"))
        bars[now.stage].advance(now.done - bars[now.stage].done)

    return told


def _train(run: Path, shards: Shards, made: Pretraining) -> Path:
    """Trains to the end, then leaves the Hugging Face folder and the report."""
    from ernie2.annotate.wordpieces import load_wordpieces
    from ernie2.errors import StorageError
    from ernie2.exporting import export_hf
    from ernie2.reporting.report import write_report

    records = made.trainer.records
    _say_missing(made.trainer.heldout)
    try:
        position = made.trainer.train()
        last = [line for line in records.read() if line["kind"] == "heldout"][-1]["tasks"]
        wordpieces = load_wordpieces(shards.folder / "tokenizer.json", lowercase=True)
        folder = export_hf(run / "hf", made.trainer.model, wordpieces, made.facts, last, position.seen)
    except BaseException:
        with suppress(StorageError):  # on a full disk the first error is the one to tell
            records.describe({**made.facts, "status": "stopped"})
        raise
    records.describe({**made.facts, "status": "done", "finished": _now()})
    page = write_report(run)
    say(f"Model:  {folder} (transformers loads it as ErnieModel or ErnieForMaskedLM)")
    say(f"Report: {page}")
    return run


def _say_usable(recipe: Recipe, shards: Shards) -> None:
    """Prints usable documents per task × corpus; raises `TaskError` where a task is refused."""
    from ernie2.batches.feeds import feeds
    from ernie2.tasks.usable import usable_table
    from ernie2.train.pretraining import build_tasks

    tasks = build_tasks(recipe, _vocabulary(shards))
    say("Usable documents per task and corpus:")
    for task, counts in usable_table(shards.corpora, tasks).items():
        shown = ", ".join(f"{corpus} {c['usable']:,} of {c['of']:,}" for corpus, c in counts.items())
        say(f"  {task:<26} {shown}")
    feeds(shards, tasks)  # raises for a task that is refused


def _say_missing(heldout: HeldOut) -> None:
    if heldout.missing:
        say(
            f"No held-out documents to measure {', '.join(heldout.missing)} on; prepare with a larger shards.heldout "
            "to have figures."
        )


def _say_figures(figures: Mapping[str, Mapping[str, Any]]) -> None:
    for name, f in figures.items():
        interval = f"{f['accuracy']:.3f} ({f['low']:.3f} to {f['high']:.3f})"
        cheap = f"{f['cheap']['rule']} {f['cheap']['accuracy']:.3f}"
        verdict = "above the cheap rule" if f["learned"] else "not above the cheap rule"
        say(
            f"{name:<26} accuracy {interval}, majority {f['majority']['accuracy']:.3f}, {cheap}, loss {f['loss']:.3f}: "
            f"{verdict} ({f['instances']} instances, {f['scored']:,} scored)"
        )


def _vocabulary(shards: Shards) -> Vocabulary:
    from ernie2.annotate.wordpieces import load_wordpieces
    from ernie2.tasks.vocabulary import vocabulary_of

    return vocabulary_of(load_wordpieces(shards.folder / "tokenizer.json", lowercase=True))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
