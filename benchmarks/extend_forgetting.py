"""Forgetting after a finished run is extended with a new task: with replay, and without.

    python benchmarks/extend_forgetting.py [FOLDER] [--seeds 3]

The data is synthetic. In an invented language, a sentence begins with its number in the paragraph and contains the six
words of one topic, in any order, and a marker. A document has one topic and one marker. The marker decides whether
every word of the document or only the first of each sentence is capitalised. So a masked word is the missing one of its
topic, capitalisation follows from the marker, and the order of shuffled segments from their numbers: an encoder of two
layers learns all three tasks within two minutes. The new task is token-document relation, on a second corpus. It groups
the same words into other topics, and every sentence has three words that occur nowhere else in its document.

Writes FOLDER/forgetting.json, FOLDER/forgetting.md, and a report with all extended runs.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

import ernie2
from comparisons.script import count, reported_errors
from ernie2.config.overrides import as_override
from ernie2.reporting.comparison import Comparison, compare
from ernie2.reporting.records_reader import read_records
from ernie2.studies.analysis.statistics import Estimate
from ernie2.training.checkpoints import newest, open_checkpoint
from ernie2.training.run_record import read_run

Array = NDArray[Any]

OLD = ("knowledge_masking", "capitalization_prediction", "sentence_reordering")
NEW = "token_document_relation"
NUMBERS = ("eka", "duo", "tri", "kvar", "penta", "ses")
TOPICS, WORDS = 20, 6
TABLE = "encoder.embeddings.task.weight"


def write_corpus(file: Path, grouping: int, seed: int, strangers: int = 0, documents: int = 500) -> None:
    """Write documents of one topic each as txt; `grouping`: seed for the assignment of words to topics.

    `strangers`: words of other topics in every sentence.
    """
    middles, ends = ("alo", "eno", "iro", "ume"), ("la", "mi", "ne", "po", "ru", "sa")
    words = np.array([f"{a}{b}{c}" for a in "bdfgk" for b in middles for c in ends])
    topic_words = np.random.default_rng(grouping).permutation(len(words)).reshape(TOPICS, WORDS)
    rng = np.random.default_rng(seed)
    texts = [_document(rng, topic_words[rng.integers(TOPICS)], words, strangers) for _ in range(documents)]
    file.write_text("\n\n".join(texts) + "\n", encoding="utf-8")


def _document(rng: Generator, topic: Array, words: Array, strangers: int) -> str:
    """Return one to three paragraphs of four to six sentences, each with its number, words and marker."""
    capitals = bool(rng.integers(2))
    others = rng.permutation(np.setdiff1d(np.arange(len(words)), topic)).tolist()
    paragraphs = []
    for _ in range(rng.integers(1, 4)):
        sentences = []
        for number in range(rng.integers(4, 7)):
            chosen = [*topic, *(others.pop() for _ in range(strangers))]
            shown = [NUMBERS[number], *words[rng.permutation(chosen)].tolist(), "alta" if capitals else "basa"]
            styled = [shown[0].title(), *(word.title() if capitals else word for word in shown[1:])]
            sentences.append(" ".join(styled) + "!")
        paragraphs.append(" ".join(sentences))
    return "\n".join(paragraphs)


def recipe(folder: Path, seed: int, steps: int) -> dict[str, Any]:
    """Return a recipe with three tasks in three stages."""
    return {
        "name": "forgetting",
        "about": "An invented language in which three tasks can be learned within minutes.",
        "seed": seed,
        "run": str(folder / f"run-{seed}"),
        "corpora": {"first": {"path": str(folder / "first.txt"), "licence": "CC0 1.0"}},
        "tokenizer": {"train": 400},
        "knowledge": {"phrases": None},
        "shards": {"folder": str(folder / "first"), "sentence_tokens": 58, "heldout": 0.2},
        "tasks": {OLD[0]: {}, OLD[1]: {}, OLD[2]: {"max_segments": 3}},
        "stages": {"steps": steps},
        "batch": {"batch_tokens": 1024, "pack_tokens": 1024, "sequence_tokens": 64},
        "encoder": {"layers": 2, "hidden": 64, "heads": 2, "position_rows": 64},
        "train": {
            "peak_lr": 2e-3,
            "restart": "never",
            "precision": "fp32",
            "checkpoint_every": 100_000,
            "log_every": 20,
        },
    }


def one_seed(folder: Path, seed: int, steps: int, new_steps: int) -> tuple[Path, Path]:
    """Train a run and extend it twice, with and without replay; return the two extended runs."""
    run = ernie2.pretrain(recipe(folder, seed, steps))
    extended = []
    for name, replay in (("replay", None), ("alone", 0)):
        target = folder / f"{name}-{seed}"
        ernie2.extend(run, NEW, folder / "second", [as_override("run", target), f"stages.steps={new_steps}"], replay)
        _check_bit_equal(run, target)
        extended.append(target)
    return extended[0], extended[1]


def _check_bit_equal(run: Path, target: Path) -> None:
    """Check that the extension starts with the parameters of the finished run, except the new task's row."""
    step = read_run(target).extended_from.step
    row = next(task.id for task in read_run(target).tasks if task.name == NEW)
    old = newest(run).parameters()
    new = open_checkpoint(target / "checkpoints" / f"step_{step:08d}").parameters()
    for name, values in old.items():
        ours, theirs = new[name].numpy(), values.numpy()
        if name == TABLE:
            assert ours[row].tobytes() == theirs[0].tobytes(), name
            ours, theirs = np.delete(ours, row, 0), np.delete(theirs, row, 0)
        assert ours.tobytes() == theirs.tobytes(), name


