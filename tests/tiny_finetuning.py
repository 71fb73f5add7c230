"""A checkpoint small enough to fine-tune in a second, and random labelled texts in its vocabulary."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ernie2.config.finetuning_settings import FineTuningSettings
from ernie2.config.settings import EncoderSettings
from ernie2.datasets.examples import Answer, Example, Head, LabelledData, Split
from ernie2.finetuning.pretrained import PretrainedCheckpoint, load_pretrained
from ernie2.model.hf import hf_config, save_hf
from ernie2.model.multitask import MultiTaskModel
from ernie2.shards.tokenizer import load_tokenizer

WORDS = [f"w{i}" for i in range(60)]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "good", "bad", "un", "##do", "##ing", "?", "."]


def write_checkpoint(
    folder: Path,
    *,
    with_ids: Mapping[str, int] | None = None,
    instances: Mapping[str, int] | None = None,
    seed: int = 1,
    **changes: Any,
) -> Path:
    """A Hugging Face folder of one layer, 32 wide, with 64 positions, without dropout by default.

    `with_ids`: task name -> row of a table of 16 task ids; `instances`: trained instances of each task.
    """
    shape = {
        "layers": 1,
        "hidden": 32,
        "heads": 2,
        "position_rows": 64,
        "dropout": 0.0,
        "task_ids": 16 if with_ids else 0,
    }
    settings = EncoderSettings(**(shape | changes))
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = folder / "words.txt"
    vocabulary.write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    load_tokenizer(vocabulary).save(folder)
    config = hf_config(settings, len(VOCABULARY), with_ids or {})
    if instances is not None:
        config["ernie2_task_instances"] = dict(instances)
    save_hf(folder, MultiTaskModel(settings, len(VOCABULARY), [], seed), config)
    return folder


def pretrained(folder: Path, **changes: Any) -> PretrainedCheckpoint:
    """That checkpoint, opened."""
    return load_pretrained(write_checkpoint(folder, **changes))


def settings(**changes: Any) -> FineTuningSettings:
    """Two epochs of batches of 4 in fp32, without dropout, at a constant rate."""
    values: dict[str, Any] = {
        "epochs": 2,
        "peak_lr": 1e-3,
        "batch_size": 4,
        "max_length": 32,
        "schedule": "constant",
        "warmup_ratio": 0.0,
        "weight_decay": 0.01,
        "summary": "mean",
        "dropout": 0.0,
        "precision": "fp32",
    }
    return FineTuningSettings(**(values | changes))


def examples(head: Head, count: int, seed: int = 0, pair: bool = True) -> tuple[Example, ...]:
    """Texts that contain their label, `good` or `bad`. Tags and answers mark `good` and the word after it."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        words = list(rng.choice(WORDS, int(rng.integers(4, 12))))
        at = int(rng.integers(0, len(words) - 1))
        name = ("bad", "good")[number % 2]
        identity = str(number)
        if head in ("tagging", "span"):
            words[at] = "good"
            if head == "tagging":
                tags = tuple("B-X" if i == at else "I-X" if i == at + 1 else "O" for i in range(len(words)))
                rows.append(Example(identity, " ".join(words), label=tags, tokens=tuple(words)))
            else:
                context, answer = " ".join(words), " ".join(words[at : at + 2])
                start = len(" ".join(words[:at])) + (1 if at else 0)
                rows.append(Example(identity, "w0 ?", context, (Answer(answer, start),)))
            continue
        words[at] = name
        second = " ".join(rng.choice(WORDS, int(rng.integers(1, 6)))) if pair else None
        label: Any = {"regression": float(number % 2) + 0.25, "multi_label": (name,)}.get(head, name)
        rows.append(Example(identity, " ".join(words), second, label))
    return tuple(rows)


LABELS: dict[Head, tuple[str, ...]] = {
    "classification": ("bad", "good"),
    "multi_label": ("bad", "good"),
    "tagging": ("B-X", "I-X", "O"),
    "regression": (),
    "span": (),
}
METRICS: dict[Head, tuple[str, ...]] = {
    "classification": ("accuracy",),
    "multi_label": ("micro_f1",),
    "tagging": ("entity_f1", "token_accuracy"),
    "regression": ("pearson",),
    "span": ("exact_match", "answer_f1"),
}


def data(head: Head, train: int = 8, dev: int = 6, **splits: Sequence[Example]) -> LabelledData:
    """A dataset of random texts."""
    all_splits = {"train": examples(head, train), "dev": examples(head, dev, seed=1)} | splits
    return LabelledData(
        name="made-up",
        head=head,
        labels=LABELS[head],
        metrics=METRICS[head],
        splits={name: Split(tuple(some), (f"{name}.tsv",), "own") for name, some in all_splits.items()},
        positive="good" if head == "classification" else None,
        answer_rules="squad" if head == "span" else None,
        scheme="IOB2" if head == "tagging" else None,
    )


def write_jsonl(file: Path, some: Sequence[Example]) -> Path:
    """Examples as a user's file: text, pair, label, or tokens and tags, or question, context and answers."""
    rows: list[dict[str, Any]] = []
    for one in some:
        label: Any = one.label
        if isinstance(label, tuple) and label and isinstance(label[0], Answer):
            label = {"text": [a.text for a in label], "answer_start": [a.start for a in label]}
        row: dict[str, Any] = {"text": list(one.tokens) or one.text, "label": label}
        rows.append(row | ({"pair": one.pair} if one.pair is not None else {}))
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file
