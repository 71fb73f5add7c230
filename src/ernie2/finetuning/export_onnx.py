"""Export a fine-tuned model or a pre-trained encoder to ONNX."""

from __future__ import annotations

import logging
import warnings
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ernie2.config.settings import EncoderSettings
from ernie2.console import log_info, log_warning
from ernie2.errors import CheckpointError, ConfigError, DamagedFile, RunFailed, StorageError, install_advice
from ernie2.finetuning.finetuned_model import CONFIG_KEY, load_finetuned
from ernie2.finetuning.heads import PaddedEncoderWithHead
from ernie2.finetuning.paper import DEFAULT_SETTINGS
from ernie2.finetuning.pretrained import load_pretrained
from ernie2.model.encoder import PaddedEncoder
from ernie2.model.formats.native import NATIVE_CONFIG
from ernie2.model.hf import CONFIG, hf_config, unsupported_by_hf
from ernie2.runs.sources import unfinished_note
from ernie2.shards.tokenizer import SubwordTokenizer
from ernie2.storage.atomic import staged_folder, write_json
from ernie2.storage.json_files import read_json

FILE = "model.onnx"
TOLERANCE = 1e-5
"""Largest accepted difference between ONNX and torch, relative to the largest output if that is above 1."""
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_NEEDED = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class ExportResult:
    """The folder written, the output names of its `model.onnx`, and the largest difference to torch.

    The difference is measured on random batches of two shapes.
    """

    folder: Path
    outputs: tuple[str, ...]
    difference: float


@dataclass(frozen=True)
class _OnnxSource:
    """A network on padded ids, and the files to write with it."""

    network: nn.Module
    outputs: tuple[str, ...]
    tokenizer: SubwordTokenizer
    config: dict[str, Any]
    settings: EncoderSettings


def export(model: str | Path, destination: str | Path, task_id: str | None = None) -> ExportResult:
    """Write the folder `destination` atomically: model.onnx with dynamic batch and length, tokeniser and config.json.

    `model`: a folder that `finetune` wrote, or any checkpoint, whose encoder is exported (last_hidden_state, and
    pooler_output if it has a pooler) with the task id `task_id` (a name or a row, default 0). The file is checked with
    onnxruntime against torch before it is published. Raises `ConfigError` if a package is missing, `CheckpointError`
    for an encoder that `ErnieModel` cannot represent, `RunFailed` if the outputs differ, `StorageError` if
    `destination` exists or cannot be written.
    """
    model, destination = Path(model), Path(destination)
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise ConfigError(f"ONNX needs {', '.join(missing)}: {install_advice('onnx')}.")
    if destination.exists():
        raise StorageError(f"{destination} already exists. Give another folder, or move it away.")
    source = _load_finetuned(model, task_id) if _is_finetuned(model) else _load_encoder(model, task_id)
    with staged_folder(destination) as staging:
        _write_onnx(staging / FILE, source)
        difference = max_difference(staging / FILE, source.network, source.settings)
        source.tokenizer.save(staging, source.settings.position_rows)
        write_json(staging / CONFIG, source.config)
    log_info(
        f"{model} -> {destination / FILE} ({', '.join(source.outputs)}); largest difference to torch {difference:.1e}"
    )
    return ExportResult(destination, source.outputs, difference)


