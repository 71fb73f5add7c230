import errno
from threading import Event

import pytest
import torch

from ernie2.errors import StorageError
from ernie2.training import checkpoints
from ernie2.training.full_state import FullState
from ernie2.training.saving import Saver

STATE = FullState({"weight": torch.ones(2)}, {"step/weight": torch.ones(())})


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    written, write = Event(), checkpoints.write
    monkeypatch.setattr(checkpoints, "write", lambda *given: written.wait(20) and write(*given))
    state = {"position": {"step": 1}}
    with Saver(tmp_path, keep=2) as saver:
        saver.save(1, STATE, state)
        state["position"]["step"] = 2  # as the loop does, on its way to the next step
        assert not (tmp_path / "checkpoints").exists()
        written.set()
    assert checkpoints.newest(tmp_path).state["position"] == {"step": 1}


def test_all_but_the_newest_and_the_ends_of_stages_are_deleted(tmp_path):
    with Saver(tmp_path, keep=1) as saver:
        for step in range(4):
            saver.save(step, STATE, {"stage_end": step == 1})
    assert sorted(folder.name[-1] for folder in (tmp_path / "checkpoints").iterdir()) == ["1", "3"]


def test_what_went_wrong_in_the_thread_is_raised_once_and_the_checkpoint_before_is_whole(tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with Saver(tmp_path, keep=2) as saver:
        saver.save(1, STATE, {})
        saver.finish()
        monkeypatch.setattr("ernie2.storage.tensors.save_file", full)
        saver.save(2, STATE, {})
        with pytest.raises(StorageError, match=r"No space left.*goes on from the checkpoint before"):
            saver.finish()
        saver.check()
    assert checkpoints.newest(tmp_path).folder.name == "step_00000001"
