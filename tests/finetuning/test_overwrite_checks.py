"""Files that predictions, results and submissions must not overwrite."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from ernie2.errors import ConfigError, StorageError
from ernie2.finetuning.overwrite_checks import check_predictions_file, check_results_folder, check_submission_file


@pytest.mark.parametrize(
    "content",
    [
        "",
        '{"id": "0", "label": "no", "probabilities": {"no": 0.6, "yes": 0.4}}\n',
        '{"id": "0", "label": 2.5}\n',
        '{"id": "0", "label": "a", "start": 0, "end": 1, "probability": 0.5, "answers": []}\n',
        '{"id": "0", "tokens": ["a"], "label": ["O"], "probabilities": [0.9], "entities": []}\n',
    ],
)
def test_existing_predictions_may_be_overwritten(tmp_path: Path, content: str) -> None:
    (tmp_path / "predictions.jsonl").write_text(content)
    check_predictions_file(tmp_path / "predictions.jsonl")


@pytest.mark.parametrize(
    "content",
    [
        b"# A model card\n",
        b'{"id": "0", "text": "a", "label": "no"}\n',
        b'{"id": "0", "label": "no"}\n',
        b'{"id": "0", "tokens": ["a"], "label": ["O"]}\n',
        b'{"id": "0", "label": 2.5}\n{"id": "1", "label": 2.5, "text": "a"}\n',
        b"\xff\xfe\x00",
        b"[1]\n",
    ],
)
def test_any_other_file_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "README.md"
    file.write_bytes(content)
    with pytest.raises(StorageError, match=r"README.md exists and holds no predictions. .*--replace"):
        check_predictions_file(file)


def test_devices_folders_and_new_files_are_not_checked(tmp_path: Path) -> None:
    for path in (tmp_path / "new.jsonl", tmp_path, Path("/dev/null")):
        check_predictions_file(path)


@pytest.mark.parametrize(
    ("name", "what"), [("run.json", "a pre-training run"), ("shards.json", "shards"), ("config.json", "a model")]
)
def test_results_are_not_written_into_runs_shards_or_models(tmp_path: Path, name: str, what: str) -> None:
    check_results_folder(tmp_path)
    (tmp_path / name).write_text("{}")
    with pytest.raises(ConfigError, match=rf"holds {what} \({name}\). Give another folder with --out"):
        check_results_folder(tmp_path)


def test_a_submission_replaces_only_a_zip(tmp_path: Path) -> None:
    file = tmp_path / "glue.zip"
    check_submission_file(file)
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("a", "b")
    check_submission_file(file)
    file.write_text("notes")
    with pytest.raises(StorageError, match=r"glue.zip exists and is not a zip file"):
        check_submission_file(file)
