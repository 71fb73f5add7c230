"""Refuse output paths whose files another program or command wrote."""

from __future__ import annotations

import json
import zipfile
from itertools import islice
from pathlib import Path

from ernie2.errors import ConfigError, StorageError

_KEYS = {
    "id", "label", "probabilities", "probability", "tokens", "entities", "start", "end", "null_score", "answers",
}  # fmt: skip
_REQUIRED_KEYS = ({"probabilities"}, {"probability", "answers"})
_LINES_READ = 20
_FOREIGN = {
    "run.json": "a pre-training run",
    "shards.json": "shards",
    "config.json": "a model",
}


def check_predictions_file(file: Path) -> None:
    """Raise `StorageError` if `file` is a regular file that is neither empty nor predictions."""
    if file.is_file() and file.stat().st_size and not _holds_predictions(file):
        raise StorageError(
            f"{file} exists and holds no predictions. Give another --out, or overwrite it with --replace."
        )


def check_results_folder(folder: Path) -> None:
    """Raise `ConfigError` if `folder` is a pre-training run, a prepared dataset or a model."""
    for name, what in _FOREIGN.items():
        if (folder / name).exists():
            raise ConfigError(f"{folder} holds {what} ({name}). Give another folder with --out.")


def check_submission_file(file: Path) -> None:
    """Raise `StorageError` if `file` is a regular file that is neither empty nor a zip."""
    if file.is_file() and file.stat().st_size and not zipfile.is_zipfile(file):
        raise StorageError(f"{file} exists and is not a zip file. Give another file with --submission.")


def _holds_predictions(file: Path) -> bool:
    """Return whether the first lines have the keys of predictions."""
    try:
        with file.open(encoding="utf-8") as lines:
            return all(_is_prediction(json.loads(line)) for line in islice(lines, _LINES_READ))
    except (ValueError, OSError):
        return False


def _is_prediction(value: object) -> bool:
    if not isinstance(value, dict) or not {"id", "label"} <= value.keys() <= _KEYS:
        return False
    is_number = value.keys() == {"id", "label"} and isinstance(value["label"], float)
    return is_number or any(keys <= value.keys() for keys in _REQUIRED_KEYS)
