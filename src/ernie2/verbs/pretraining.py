"""The verbs that train: pretrain, resume."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from ernie2.annotate.shards import Shards
from ernie2.annotate.wordpieces import load_wordpieces
from ernie2.batches.epochs import check_epochs, expected_epochs
from ernie2.errors import CheckpointError, ConfigError, StorageError
from ernie2.exporting import export_hf
from ernie2.progress import say
from ernie2.recipe_files import load_recipe
from ernie2.reporting.report import write_report
from ernie2.tasks.building import build_tasks
from ernie2.train.checkpoints import begun, newest
from ernie2.train.extending import recipe_of, shards_of_run, stages_of
from ernie2.train.loading import warm_start
from ernie2.train.pretraining import Pretraining, build, head_specs
from ernie2.train.records import read_run
from ernie2.verbs.evaluating import say_missing
from ernie2.verbs.preparing import RecipeSource, shards_of, vocabulary_for


def pretrain(
    recipe: RecipeSource,
    overrides: Sequence[str] = (),
    init_from: str | Path | None = None,
    workers: int | None = None,
    grow: Sequence[str] = (),
) -> Path:
    """Prepares shards where there are none yet, trains through all stages, and leaves the run folder it returns.

    `init_from` takes parameters from a checkpoint: a run, a Hugging Face folder, a Paddle model (a warm start: new
    schedule, new optimiser). `grow` names tables that may get rows the checkpoint does not have, untrained at first:
    segment_types, position_rows, vocabulary.
    Raises `ConfigError` where some task would walk a corpus more often than `stages.max_epochs`.
    """
    checked = load_recipe(recipe, overrides)
    run = Path(checked.run)
    if begun(run):
        raise CheckpointError(
            f"{run} holds a run already: `ernie2 resume {run}` goes on with it; run=FOLDER starts another."
        )
    if grow and init_from is None:
        raise ConfigError("--grow adds rows to tables of a checkpoint, so it needs one: give it with --init-from.")
    shards = shards_of(checked, workers)
    model = None
    if init_from is not None:
        tasks = build_tasks(checked.tasks, vocabulary_for(shards), shards.corpora)
        labels = {task.name: task.labels or () for task in tasks if task.labels_from_data}
        started = warm_start(Path(init_from), checked.encoder, head_specs(tasks), checked.seed, shards, labels, grow)
        model = started.model
        say(f"Parameters from {init_from} ({started.layout})")
        for line in started.account.lines():
            say(f"  {line}")
    made = build(checked, shards, model)
    check_epochs(expected_epochs(made.trainer.stream, made.trainer.plans), checked.stages.max_epochs)
    made.facts["initialised_from"] = None if init_from is None else str(init_from)
    make_folder(run)
    made.trainer.records.cut(0)  # what a run wrote that was stopped before its first checkpoint
    made.trainer.records.describe(made.facts)
    return train_to_end(run, shards, made)


def resume(run: str | Path) -> Path:
    """Goes on with a run from its newest whole checkpoint as if it had never stopped; returns the run folder."""
    run = Path(run)
    facts = read_run(run)
    if facts["status"] == "done":
        say(f"{run} is finished; nothing to resume. Results: {run / 'hf'} and {run / 'report.html'}")
        return run
    shards, checkpoint = shards_of_run(run, facts), newest(run)
    carried = (facts.get("extended_from") or {}).get("stages", 0)
    made = build(recipe_of(facts, run), shards, stages=stages_of(facts), carried=carried)
    made.trainer.restore(checkpoint)
    kept = ("created", "initialised_from", "extended_from", "git", "stages")
    made.facts.update({key: facts[key] for key in kept if key in facts})
    made.trainer.records.describe(made.facts)
    say(f"Resuming {run} from {checkpoint.folder.name}")
    return train_to_end(run, shards, made)


def make_folder(run: Path) -> None:
    """Makes a run folder; raises `StorageError` where there can be none."""
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{run} cannot be a run folder: {error.strerror}. Name another with run=FOLDER.") from error


def train_to_end(run: Path, shards: Shards, made: Pretraining) -> Path:
    """Trains to the end, then leaves the Hugging Face folder and the report."""
    records = made.trainer.records
    say_missing(made.trainer.heldout)
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
    transformer = made.trainer.model.settings.kind == "transformer"
    say(f"Model:  {folder}" + (" (transformers loads it as ErnieModel or ErnieForMaskedLM)" if transformer else ""))
    say(f"Report: {page}")
    return run


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
