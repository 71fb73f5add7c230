"""Locks on output folders: one writer at a time; a writer that lost its lock stops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import ernie2
import tiny
import tiny_finetuning
import tiny_run
from ernie2.errors import FolderInUse, LockLost
from ernie2.storage.locks import FolderLock, describe_process
from ernie2.storage.readers import writer_lock
from ernie2.training.checkpoints import Saver
from ernie2.training.records import Records


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def labelled(folder: Path) -> dict[str, str]:
    """Files of one's own with a class in the words of the tiny checkpoint."""
    rows = [f"w{number} {name}\t{name}" for number, name in enumerate(("good", "bad") * 8)]
    for split in ("train", "dev"):
        (folder / f"{split}.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n", encoding="utf-8")
    return {split: str(folder / f"{split}.tsv") for split in ("train", "dev")}


def test_fine_tuning_into_a_folder_that_another_process_fine_tunes_into_is_refused(tmp_path: Path) -> None:
    checkpoint, out = tiny_finetuning.write_checkpoint(tmp_path / "hf"), tmp_path / "out"
    out.mkdir()
    with FolderLock(out), pytest.raises(FolderInUse, match=r"out is in use by process .*; name another .*--out"):
        ernie2.finetune(checkpoint, files=labelled(tmp_path), out=out, settings=["epochs=1"])
    assert not list(out.iterdir())
    ernie2.finetune(checkpoint, files=labelled(tmp_path), out=out, settings=["epochs=1"])
    assert not (out / "lock").exists()


def leave(*folders: Path) -> None:
    """Staging folders, as a killed process leaves them."""
    for folder in folders:
        (folder / ".model.abcdefgh.tmp" / "half").mkdir(parents=True)


def test_what_a_kill_left_in_a_run_or_a_result_is_gone_when_it_is_opened_again(tmp_path: Path) -> None:
    tiny_run.write_shards(tmp_path / "shards")
    run = ernie2.pretrain(tiny_run.recipe(tmp_path).model_dump(mode="json"))
    leave(run, run / "checkpoints")
    ernie2.resume(run)
    checkpoint, out = tiny_finetuning.write_checkpoint(tmp_path / "hf"), tmp_path / "out"
    leave(out, out / "own", out / "own" / "seed-0")
    ernie2.finetune(checkpoint, files=labelled(tmp_path), out=out, settings=["epochs=1"])
    assert list((out / "own").iterdir())
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_study_in_the_folder_of_a_running_one_is_refused(tmp_path: Path) -> None:
    with FolderLock(tmp_path), pytest.raises(FolderInUse, match="folder=FOLDER starts another study"):
        ernie2.study("smoke", [f"folder={tmp_path}"])
    assert not list(tmp_path.iterdir())


def test_a_run_folder_that_another_process_trains_into_is_refused(tmp_path: Path) -> None:
    tiny_run.write_shards(tmp_path / "shards")
    recipe = tiny_run.recipe(tmp_path).model_dump(mode="json")
    (tmp_path / "run").mkdir()
    with FolderLock(tmp_path / "run"), pytest.raises(FolderInUse, match="run=FOLDER starts another run"):
        ernie2.pretrain(recipe)
    assert not list((tmp_path / "run").iterdir())


def test_extending_into_a_folder_that_another_process_trains_into_is_refused(tmp_path: Path) -> None:
    tiny_run.write_shards(tmp_path / "shards")
    recipe = tiny_run.recipe(tmp_path).model_dump(mode="json")
    run = ernie2.pretrain({**recipe, "tasks": {"knowledge_masking": {}, "sentence_reordering": {}}})
    later, target = _more_shards(tmp_path), tmp_path / "longer"
    target.mkdir()
    with FolderLock(target), pytest.raises(FolderInUse, match="run=FOLDER starts another run"):
        ernie2.extend(run, "token_document_relation", later, [f"run={target}"])
    assert not list(target.iterdir())


def _more_shards(folder: Path) -> Path:
    """The same texts as a corpus of another name."""
    made = tiny_run.write_shards(folder / "more")
    (made.folder / "text").rename(made.folder / "later")
    tiny.change(made.folder / "shards.json", corpora={"later": made.facts["corpora"]["text"]})
    return made.folder


def test_a_run_whose_lock_another_process_has_stops_and_writes_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_run.write_shards(tmp_path / "shards")
    run, real, left, save = tmp_path / "run", Records.write, {}, Saver.save

    def save_and_wait(saver: Saver, *given: Any) -> None:
        save(saver, *given)
        saver.finish()

    def lose(records: Records, kind: str, **values: Any) -> None:
        if kind == "step" and not left:
            (run / "lock").write_text(json.dumps({**describe_process(), "pid": 17, "host": "elsewhere"}))
            left.update(bytes_of(run))
        real(records, kind, **values)

    monkeypatch.setattr(Records, "write", lose)
    monkeypatch.setattr(Saver, "save", save_and_wait)
    with pytest.raises(LockLost, match=r"process 17 on elsewhere .* holds it"):
        ernie2.pretrain(tiny_run.recipe(tmp_path).model_dump(mode="json"))
    assert bytes_of(run) == left
    assert json.loads((run / "run.json").read_text())["status"] == "running"


def test_shards_cannot_be_replaced_while_a_run_trains_on_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = tiny_run.write_shards(tmp_path / "shards")
    real, refused = Records.write, list[str]()

    def try_to_replace(records: Records, kind: str, **values: Any) -> None:
        if kind == "step" and not refused:
            message = r"shards is being read by process \d+ on"
            with pytest.raises(FolderInUse, match=message), writer_lock(shards.folder, alternative="take another"):
                pass
            refused.append(kind)
        real(records, kind, **values)

    monkeypatch.setattr(Records, "write", try_to_replace)
    ernie2.pretrain(tiny_run.recipe(tmp_path).model_dump(mode="json"))
    assert refused
    with writer_lock(shards.folder, alternative="choose another shards.folder"):
        pass
