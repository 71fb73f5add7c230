"""Read the configuration of a checkpoint from any program, in Hugging Face's keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ernie2.errors import CheckpointError
from ernie2.model.formats.file_types import read_json, unread_weights_hint
from ernie2.model.formats.layouts import RenamedTensors, StoredTensor
from ernie2.model.tensor_names import HF_TASK_TABLE, HF_WORD_TABLE
from ernie2.storage.links import external_link_target

NAMES = ("config.json", "model_config.json", "ernie_config.json", "bert_config.json")


def read_config(folder: Path) -> tuple[dict[str, Any], Path]:
    """Return the first of `NAMES` in `folder`, flattened, and its path; `CheckpointError` if there is none."""
    path = next((folder / name for name in NAMES if (folder / name).is_file()), None)
    near = (folder, *folder.absolute().parents[:2])  # `folder` may be RUN/checkpoints/step_…
    if path is None and (run := next((one for one in near if (one / "run.json").is_file()), None)) is not None:
        raise CheckpointError(
            f"{folder} is {'' if run == folder else 'in '}a run folder, and this reads models: name the run itself to "
            f"a command; from Python load {run / 'hf'}, or what "
            f"ernie2.runs.sources.open_run_or_checkpoint(Path({str(run)!r})) returns, its newest checkpoint."
        )
    if path is None:
        raise CheckpointError(
            f"{folder.resolve()} is not a checkpoint: it has neither run.json (a run) nor a configuration "
            f"({', '.join(NAMES)}).{unread_weights_hint(folder)}"
        )
    if (target := external_link_target(path)) is not None:
        raise CheckpointError(
            f"{path} is a link out of its folder, to {target}, and is not read. If you trust it, replace the link by a "
            "copy."
        )
    config = read_json(path)
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} is not a JSON object.")
    return _flatten_config(config), path


def complete_config(config: Mapping[str, Any], renamed: RenamedTensors) -> tuple[dict[str, Any], list[str]]:
    """Return `config` in Hugging Face's keys, and notes for the user.

    Missing values are inferred from the tensors: number of layers, widths, positions, segment types. For Paddle's
    layouts also task ids, because those configurations declare tables that do not exist. Norm eps is not inferred.
    """
    full, notes, tensors = dict(config), list[str](), renamed.tensors
    if "sent_type_vocab_size" in full:
        full.setdefault("type_vocab_size", full["sent_type_vocab_size"])
    for key, value in _sizes_from_tensors(tensors).items():
        if full.get(key) is None:
            full[key] = value
    rows = len(tensors[HF_WORD_TABLE].tensor)
    if (declared := full.get("vocab_size")) not in (None, rows):
        notes.append(
            f"vocab_size is {declared} in the configuration; the token embedding has {rows} rows, which is used"
        )
    if renamed.layout == "Hugging Face":
        if "model_type" not in full:
            full["model_type"] = renamed.model or "bert"
            notes.append(f"the configuration has no model_type; assuming {full['model_type']!r}")
        return full, notes
    full["model_type"] = _paddle_type(full, renamed.model)
    notes += _decide_task_ids(full, HF_TASK_TABLE in tensors and len(tensors[HF_TASK_TABLE].tensor))
    return full, notes


def _decide_task_ids(full: dict[str, Any], rows: int) -> list[str]:
    """Set `use_task_id` and the number of rows from the tensor, if any; return notes."""
    declared, used = full.get("task_type_vocab_size"), full.get("use_task_id")
    if rows:
        full["use_task_id"] = used is not False
        full["task_type_vocab_size"] = rows
        return []
    if used:
        return [f"the configuration declares a task embedding ({declared} rows), but there is none"]
    full["use_task_id"] = False
    if declared and used is None:
        return [f"the configuration declares {declared} task ids, but there is no task embedding; loaded without"]
    return []


def _paddle_type(full: Mapping[str, Any], prefix: str) -> str:
    stated = str(full.get("model_type") or full.get("init_class") or prefix or "ernie").lower()
    known = re.fullmatch(r"(ernie|bert)(model|for\w+)?", stated)
    return known[1] if known else stated


def _flatten_config(config: dict[str, Any]) -> dict[str, Any]:
    """Flatten PaddleNLP's older model_config.json, which has the encoder's keys in `init_args`."""
    inner = config.get("init_args")
    nested = next((part for part in inner if isinstance(part, dict)), None) if isinstance(inner, list) else None
    return config if nested is None else {**config, **_flatten_config(nested)}


def _sizes_from_tensors(tensors: Mapping[str, StoredTensor]) -> dict[str, int]:
    layers = {name.split(".")[2] for name in tensors if name.startswith("encoder.layer.")}
    sizes = {"hidden_size": tensors[HF_WORD_TABLE].tensor.shape[-1], "num_hidden_layers": len(layers)}
    for key, name in (
        ("max_position_embeddings", "embeddings.position_embeddings.weight"),
        ("type_vocab_size", "embeddings.token_type_embeddings.weight"),
        ("intermediate_size", "encoder.layer.0.intermediate.dense.bias"),
    ):
        if name in tensors:
            sizes[key] = sum(tensors[name].tensor.shape[:1])
    return sizes
