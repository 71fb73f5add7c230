"""The checkpoint that fine-tuning starts from: tensors, tokeniser and trained task ids."""

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

_MIN_LENGTH = 8
"""Shortest useful sequence: three special tokens and some words."""


@dataclass(frozen=True)
class PretrainedCheckpoint:
    """A checkpoint and its tokeniser."""

    path: Path
    stored: StoredModel
    tokenizer: SubwordTokenizer

    @property
    def size(self) -> Size:
        """The model size of the paper whose settings apply."""
        return size_for(self.stored.settings.layers)

    @property
    def shape(self) -> tuple[int, int]:
        """Layers and width."""
        return self.stored.settings.layers, self.stored.settings.hidden

    def build(self, settings: FineTuningSettings, seed: int) -> tuple[MultiTaskModel, tuple[str, ...]]:
        """Build the encoder without heads, with the dropout of `settings`.

        Returns (model, names of parameters that the checkpoint lacks; they are initialised from `seed`).
        """
        dropout = {"dropout": settings.dropout}
        if settings.attention_dropout is not None:
            dropout["attention_dropout"] = settings.attention_dropout
        loaded = load_model(self.stored, [], seed, self.stored.settings.model_copy(update=dropout))
        return loaded.model, loaded.report.new

    def fingerprint(self) -> str:
        """Return a hash of the encoder's settings, its parameters and the tokeniser.

        A finished run is reused only for the same hash. The settings count because the same parameters with another
        activation or number of heads are another model.
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
        """Return (row of the task embedding, note for the user or '').

        `requested`: a task's name or a row. Without it, `settings.task_id` applies. If the user did not set that key
        (`explicit`) and the checkpoint was not trained with that row, row 0 is used instead.
        Raises `ConfigError` for an unknown name or row, `CheckpointError` for a row that was not trained.
        """
        rows, names = self.stored.settings.task_ids, self.stored.task_ids
        row = settings.task_id
        if requested is None and not explicit and row and not (row < rows and self._is_trained(row)):
            note = f"using task id 0: this checkpoint was not trained with task id {row} of the settings"
            return self._check_trained(0), note
        if requested is not None:
            if not requested.isdecimal() and requested not in names:
                known = ", ".join(names) or "none; give a row number"
                raise ConfigError(
                    f"{self.path} has no task {requested!r}.{did_you_mean(requested, names)} Tasks with an id: {known}."
                )
            row = int(requested) if requested.isdecimal() else names[requested]
        if row and row >= rows:
            has = f"a task embedding of {rows} rows" if rows else "no task embedding"
            raise ConfigError(f"{self.path} has {has}, so task id {row} does not exist. Remove --task-id.")
        return self._check_trained(row), ""

    def _trained_instances(self) -> dict[str, int]:
        """Return the trained instances of each task with an id; empty if not recorded, as in external checkpoints."""
        counts: Mapping[str, int] = self.stored.metadata.get("ernie2_task_instances") or {}
        return dict(counts) if self.stored.task_ids and self.stored.settings.task_ids else {}

    def _is_trained(self, row: int) -> bool:
        counts = self._trained_instances()
        return not counts or any(counts.get(name) for name, number in self.stored.task_ids.items() if number == row)

    def _check_trained(self, row: int) -> int:
        if self._is_trained(row):
            return row
        names = [name for name, number in self.stored.task_ids.items() if number == row]
        owner = f"{names[0]} (task id {row})" if names else f"task id {row}, which belongs to no task,"
        trained = [f"{name} ({count:,})" for name, count in self._trained_instances().items() if count]
        raise CheckpointError(
            f"{self.path}: {owner} was not trained, so its row of the task embedding is random. "
            + (f"Choose a trained one with --task-id: {', '.join(trained)}." if trained else "Pre-train it first.")
        )


def load_pretrained(checkpoint: str | Path, tokenizer: str | Path | None = None) -> PretrainedCheckpoint:
    """Load a checkpoint and its tokeniser: the one in its folder unless `tokenizer` names another.

    Raises `CheckpointError` if there is no checkpoint or tokeniser, or the tokeniser has more tokens than the token
    embedding has rows.
    """
    path = Path(checkpoint)
    stored = open_run_or_checkpoint(path)
    loaded = load_checkpoint_tokenizer(path) if tokenizer is None else load_tokenizer(tokenizer)
    if loaded is None:
        raise CheckpointError(
            f"{path} has no tokeniser (tokenizer.json or vocab.txt). Copy it there, or give --tokenizer FILE."
        )
    if loaded.vocab_size > stored.vocab_size:
        raise CheckpointError(
            f"{path} has {stored.vocab_size} token embeddings, but its tokeniser has {loaded.vocab_size} tokens. "
            "Give the right tokeniser with --tokenizer."
        )
    return PretrainedCheckpoint(path, stored, loaded)


def fit_lengths(
    settings: FineTuningSettings, pretrained: PretrainedCheckpoint, head: Head
) -> tuple[FineTuningSettings, tuple[str, ...]]:
    """Return (`settings` with lengths reduced to the encoder's positions, one note per change).

    `max_query_length` matters only for spans.
    """
    rows, notes = pretrained.stored.settings.position_rows, []
    length, query = settings.max_length, settings.max_query_length
    if length > rows:
        notes.append(f"max_length {length} → {rows}: the encoder has {rows} positions")
        length = rows
    if head == "span" and query > max(_MIN_LENGTH, length) // 2:
        query = max(_MIN_LENGTH, length) // 2
        notes.append(
            f"max_query_length {settings.max_query_length} → {query}: half of the sequence is reserved for the context"
        )
    return settings.model_copy(update={"max_length": length, "max_query_length": query}), tuple(notes)