def max_difference(file: Path, network: nn.Module, settings: EncoderSettings) -> float:
    """Return the largest difference between onnxruntime and torch on random padded batches of two shapes.

    Raises `RunFailed` if it is above `TOLERANCE`.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    worst = 0.0
    for texts, length in ((1, 7), (3, 16)):
        inputs = _random_inputs(texts, length, settings)
        theirs = session.run(None, {name: tensor.numpy() for name, tensor in zip(INPUTS, inputs, strict=True)})
        with torch.inference_mode():
            outputs = network(*inputs)
        ours = outputs if isinstance(outputs, tuple) else (outputs,)
        for one, other in zip(ours, theirs, strict=True):
            expected, actual = (_unpadded(values, inputs[1].numpy()) for values in (one.numpy(), other))
            worst = max(worst, float(np.abs(expected - actual).max() / max(1.0, np.abs(expected).max())))
    if not worst <= TOLERANCE:
        raise RunFailed(f"ONNX and torch differ by {worst:.1e}, more than {TOLERANCE:g}. Nothing was written.")
    return worst


def _write_onnx(file: Path, source: _OnnxSource) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # warns of operators of packages not installed
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", max=source.settings.position_rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            source.network,
            _random_inputs(2, 12, source.settings),
            dynamo=True,
            input_names=list(INPUTS),
            output_names=list(source.outputs),
            dynamic_shapes=tuple({0: batch, 1: length} for _ in INPUTS),
            verbose=False,
        )
    assert program is not None
    program.save(str(file))


def _random_inputs(texts: int, length: int, settings: EncoderSettings) -> tuple[Tensor, Tensor, Tensor]:
    """Return random ids, mask and segments, at most as long as the encoder allows.

    All texts but the first are padded by 2 tokens. The ids are small, so that every model has them.
    """
    length = min(length, settings.position_rows)
    ids = torch.from_numpy(np.random.default_rng(0).integers(1, 16, (texts, length)))
    mask, types = torch.ones_like(ids), torch.zeros_like(ids)
    mask[1:, -2:] = 0
    types[:, length // 2 :] = min(1, settings.segment_types - 1)
    return ids, mask, types


def _unpadded(values: Any, mask: Any) -> Any:
    """Return values (B, L, …) without padding, values (B, …) unchanged."""
    return values[mask.astype(bool)] if values.ndim > 1 and values.shape[:2] == mask.shape else values


def _is_finetuned(folder: Path) -> bool:
    for name in (CONFIG, NATIVE_CONFIG):
        with suppress(FileNotFoundError, DamagedFile):
            if CONFIG_KEY in read_json(folder / name, dict):
                return True
    return False


def _load_finetuned(folder: Path, task_id: str | None) -> _OnnxSource:
    if task_id is not None:
        raise ConfigError(f"{folder} is fine-tuned for one task id. Remove --task-id.")
    finetuned = load_finetuned(folder)
    _check_exportable(folder, finetuned.model.encoder.settings)
    outputs = ("start_logits", "end_logits") if finetuned.model.head == "span" else ("logits",)
    config = read_json(folder / CONFIG, dict)
    return _OnnxSource(
        PaddedEncoderWithHead(finetuned.model).eval(),
        outputs,
        finetuned.tokenizer,
        config,
        finetuned.model.encoder.settings,
    )


def _load_encoder(checkpoint: Path, task_id: str | None) -> _OnnxSource:
    source = load_pretrained(checkpoint)
    if (note := unfinished_note(checkpoint, source.stored.where)) is not None:
        log_warning(note)
    _check_exportable(checkpoint, source.stored.settings)
    row = 0 if task_id is None else source.task_id(task_id, DEFAULT_SETTINGS)[0]
    base_model, new = source.build(DEFAULT_SETTINGS, 0)  # only dropout is read, and eval() disables it
    pooled = not any(name.startswith("encoder.pooler.") for name in new)
    outputs = ("last_hidden_state", "pooler_output") if pooled else ("last_hidden_state",)
    config = hf_config(base_model.settings, base_model.vocab_size, source.stored.task_ids, (), source.tokenizer.pad_id)
    network = _EncoderOnly(PaddedEncoder(base_model.encoder, row), pooled).eval()
    return _OnnxSource(network, outputs, source.tokenizer, config, source.stored.settings)


class _EncoderOnly(nn.Module):
    """An encoder as a function of padded ids."""

    def __init__(self, dense: PaddedEncoder, pooled: bool) -> None:
        super().__init__()
        self.dense, self.pooled = dense, pooled

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, ...]:
        """Three (B, L) int64 -> hidden states (B, L, H) and, with a pooler, (B, H)."""
        hidden = self.dense(input_ids, attention_mask, token_type_ids)
        return (hidden, self.dense.pool(hidden)) if self.pooled else (hidden,)


def _check_exportable(folder: Path, settings: EncoderSettings) -> None:
    if unsupported := unsupported_by_hf(settings):
        raise CheckpointError(
            f"{folder}: the encoder has {', '.join(unsupported)}. ONNX export supports only encoders that Hugging "
            "Face's ErnieModel can represent."
        )
