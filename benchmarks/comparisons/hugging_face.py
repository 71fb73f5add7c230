"""Hugging Face's `ErnieForMaskedLM` as its users train it, on the instances of our packs, laid out as padded batches.

S sequences of a batch · n its longest

It has the sizes, start, precision, optimiser, clipping and dropout of ours. It learns masked tokens alone and scores
the vocabulary at every position, as that class does; it is told the same masked tokens as ours. Where a sequence has
none (a step without knowledge masking), every seventh token is labelled with itself, which costs it neither more nor
less.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ernie2.batches.batch import PackedBatch
from ernie2.benchmarking.flops import step_flops
from ernie2.benchmarking.measured_trainer import own_bytes
from ernie2.benchmarking.mix import MeasuredStep
from ernie2.config.settings import EncoderSettings, TrainSettings
from ernie2.errors import ConfigError
from ernie2.model.hf import hf_config, hf_state_dict, unsupported_by_hf
from ernie2.model.multitask import MultiTaskModel
from ernie2.training.measuring import synchronise
from ernie2.training.memory import peak_bytes, reset_peak_bytes
from ernie2.training.optimizers import build_optimizer
from ernie2.training.step import autocast, seed_dropout

UNSCORED = -100
"""The label of a token that is not scored."""
SIDES = {
    "hf-padded": "padded",
    "hf-grouped": "grouped by length",
    "hf-compiled": "padded, compiled",
    "hf-grouped-compiled": "grouped by length, compiled",
}
"""The ways it is run, as `--against` names them, with their names in tables."""
_EVERY = 7
_MIN_GROUPS = 4


@dataclass(frozen=True, slots=True)
class Unpacked:
    """One sequence of a pack, each (n,): token ids, segment types, rows of the task table, labels or `UNSCORED`."""

    tokens: NDArray[Any]
    segments: NDArray[Any]
    task_ids: NDArray[Any]
    labels: NDArray[Any]

    def __len__(self) -> int:
        return len(self.tokens)


def unpack(pack: PackedBatch, masked: str | None) -> list[Unpacked]:
    """The sequences of a pack, with the labels of the task called `masked`."""
    labels = np.full(len(pack.tokens), UNSCORED, np.int64)
    if masked is not None and masked in pack.targets:
        targets = pack.targets[masked]
        labels[targets.positions[: targets.count]] = targets.labels[: targets.count]
    made = []
    for begin, end in zip(pack.starts[:-1], pack.starts[1:], strict=True):
        part = slice(int(begin), int(end))
        if (labels[part] == UNSCORED).all():
            labels[part][::_EVERY] = pack.tokens[part][::_EVERY]
        made.append(Unpacked(pack.tokens[part], pack.segments[part], pack.task_ids[part], labels[part]))
    return made


def dense(sequences: Sequence[Unpacked], length: int, pad: int, with_task_ids: bool) -> dict[str, torch.Tensor]:
    """Sequences as what the model takes: (S, length) int64 each, padded at the end, labels `UNSCORED` there."""
    sizes = np.array([len(sequence) for sequence in sequences])
    rows, columns = np.nonzero(np.arange(length) < sizes[:, None])

    def laid(values: Sequence[NDArray[Any]], fill: int) -> torch.Tensor:
        out = np.full((len(sizes), length), fill, dtype=np.int64)
        out[rows, columns] = np.concatenate(values)
        return torch.from_numpy(out)

    batch = {
        "input_ids": laid([each.tokens for each in sequences], pad),
        "attention_mask": laid([np.ones_like(each.tokens) for each in sequences], 0),
        "token_type_ids": laid([each.segments for each in sequences], 0),
        "labels": laid([each.labels for each in sequences], UNSCORED),
    }
    return batch | ({"task_type_ids": laid([each.task_ids for each in sequences], 0)} if with_task_ids else {})


def by_pack(packs: Sequence[Sequence[Unpacked]]) -> list[list[Unpacked]]:
    """A batch a pack, in the order in which its sequences came."""
    return [list(pack) for pack in packs]


def by_length(packs: Sequence[Sequence[Unpacked]]) -> list[list[Unpacked]]:
    """All sequences of the step sorted by length and cut into batches of about as many tokens, two a pack, four at
    least: what grouping by length does for one that trains with accumulation."""
    ordered = sorted((sequence for pack in packs for sequence in pack), key=len)
    ends = np.cumsum([len(sequence) for sequence in ordered])
    groups = min(len(ordered), max(_MIN_GROUPS, 2 * len(packs)))
    cuts = np.searchsorted(ends, ends[-1] * np.arange(1, groups) / groups)
    bounds = sorted({0, *cuts.tolist(), len(ordered)})
    return [ordered[begin:end] for begin, end in pairwise(bounds)]


class HuggingFaceModel:
    """The model with its optimiser, shared by all ways in which batches are laid out for it.

    Raises `ConfigError` as `require_hugging_face` does.
    """

    def __init__(
        self,
        ours: MultiTaskModel,
        settings: TrainSettings,
        pad: int,
        device: torch.device,
        backend: str = "inductor",
    ) -> None:
        transformers = require_hugging_face(ours.settings)
        config = transformers.ErnieConfig(**hf_config(ours.settings, ours.vocab_size, {}, pad_id=pad))
        self.model: Any = transformers.ErnieForMaskedLM(config)
        self.model.load_state_dict(hf_state_dict(ours), strict=False)  # what is not ours is tied to what is
        self.model.to(device).train()
        self.compiled: Callable[..., Any] = torch.compile(self.model, backend=backend)
        self.optimizer = build_optimizer(self.model, settings)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.peak_lr / 1000  # as ours: parameters hardly move
        self.version = str(transformers.__version__)
        self.scaler = torch.amp.GradScaler(device.type)
        self.attention = str(getattr(config, "_attn_implementation", None) or "eager")
        self.pad, self.max_grad_norm, self.with_task_ids = pad, settings.max_grad_norm, bool(ours.settings.task_ids)
        self.heads, self.settings, self.vocab_size = ours.specs, ours.settings, ours.vocab_size
        self.masked = next((spec.name for spec in ours.specs.values() if spec.classes is None), None)


def require_hugging_face(settings: EncoderSettings) -> Any:
    """The module transformers; raises `ConfigError` where it is absent or has no model with layers like ours."""
    if lacking := unsupported_by_hf(settings):
        raise ConfigError(f"Hugging Face's ErnieModel has no {', '.join(lacking)}; measure ours alone: ernie2 bench.")
    try:
        import transformers
    except ImportError as error:
        raise ConfigError(
            "a comparison needs the package transformers, which is not installed: pip install transformers"
        ) from error
    return transformers


class HuggingFaceSide:
    """Hugging Face with one way to lay out batches.

    `most`: sequences a batch may hold, None for any number; halved whenever memory does not suffice. `largest`: how
    many one held. `memory`: the most bytes a step held, without those of other sides; on a GPU only.

    `fixed`: every batch has one shape, as a compiler wants: padded to this length, and of exactly `most` sequences (by
    default as many as the largest batch of the first step), the last filled up with sequences of one unscored token.
    Without it a batch is padded to its longest sequence. `sequences` is what `most` begins with: where it fits into
    memory at once, nothing is compiled again for smaller batches.
    """

    def __init__(
        self,
        shared: HuggingFaceModel,
        name: str,
        cut: Callable[[Sequence[Sequence[Unpacked]]], list[list[Unpacked]]],
        precision: str,
        device: torch.device,
        *,
        fixed: int | None = None,
        compiled: bool = False,
        sequences: int | None = None,
    ) -> None:
        self.name, self.largest = name, 0
        self.most = sequences
        self.memory: int | None = None
        self._shared, self._cut, self._precision, self._device = shared, cut, precision, device
        self._fixed = fixed
        self._model = shared.compiled if compiled else shared.model
        self._number = 0

    def step(self, packs: Sequence[PackedBatch]) -> MeasuredStep:
        """One step on the instances of `packs`, in as many batches as the layout asks for, then as memory does."""
        shared = self._shared
        groups = self._cut([unpack(pack, shared.masked) for pack in packs])
        batches = self._batches(groups)
        while (done := self._train_if_it_fits(batches)) is None:
            self.most = -(-max(len(batch["input_ids"]) for batch in batches) // 2)
            shared.optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            batches = self._batches(groups)
        seconds, before = done
        shared.optimizer.zero_grad(set_to_none=True)
        if before is not None:
            own = own_bytes(shared.model, shared.optimizer)
            self.memory = max(self.memory or 0, (peak_bytes(self._device) or 0) - before + own)
        self.largest = max(self.largest, *(len(batch["input_ids"]) for batch in batches))
        padded = sum(batch["input_ids"].numel() for batch in batches)
        flops = step_flops(shared.settings, shared.vocab_size, shared.heads, packs, all_rows=True)
        return MeasuredStep(seconds, sum(pack.real_tokens for pack in packs), flops, padded)

    def _train_if_it_fits(self, batches: Sequence[dict[str, torch.Tensor]]) -> tuple[float, int | None] | None:
        """Seconds of a step and bytes held before it; None where memory does not suffice, unless for one sequence."""
        before = reset_peak_bytes(self._device)
        try:
            return self._train(batches), before
        except torch.OutOfMemoryError:  # what the step held is let go of with the error
            if all(len(batch["input_ids"]) == 1 for batch in batches):
                raise
            return None

    def _batches(self, groups: Sequence[Sequence[Unpacked]]) -> list[dict[str, torch.Tensor]]:
        if self._fixed:
            self.most = self.most or max(map(len, groups))
            groups = [self._filled([sequence for group in groups for sequence in group], self.most)]
        parts = []
        for group in groups:
            size = self.most or len(group)
            parts += [group[at : at + size] for at in range(0, len(group), size)]
        lengths = [self._fixed or max(map(len, part)) for part in parts]
        made = [
            dense(part, length, self._shared.pad, self._shared.with_task_ids)
            for part, length in zip(parts, lengths, strict=True)
        ]
        if self._device.type == "cuda":
            made = [{name: values.pin_memory() for name, values in batch.items()} for batch in made]
        return made

    def _filled(self, sequences: Sequence[Unpacked], size: int) -> list[Unpacked]:
        """`sequences` and as many of one unscored token as make their number a multiple of `size`."""
        one = np.zeros(1, np.int64)
        filler = Unpacked(one + self._shared.pad, one, one, one + UNSCORED)
        return [*sequences, *[filler] * (-len(sequences) % size)]

    def _train(self, batches: Sequence[dict[str, torch.Tensor]]) -> float:
        """Forward and backward of every batch, then one clipped step; the loss is the mean over all scored tokens."""
        shared, scaled = self._shared, self._precision == "fp16"
        scored = sum(int((batch["labels"] != UNSCORED).sum()) for batch in batches)
        shares = [int((batch["labels"] != UNSCORED).sum()) / scored for batch in batches]
        self._number += 1
        seed_dropout("bench", self.name, self._number)
        synchronise(self._device)
        began = time.perf_counter()
        for batch, share in zip(batches, shares, strict=True):
            there = {name: values.to(self._device, non_blocking=True) for name, values in batch.items()}
            with autocast(self._precision, self._device):
                loss = self._model(**there).loss * share
            (shared.scaler.scale(loss) if scaled else loss).backward()
        if scaled:
            shared.scaler.unscale_(shared.optimizer)
        torch.nn.utils.clip_grad_norm_(shared.model.parameters(), shared.max_grad_norm)
        if scaled:
            shared.scaler.step(shared.optimizer)
            shared.scaler.update()
        else:
            shared.optimizer.step()
        synchronise(self._device)
        return time.perf_counter() - began


def chosen_sides(against: str, device: torch.device) -> tuple[str, ...]:
    """The keys of `SIDES` that `against` asks for: names with commas between; "hf" for all that suit `device`.

    On a CPU "hf" leaves out the compiled ones, which can be named. Raises `ConfigError` for any other name.
    """
    asked: list[str] = []
    for name in against.split(","):
        if name != "hf" and name not in SIDES:
            raise ConfigError(f"--against {name}: there is hf (all that suit the device), {', '.join(SIDES)}.")
        suitable = [side for side in SIDES if device.type == "cuda" or "compiled" not in side]
        asked += suitable if name == "hf" else [name]
    return tuple(dict.fromkeys(asked))


def build_sides(
    shared: HuggingFaceModel,
    precision: str,
    device: torch.device,
    longest: int,
    names: Sequence[str],
    sequences: int | None = None,
) -> list[HuggingFaceSide]:
    """The sides called `names` in `SIDES`; the padded, compiled one pads to the limit of `longest` tokens.

    `sequences`: how many a batch holds at most to begin with, None for all of a pack or group.
    """
    made = []
    for name in names:
        cut, compiled = by_length if "grouped" in name else by_pack, "compiled" in name
        fixed = longest if name == "hf-compiled" else None
        made.append(
            HuggingFaceSide(
                shared, SIDES[name], cut, precision, device, fixed=fixed, compiled=compiled, sequences=sequences
            )
        )
    return made