def as_markdown(table: Comparison) -> str:
    """Return the comparison as a table: accuracy and its change, with 95 % intervals over seeds."""
    heads = ["task", "best baseline", "before", *(part for c in table.columns for part in (c.label, "change"))]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in table.rows:
        cells = [row.task.name, f"{row.baseline:.3f}" if row.baseline is not None else "–", _shown(row.before)]
        for cell in row.cells:
            cells += [_shown(cell.after), _shown(cell.change, "+.3f")] if cell else ["–", "–"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _shown(spread: Estimate | None, form: str = ".3f") -> str:
    if spread is None:
        return "–"
    bounds = f" ({spread.note})" if len(spread.values) > 1 and spread.note else ""
    if spread.low is not None:
        bounds = f" ({spread.low:{form}} to {spread.high:{form}})"
    return f"{spread.mean:{form}}{bounds}"


def as_json(table: Comparison) -> dict[str, Any]:
    """Return the same with the values of all seeds."""
    labels = [column.label for column in table.columns]
    return {
        row.task.name: {
            "baseline": row.baseline,
            "before": _plain(row.before),
            **{
                label: {"after": _plain(cell.after), "change": _plain(cell.change)}
                for label, cell in zip(labels, row.cells, strict=True)
                if cell
            },
        }
        for row in table.rows
    }


def _plain(spread: Estimate | None) -> dict[str, Any] | None:
    if spread is None:
        return None
    return {"mean": spread.mean, "95 %": [spread.low, spread.high], "seeds": [*spread.values.values()]}


@reported_errors()
def main() -> None:
    """Generate the data, train every seed, write table and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path("extend-forgetting"))
    parser.add_argument("--seeds", type=count, default=3)
    parser.add_argument("--steps", type=count, default=600, help="iterations per task")
    parser.add_argument("--new-steps", type=int, default=400, help="iterations of the new task")
    chosen = parser.parse_args()
    folder, began = chosen.folder, time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    write_corpus(folder / "first.txt", grouping=1, seed=11)
    write_corpus(folder / "second.txt", grouping=2, seed=12, strangers=3)
    first = recipe(folder, 0, chosen.steps)
    ernie2.prepare(first)
    second = {
        "corpora": {"second": {"path": str(folder / "second.txt"), "licence": "CC0 1.0"}},
        "tokenizer": {"file": str(folder / "first" / "tokenizer.json")},
        "shards": {**first["shards"], "folder": str(folder / "second")},
        "tasks": {NEW: {}},
    }
    ernie2.prepare({**first, **second})
    pairs = [one_seed(folder, seed, chosen.steps, chosen.new_steps) for seed in range(chosen.seeds)]
    runs = [run for column in zip(*pairs, strict=True) for run in column]
    page = ernie2.report(runs[0], runs[1:])
    table = compare([read_records(run) for run in runs])
    minutes = (time.monotonic() - began) / 60
    (folder / "forgetting.md").write_text(as_markdown(table), encoding="utf-8")
    results = {"machine": platform.machine(), "minutes": round(minutes, 1), "tasks": as_json(table)}
    (folder / "forgetting.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    print(f"\n{as_markdown(table)}\n{len(runs)} extended runs, {minutes:.1f} min; report: {page}")


if __name__ == "__main__":
    main()
