"""Hugging Face's `ErnieForMaskedLM` as its users train it, on the instances of our packs, as padded batches.

S sequences of a batch · n its longest

Sizes, initial parameters, precision, optimiser, clipping and dropout are the same as ours. The class trains only masked
tokens and scores the vocabulary at every position. The masked tokens are the same as ours. In sequences without any (a
step without knowledge masking), every seventh token is labelled with itself, which does not change the cost.
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
"""Values of `--against` → names in tables."""
_EVERY = 7
_MIN_GROUPS = 4


@dataclass(frozen=True, slots=True)
class Unpacked:
    """One sequence of a pack: token ids, segment types, task ids, and labels or `UNSCORED`, each (n,)."""

    tokens: NDArray[Any]
    segments: NDArray[Any]
    task_ids: NDArray[Any]
    labels: NDArray[Any]

    def __len__(self) -> int:
        return len(self.tokens)


def unpack(pack: PackedBatch, masked: str | None) -> list[Unpacked]:
    """Return the sequences of a pack, with the labels of task `masked`."""
    labels = np.full(len(pack.tokens), UNSCORED, np.int64)
    if masked is not None and masked in pack.targets:
        targets = pack.targets[masked]
        labels[targets.positions[: targets.count]] = targets.labels[: targets.count]
    sequences = []
    for begin, end in zip(pack.starts[:-1], pack.starts[1:], strict=True):
        part = slice(int(begin), int(end))
        if (labels[part] == UNSCORED).all():
            labels[part][::_EVERY] = pack.tokens[part][::_EVERY]
        sequences.append(Unpacked(pack.tokens[part], pack.segments[part], pack.task_ids[part], labels[part]))
    return sequences


def pad_sequences(sequences: Sequence[Unpacked], length: int, pad: int, with_task_ids: bool) -> dict[str, torch.Tensor]:
    """Return the model inputs of sequences: (S, length) int64 each, padded at the end with label `UNSCORED`."""
    sizes = np.array([len(sequence) for sequence in sequences])
    rows, columns = np.nonzero(np.arange(length) < sizes[:, None])

    def fill_rows(values: Sequence[NDArray[Any]], fill: int) -> torch.Tensor:
        out = np.full((len(sizes), length), fill, dtype=np.int64)
        out[rows, columns] = np.concatenate(values)
        return torch.from_numpy(out)

    batch = {
        "input_ids": fill_rows([each.tokens for each in sequences], pad),
        "attention_mask": fill_rows([np.ones_like(each.tokens) for each in sequences], 0),
        "token_type_ids": fill_rows([each.segments for each in sequences], 0),
        "labels": fill_rows([each.labels for each in sequences], UNSCORED),
    }
    return batch | ({"task_type_ids": fill_rows([each.task_ids for each in sequences], 0)} if with_task_ids else {})


def by_pack(packs: Sequence[Sequence[Unpacked]]) -> list[list[Unpacked]]:
    """Return one batch per pack, in the order of its sequences."""
    return [list(pack) for pack in packs]


def by_length(packs: Sequence[Sequence[Unpacked]]) -> list[list[Unpacked]]:
    """Return all sequences of the step sorted by length, in batches of about equal tokens.

    Two batches per pack, at least four, like grouping by length with gradient accumulation.
    """
    ordered = sorted((sequence for pack in packs for sequence in pack), key=len)
    ends = np.cumsum([len(sequence) for sequence in ordered])
    groups = min(len(ordered), max(_MIN_GROUPS, 2 * len(packs)))
    cuts = np.searchsorted(ends, ends[-1] * np.arange(1, groups) / groups)
    bounds = sorted({0, *cuts.tolist(), len(ordered)})
    return [ordered[begin:end] for begin, end in pairwise(bounds)]


class HuggingFaceModel:
    """Model and optimiser, shared by all batch layouts. Raises `ConfigError` as `require_hugging_face` does."""

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
        self.model.load_state_dict(hf_state_dict(ours), strict=False)  # the missing tensors are tied to ours
        self.model.to(device).train()
        self.compiled: Callable[..., Any] = torch.compile(self.model, backend=backend)
        self.optimizer = build_optimizer(self.model, settings)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.peak_lr / 1000  # as in ours: parameters hardly change
        self.version = str(transformers.__version__)
        self.scaler = torch.amp.GradScaler(device.type)
        self.attention = str(getattr(config, "_attn_implementation", None) or "eager")
        self.pad, self.max_grad_norm, self.with_task_ids = pad, settings.max_grad_norm, bool(ours.settings.task_ids)
        self.heads, self.settings, self.vocab_size = ours.specs, ours.settings, ours.vocab_size
        self.masked = next((spec.name for spec in ours.specs.values() if spec.classes is None), None)


def require_hugging_face(settings: EncoderSettings) -> Any:
    """Return the module transformers; `ConfigError` if it is missing or does not support this encoder."""
    if lacking := unsupported_by_hf(settings):
        raise ConfigError(f"Hugging Face's ErnieModel does not support {', '.join(lacking)}. Use ernie2 bench.")
    try:
        import transformers
    except ImportError as error:
        raise ConfigError(
            "a comparison needs the package transformers. Install it: pip install transformers"
        ) from error
    return transformers


class HuggingFaceSide:
    """Hugging Face with one batch layout.

    `most`: maximum sequences per batch, None for no limit; halved when memory runs out. `largest`: sequences of the
    largest batch. `memory`: peak bytes of a step, without other sides; only on a GPU.

    `fixed`: all batches have one shape, for a compiler: padded to this length, with exactly `most` sequences (default:
    the largest batch of the first step); the last is filled with sequences of one unscored token. Otherwise a batch is
    padded to its longest sequence. `sequences`: initial value of `most`; a value that fits avoids recompilation for
    smaller batches.
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
        """Train one step on the instances of `packs`, with smaller batches if memory runs out."""
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
        """Return the seconds of a step and the bytes in use before it; None if memory runs out."""
        before = reset_peak_bytes(self._device)
        try:
            return self._train(batches), before
        except torch.OutOfMemoryError:  # the memory of the step is freed with the error
            if all(len(batch["input_ids"]) == 1 for batch in batches):
                raise
            return None

    def _batches(self, groups: Sequence[Sequence[Unpacked]]) -> list[dict[str, torch.Tensor]]:
        if self._fixed:
            self.most = self.most or max(map(len, groups))
            groups = [self._fill_up([sequence for group in groups for sequence in group], self.most)]
        parts = []
        for group in groups:
            size = self.most or len(group)
            parts += [group[at : at + size] for at in range(0, len(group), size)]
        lengths = [self._fixed or max(map(len, part)) for part in parts]
        batches = [
            pad_sequences(part, length, self._shared.pad, self._shared.with_task_ids)
            for part, length in zip(parts, lengths, strict=True)
        ]
        if self._device.type == "cuda":
            batches = [{name: values.pin_memory() for name, values in batch.items()} for batch in batches]
        return batches

    def _fill_up(self, sequences: Sequence[Unpacked], size: int) -> list[Unpacked]:
        """Pad `sequences` to a multiple of `size` with sequences of one unscored token."""
        one = np.zeros(1, np.int64)
        filler = Unpacked(one + self._shared.pad, one, one, one + UNSCORED)
        return [*sequences, *[filler] * (-len(sequences) % size)]

    def _train(self, batches: Sequence[dict[str, torch.Tensor]]) -> float:
        """Run forward and backward of all batches, then one clipped step; the loss is the mean over scored tokens."""
        shared, scaled = self._shared, self._precision == "fp16"
        scored = sum(int((batch["labels"] != UNSCORED).sum()) for batch in batches)
        shares = [int((batch["labels"] != UNSCORED).sum()) / scored for batch in batches]
        self._number += 1
        seed_dropout("bench", self.name, self._number)
        synchronise(self._device)
        began = time.perf_counter()
        for batch, share in zip(batches, shares, strict=True):
            moved = {name: values.to(self._device, non_blocking=True) for name, values in batch.items()}
            with autocast(self._precision, self._device):
                loss = self._model(**moved).loss * share
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
    """Return the keys of `SIDES` in `against`: comma-separated names, or "hf" for all that suit `device`.

    On a CPU "hf" excludes the compiled ones, which can be named. Raises `ConfigError` for any other name.
    """
    sides: list[str] = []
    for name in against.split(","):
        if name != "hf" and name not in SIDES:
            raise ConfigError(f"--against {name}: choose hf (all that suit the device), {', '.join(SIDES)}.")
        suitable = [side for side in SIDES if device.type == "cuda" or "compiled" not in side]
        sides += suitable if name == "hf" else [name]
    return tuple(dict.fromkeys(sides))


def build_sides(
    shared: HuggingFaceModel,
    precision: str,
    device: torch.device,
    longest: int,
    names: Sequence[str],
    sequences: int | None = None,
) -> list[HuggingFaceSide]:
    """Return the sides `names` of `SIDES`; the padded, compiled one pads to `longest` tokens.

    `sequences`: initial maximum per batch, None for all of a pack or group.
    """
    sides = []
    for name in names:
        cut, compiled = by_length if "grouped" in name else by_pack, "compiled" in name
        fixed = longest if name == "hf-compiled" else None
        sides.append(
            HuggingFaceSide(
                shared, SIDES[name], cut, precision, device, fixed=fixed, compiled=compiled, sequences=sequences
            )
        )
    return sides
