"""What may lie where predictions, results or a submission are written: only what the same command wrote before."""

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
    """Raise `StorageError` where `file` is an ordinary file that holds anything but predictions."""
    if file.is_file() and file.stat().st_size and not _holds_predictions(file):
        raise StorageError(
            f"{file} is there and holds no predictions; name another file with --out, or say --replace to overwrite it."
        )


def check_results_folder(folder: Path) -> None:
    """Raise `ConfigError` where `folder` is a run, shards or a model, among which results would get lost."""
    for name, what in _FOREIGN.items():
        if (folder / name).exists():
            raise ConfigError(f"{folder} holds {what} ({name}); name another folder with --out.")


def check_submission_file(file: Path) -> None:
    """Raise `StorageError` where `file` is an ordinary file that is no zip."""
    if file.is_file() and file.stat().st_size and not zipfile.is_zipfile(file):
        raise StorageError(f"{file} is there and is no zip; name another file with --submission.")


def _holds_predictions(file: Path) -> bool:
    """Whether the first lines are objects with the keys of predictions. A number has only id and label."""
    try:
        with file.open(encoding="utf-8") as lines:
            return all(_is_prediction(json.loads(line)) for line in islice(lines, _LINES_READ))
    except (ValueError, OSError):
        return False


def _is_prediction(value: object) -> bool:
    if not isinstance(value, dict) or not {"id", "label"} <= value.keys() <= _KEYS:
        return False
    number = value.keys() == {"id", "label"} and isinstance(value["label"], float)
    return number or any(keys <= value.keys() for keys in _REQUIRED_KEYS)
