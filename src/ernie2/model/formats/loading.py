"""A `StoredModel` checkpoint → a model, and an account of every tensor: used, left out, or new.

A table may need more rows than the checkpoint has. Rows of task ids are added whenever the settings want them, since
they change no output until they are trained: copies of row 0, or zeros where there is no table. Rows of segment types,
positions and words start at random, so they are added only where the caller names them in `grow`.
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
"""Tables whose new rows start at random."""

_TABLES = {
    "encoder.embeddings.segment.weight": "segment_types",
    "encoder.embeddings.position.weight": "position_rows",
    TASK_TABLE: "task_ids",
}

_MAY_DIFFER = {"dropout", "attention_dropout", "init_std", "task_ids"}
"""Settings a caller may choose differently from the checkpoint."""


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What became of every tensor.

    `used`, `left_out`: names as in the file; `name[n:]` are rows from the n-th on. `new`: our names of parameters, or
    rows of them, that the file does not have. `notes`: what else a user should know.
    """

    used: tuple[str, ...]
    left_out: tuple[str, ...]
    new: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """What to print: a line each for used, left out and new, layers folded into one name, then the notes."""
        told = [
            f"{what} ({len(names)}): {', '.join(fold_layers(names))}" if names else f"{what}: nothing"
            for what, names in (("used", self.used), ("left out", self.left_out), ("newly initialised", self.new))
        ]
        return told + [f"note: {note}" for note in self.notes]

    def log(self) -> None:
        """Log `lines`: what was left out, and notes, as warnings."""
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
    """The model of a checkpoint in any layout.

    `specs`: the heads to build; by default those the checkpoint has. `settings`, `vocab_size`: by default the
    checkpoint's. Settings that are given must agree with it on all that shapes the encoder; more rows of the tables in
    `GROWABLE` are allowed where `grow` names them, more task ids always. A smaller `vocab_size` cuts rows off.
    What the checkpoint lacks starts as in a new model of that `seed`, a task table at zero; all of it is in
    `report.new`. Raises `CheckpointError` where the checkpoint cannot be read, is damaged, or does not fit.
    """
    stored = source if isinstance(source, StoredModel) else open_stored_model(Path(source))
    chosen = settings or stored.settings
    rows = stored.vocab_size if vocab_size is None else vocab_size
    _check_agreement(chosen, rows, stored, grow)
    model = MultiTaskModel(chosen, rows, stored.specs if specs is None else specs, seed)
    return LoadedModel(model, stored, _copy_tensors(model, stored))


def check_numbers(name: str, tensor: Tensor, where: str) -> None:
    """Raise `CheckpointError`, naming the tensor, for weights that are not floating-point or not all finite."""
    if not tensor.is_floating_point():
        kind = str(tensor.dtype).removeprefix("torch.")
        raise CheckpointError(
            f"{where}: {name} holds {kind} numbers, so it is quantised or no weight; save it as floating-point numbers."
        )
    finite = torch.isfinite(tensor if tensor.dtype.itemsize > 1 else tensor.float())
    if bad := int(tensor.numel() - finite.sum()):
        raise CheckpointError(
            f"{where}: {bad:,} of the {tensor.numel():,} numbers of {name} are not finite; the file is damaged or its "
            "training diverged. Take another checkpoint."
        )


def fold_layers(names: Sequence[str]) -> list[str]:
    """Names that differ only in their layer as one: layer.0.x, layer.1.x -> layer.{0-1}.x, at the first one's place."""
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
    whole = numbers[-1] - numbers[0] == len(numbers) - 1
    return "{" + (f"{numbers[0]}-{numbers[-1]}" if whole else ",".join(map(str, numbers))) + "}"


def _check_agreement(chosen: EncoderSettings, vocab_size: int, stored: StoredModel, grow: Collection[str]) -> None:
    """Raises `CheckpointError` with every setting that differs and may not."""
    if unknown := sorted(set(grow) - set(GROWABLE)):
        raise CheckpointError(f"nothing called {unknown[0]!r} can grow; only {', '.join(GROWABLE)}.")
    ours, theirs = ({**dict(one), "ffn": one.ffn_width} for one in (chosen, stored.settings))
    differing, growing = [], dict[str, str]()
    for name in ours:
        fewer_ids = name == "task_ids" and 0 < ours[name] < theirs[name]
        if (name in _MAY_DIFFER or ours[name] == theirs[name]) and not fewer_ids:
            continue
        told = f"encoder.{name}={ours[name]!r}, there {theirs[name]!r}"
        if name not in GROWABLE or ours[name] < theirs[name]:
            differing.append(told)
        elif name not in grow:
            growing[name] = told
    if vocab_size > stored.vocab_size and "vocabulary" not in grow:
        growing["vocabulary"] = f"{vocab_size} tokens, there {stored.vocab_size}"
    if differing or growing:
        asked = "" if differing else f", or ask for new rows, untrained at first, by growing {', '.join(growing)}"
        raise CheckpointError(
            f"the encoder asked for differs from that of {stored.where}: {'; '.join([*differing, *growing.values()])}. "
            f"Set these as the checkpoint has them{asked}."
        )


@torch.no_grad()
def _copy_tensors(model: MultiTaskModel, stored: StoredModel) -> LoadReport:
    """Copies every tensor there is a place for."""
    pieces = {name.replace(MASKED, model.masked_task or MASKED): piece for name, piece in stored.tensors.items()}
    expected = _expected_shapes(model, stored)
    used: list[str] = []
    left: list[str] = list(stored.left_out)
    new: list[str] = []
    for ours, parameter in model.state_dict().items():
        piece = pieces.pop(ours, None)
        if piece is None:
            if not is_optional(ours):
                raise CheckpointError(f"{stored.where} lacks {ours}; it is damaged.")
            new.append(ours)
            if ours == TASK_TABLE:
                parameter.zero_()
            continue
        name = " + ".join(piece.names)
        if (shape := tuple(piece.tensor.shape)) != expected[ours]:
            raise CheckpointError(
                f"{stored.where}: {name} has shape {shape}, but {expected[ours]} fits its configuration and the "
                "settings asked for."
            )
        check_numbers(name, piece.tensor, stored.where)
        place = parameter[: model.vocab_size] if ours in vocabulary_tensors(model.specs.values()) else parameter
        place[: len(piece.tensor)] = piece.tensor[: len(place)].to(parameter.dtype)
        used.extend(piece.names)
        if len(place) > (rows := len(piece.tensor)):
            new.append(f"{ours}[{rows}:]")
            if ours == TASK_TABLE:
                place[rows:] = place[0]
        if len(place) < rows:
            left.extend(f"{name}[{len(place)}:]" for name in piece.names)
    left.extend(name for piece in pieces.values() for name in piece.names)
    return LoadReport(tuple(sorted(used)), tuple(sorted(left)), tuple(sorted(new)), stored.notes)


def _expected_shapes(model: MultiTaskModel, stored: StoredModel) -> dict[str, tuple[int, ...]]:
    """The shape every tensor should have in the file: ours, with the rows its own configuration states."""
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    rows = {name: getattr(stored.settings, setting) for name, setting in _TABLES.items()}
    rows |= dict.fromkeys(vocabulary_tensors(model.specs.values()), stored.vocab_size)
    return {name: (rows.get(name, shape[0]), *shape[1:]) for name, shape in shapes.items()}
