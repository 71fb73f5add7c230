"""A checkpoint of any kind as the start of fine-tuning: its tensors, its tokeniser, and task ids it knows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ernie2.config.finetuning_settings import FineTuningSettings
from ernie2.datasets.declarations import Size
from ernie2.datasets.examples import Head
from ernie2.errors import CheckpointError, ConfigError, did_you_mean
from ernie2.finetuning.paper import size_for
from ernie2.model.formats.loading import load_model
from ernie2.model.formats.stored_model import StoredModel
from ernie2.model.multitask import MultiTaskModel
from ernie2.runs.sources import load_checkpoint_tokenizer, open_run_or_checkpoint
from ernie2.shards.tokenizer import SubwordTokenizer, load_tokenizer

_SPECIALS = 8
"""Fewest tokens of a text that make sense: three special ones and some words."""


@dataclass(frozen=True)
class PretrainedCheckpoint:
    """What is fine-tuned: a checkpoint as it was read, with its tokeniser."""

    where: Path
    stored: StoredModel
    tokenizer: SubwordTokenizer

    @property
    def size(self) -> Size:
        """Whose settings this encoder takes."""
        return size_for(self.stored.settings.layers)

    @property
    def shape(self) -> tuple[int, int]:
        """Layers and width."""
        return self.stored.settings.layers, self.stored.settings.hidden

    def build(self, settings: FineTuningSettings, seed: int) -> tuple[MultiTaskModel, tuple[str, ...]]:
        """(the encoder without heads, our names of what the checkpoint lacks and `seed` initialised).

        Dropout is that of `settings`, in the encoder and before the head.
        """
        dropout = {"dropout": settings.dropout}
        if settings.attention_dropout is not None:
            dropout["attention_dropout"] = settings.attention_dropout
        loaded = load_model(self.stored, [], seed, self.stored.settings.model_copy(update=dropout))
        return loaded.model, loaded.report.new

    def fingerprint(self) -> str:
        """A hash of the encoder's settings, its parameters and the tokeniser.

        It tells whether a finished run was of this checkpoint. The same parameters under other settings, such as
        another activation or number of heads, are another model.
        """
        digest = hashlib.blake2b(self.tokenizer.fingerprint.encode(), digest_size=16)
        settings = self.stored.settings.model_dump(mode="json") | {"pad_id": self.stored.pad_id}
        digest.update(json.dumps(settings, sort_keys=True).encode())
        for name in sorted(self.stored.tensors):
            if name.startswith("encoder."):
                digest.update(name.encode())
                values = self.stored.tensors[name].tensor.detach().cpu().contiguous().view(-1)
                digest.update(values.view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def task_id(
        self, requested: str | None, settings: FineTuningSettings, *, explicit: bool = False
    ) -> tuple[int, str]:
        """(row of the task embedding, what to tell of it).

        `requested` is a task's name or a row. If it is None, `settings.task_id` is used: as it is if the user set it
        (`explicit`), else only where the checkpoint was trained with it, else row 0. Raises `ConfigError` for a name
        that is not there and a row the table does not have, `CheckpointError` for an id that saw no instances.
        """
        rows, names = self.stored.settings.task_ids, self.stored.task_ids
        row = settings.task_id
        if requested is None and not explicit and row and not (row < rows and self._is_trained(row)):
            return self._check_trained(
                0
            ), f"task id 0: this checkpoint was not trained with {row}, which the settings name"
        if requested is not None:
            if not requested.isdecimal() and requested not in names:
                known = ", ".join(names) or "none, so give a row"
                raise ConfigError(
                    f"{self.where} knows no task {requested!r}.{did_you_mean(requested, names)} "
                    f"Tasks it has ids for: {known}."
                )
            row = int(requested) if requested.isdecimal() else names[requested]
        if row and row >= rows:
            has = f"a task embedding of {rows} rows" if rows else "no task embedding"
            raise ConfigError(f"{self.where} has {has}; there is no task id {row}. Leave --task-id out.")
        return self._check_trained(row), ""

    def _trained_instances(self) -> dict[str, int]:
        """Instances that each task with an id was trained on; none where nobody knows, as in checkpoints of others."""
        counts: Mapping[str, int] = self.stored.metadata.get("ernie2_task_instances") or {}
        return dict(counts) if self.stored.task_ids and self.stored.settings.task_ids else {}

    def _is_trained(self, row: int) -> bool:
        counts = self._trained_instances()
        return not counts or any(counts.get(name) for name, number in self.stored.task_ids.items() if number == row)

    def _check_trained(self, row: int) -> int:
        if self._is_trained(row):
            return row
        names = [name for name, number in self.stored.task_ids.items() if number == row]
        whose = f"{names[0]} (task id {row})" if names else f"task id {row}, which no task owns,"
        trained = [f"{name} ({count:,})" for name, count in self._trained_instances().items() if count]
        raise CheckpointError(
            f"{self.where}: {whose} saw no instances in pre-training, so its row holds random numbers. "
            + (f"Choose one that did with --task-id: {', '.join(trained)}." if trained else "Pre-train it first.")
        )


def load_pretrained(checkpoint: str | Path, tokenizer: str | Path | None = None) -> PretrainedCheckpoint:
    """The checkpoint with the tokeniser beside it, or the one given.

    Raises `CheckpointError` where it is none, has no tokeniser, or one with more tokens than its word table has rows.
    """
    where = Path(checkpoint)
    stored = open_run_or_checkpoint(where)
    loaded = load_checkpoint_tokenizer(where) if tokenizer is None else load_tokenizer(tokenizer)
    if loaded is None:
        raise CheckpointError(
            f"{where} has no tokeniser beside it (tokenizer.json or vocab.txt), so texts cannot be read. Put it there, "
            "or name it with --tokenizer."
        )
    if loaded.vocab_size > stored.vocab_size:
        raise CheckpointError(
            f"{where} has {stored.vocab_size} rows of words, its tokeniser {loaded.vocab_size} tokens: they do not "
            "belong together. Name the right one with --tokenizer."
        )
    return PretrainedCheckpoint(where, stored, loaded)


def fit_lengths(
    settings: FineTuningSettings, pretrained: PretrainedCheckpoint, head: Head
) -> tuple[FineTuningSettings, tuple[str, ...]]:
    """(`settings` with lengths that the encoder's positions hold, what was changed); only spans have a question."""
    rows, told = pretrained.stored.settings.position_rows, []
    length, query = settings.max_length, settings.max_query
    if length > rows:
        told.append(f"max_length {length} → {rows}: the encoder has no more positions")
        length = rows
    if head == "span" and query > max(_SPECIALS, length) // 2:
        query = max(_SPECIALS, length) // 2
        told.append(f"max_query {settings.max_query} → {query}, so that half of the sequence is left for the context")
    return settings.model_copy(update={"max_length": length, "max_query": query}), tuple(told)
