"""Build a model from a `StoredModel` and report on every tensor: used, left out, or new.

A table may need more rows than the checkpoint has. Rows of task ids are always added as needed, because they change no
output before training: copies of row 0, or zeros if there is no table. Rows of segment types, positions and words start
at random, so they are added only for tables listed in `grow`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ernie2.config.settings import EncoderSettings
from ernie2.console import log_info, log_warning
from ernie2.errors import CheckpointError
from ernie2.model.formats.stored_model import MASKED, StoredModel, open_stored_model
from ernie2.model.heads import HeadSpec
from ernie2.model.multitask import MultiTaskModel
from ernie2.model.tensor_names import TASK_TABLE, is_optional, vocabulary_tensors

GROWABLE = ("segment_types", "position_rows", "vocabulary")
"""Tables that may grow; new rows start at random."""

_TABLES = {
    "encoder.embeddings.segment.weight": "segment_types",
    "encoder.embeddings.position.weight": "position_rows",
    TASK_TABLE: "task_ids",
}

_MAY_DIFFER = {"dropout", "attention_dropout", "init_std", "task_ids"}
"""Settings that may differ from the checkpoint."""


@dataclass(frozen=True, slots=True)
class LoadReport:
    """Which tensors of a checkpoint were used.

    `used`, `left_out`: names in the file; `name[n:]` are the rows from n. `new`: our names of parameters, or rows of
    them, that the file lacks. `notes`: further notes for the user.
    """

    used: tuple[str, ...]
    left_out: tuple[str, ...]
    new: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return one line each for used, left out and new, with layers folded into one name, then the notes."""
        lines = [
            f"{what} ({len(names)}): {', '.join(fold_layers(names))}" if names else f"{what}: nothing"
            for what, names in (("used", self.used), ("left out", self.left_out), ("newly initialised", self.new))
        ]
        return lines + [f"note: {note}" for note in self.notes]

    def log(self) -> None:
        """Log `lines`; left-out tensors and notes as warnings."""
        used, left_out, new, *notes = self.lines()
        log_info(f"  {used}")
        (log_warning if self.left_out else log_info)(f"  {left_out}")
        log_info(f"  {new}")
        for note in notes:
            log_warning(f"  {note}")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model with the parameters of a checkpoint."""

    model: MultiTaskModel
    stored: StoredModel
    report: LoadReport


def load_model(
    source: str | Path | StoredModel,
    specs: Sequence[HeadSpec] | None = None,
    seed: int = 0,
    settings: EncoderSettings | None = None,
    vocab_size: int | None = None,
    grow: Collection[str] = (),
) -> LoadedModel:
    """Load the model of a checkpoint in any layout.

    `specs`: the heads to build; by default those of the checkpoint. `settings`, `vocab_size`: by default those of the
    checkpoint. Given settings must have the same encoder architecture. More rows are allowed for the tables of
    `GROWABLE` listed in `grow`, and always for task ids. A smaller `vocab_size` drops rows.

    Parameters that the checkpoint lacks are initialised as in a new model of that `seed`, a task embedding with zeros;
    they are listed in `report.new`. Raises `CheckpointError` if the checkpoint is unreadable, damaged, or does not fit.
    """
    stored = source if isinstance(source, StoredModel) else open_stored_model(Path(source))
    chosen = settings or stored.settings
    rows = stored.vocab_size if vocab_size is None else vocab_size
    _check_agreement(chosen, rows, stored, grow)
    model = MultiTaskModel(chosen, rows, stored.specs if specs is None else specs, seed)
    return LoadedModel(model, stored, _copy_tensors(model, stored))


def check_numbers(name: str, tensor: Tensor, where: str) -> None:
    """Raise `CheckpointError` if the tensor is not floating-point or not finite."""
    if not tensor.is_floating_point():
        kind = str(tensor.dtype).removeprefix("torch.")
        raise CheckpointError(
            f"{where}: {name} has dtype {kind}: quantised or not a weight. Save it in a floating-point dtype."
        )
    finite = torch.isfinite(tensor if tensor.dtype.itemsize > 1 else tensor.float())
    if bad := int(tensor.numel() - finite.sum()):
        raise CheckpointError(
            f"{where}: {bad:,} of the {tensor.numel():,} values of {name} are not finite: the file is damaged or its "
            "training diverged. Use another checkpoint."
        )


def fold_layers(names: Sequence[str]) -> list[str]:
    """Merge names that differ only in the layer: layer.0.x, layer.1.x -> layer.{0-1}.x; keep the order."""
    layers: dict[str, list[int]] = {}
    for name in names:
        numbered = _LAYER.search(name)
        layers.setdefault(_LAYER.sub("{}", name, count=1), []).extend([int(numbered[0])] if numbered else [])
    return [pattern.replace("{}", _ranges(sorted(numbers)), 1) for pattern, numbers in layers.items()]


_LAYER = re.compile(r"(?<=layer_)\d+(?=_)|(?<=layer\.)\d+|(?<=layers\.)\d+|(?<=block\.)\d+")


def _ranges(numbers: Sequence[int]) -> str:
    """[3] -> '3'; [0, 1, 2] -> '{0-2}'; [0, 2] -> '{0,2}'."""
    if len(numbers) < 2:
        return "".join(map(str, numbers))
    consecutive = numbers[-1] - numbers[0] == len(numbers) - 1
    return "{" + (f"{numbers[0]}-{numbers[-1]}" if consecutive else ",".join(map(str, numbers))) + "}"


def _check_agreement(chosen: EncoderSettings, vocab_size: int, stored: StoredModel, grow: Collection[str]) -> None:
    """Raise `CheckpointError` that lists every setting that must not differ."""
    if unknown := sorted(set(grow) - set(GROWABLE)):
        raise CheckpointError(f"{unknown[0]!r} cannot grow; choose from {', '.join(GROWABLE)}.")
    ours, theirs = ({**dict(one), "ffn": one.ffn_width} for one in (chosen, stored.settings))
    differing, growing = [], dict[str, str]()
    for name in ours:
        fewer_ids = name == "task_ids" and 0 < ours[name] < theirs[name]
        if (name in _MAY_DIFFER or ours[name] == theirs[name]) and not fewer_ids:
            continue
        difference = f"encoder.{name}={ours[name]!r}, there {theirs[name]!r}"
        if name not in GROWABLE or ours[name] < theirs[name]:
            differing.append(difference)
        elif name not in grow:
            growing[name] = difference
    if vocab_size > stored.vocab_size and "vocabulary" not in grow:
        growing["vocabulary"] = f"{vocab_size} tokens, there {stored.vocab_size}"
    if differing or growing:
        advice = "" if differing else f", or add new, untrained rows by growing {', '.join(growing)}"
        raise CheckpointError(
            f"the requested encoder differs from that of {stored.where}: {'; '.join([*differing, *growing.values()])}. "
            f"Set these as in the checkpoint{advice}."
        )


@torch.no_grad()
def _copy_tensors(model: MultiTaskModel, stored: StoredModel) -> LoadReport:
    """Copy every tensor that has a parameter."""
    tensors = {name.replace(MASKED, model.masked_task or MASKED): entry for name, entry in stored.tensors.items()}
    expected = _expected_shapes(model, stored)
    used: list[str] = []
    left: list[str] = list(stored.left_out)
    new: list[str] = []
    for ours, parameter in model.state_dict().items():
        entry = tensors.pop(ours, None)
        if entry is None:
            if not is_optional(ours):
                raise CheckpointError(f"{stored.where} lacks {ours}; it is damaged.")
            new.append(ours)
            if ours == TASK_TABLE:
                parameter.zero_()
            continue
        name = " + ".join(entry.names)
        if (shape := tuple(entry.tensor.shape)) != expected[ours]:
            raise CheckpointError(
                f"{stored.where}: {name} has shape {shape}; its configuration and the requested settings need "
                f"{expected[ours]}."
            )
        check_numbers(name, entry.tensor, stored.where)
        place = parameter[: model.vocab_size] if ours in vocabulary_tensors(model.specs.values()) else parameter
        place[: len(entry.tensor)] = entry.tensor[: len(place)].to(parameter.dtype)
        used.extend(entry.names)
        if len(place) > (rows := len(entry.tensor)):
            new.append(f"{ours}[{rows}:]")
            if ours == TASK_TABLE:
                place[rows:] = place[0]
        if len(place) < rows:
            left.extend(f"{name}[{len(place)}:]" for name in entry.names)
    left.extend(name for entry in tensors.values() for name in entry.names)
    return LoadReport(tuple(sorted(used)), tuple(sorted(left)), tuple(sorted(new)), stored.notes)


def _expected_shapes(model: MultiTaskModel, stored: StoredModel) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor in the file: ours, with the row counts of its configuration."""
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    rows = {name: getattr(stored.settings, setting) for name, setting in _TABLES.items()}
    rows |= dict.fromkeys(vocabulary_tensors(model.specs.values()), stored.vocab_size)
    return {name: (rows.get(name, shape[0]), *shape[1:]) for name, shape in shapes.items()}
