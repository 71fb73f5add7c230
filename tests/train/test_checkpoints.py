import errno
import json

import pytest
import torch
from torch import nn

from ernie2.errors import CheckpointError, StorageError
from ernie2.settings import TrainSettings
from ernie2.train import checkpoints
from ernie2.train.optim import build_optimizer


def trained(seed=0, steps=3):
    torch.manual_seed(seed)
    model = nn.Linear(3, 2)
    optimizer = build_optimizer(model, TrainSettings(peak_lr=0.1))
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.rand(4, 3)).pow(2).sum().backward()
        optimizer.step()
    return model, optimizer


def test_parameters_and_moments_come_back_bit_for_bit(tmp_path):
    model, optimizer = trained()
    checkpoints.save(tmp_path, 3, model, optimizer, {"position": {"step": 3}})
    other, other_optimizer = trained(seed=1, steps=1)
    found = checkpoints.newest(tmp_path)
    found.restore(other, other_optimizer)
    assert found.state["position"] == {"step": 3}
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        for key in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(optimizer.state[mine][key], other_optimizer.state[theirs][key])


def test_a_damaged_newest_checkpoint_is_passed_over_and_reported(tmp_path, capsys):
    model, optimizer = trained()
    for step in (1, 2):
        checkpoints.save(tmp_path, step, model, optimizer, {})
    file = tmp_path / "checkpoints" / "step_00000002" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x00\x01")
    assert checkpoints.newest(tmp_path).folder.name == "step_00000001"
    assert "step_00000002/model.safetensors does not match its checksum" in capsys.readouterr().out


def test_a_checkpoint_that_was_being_written_when_killed_is_not_seen(tmp_path):
    model, optimizer = trained()
    checkpoints.save(tmp_path, 1, model, optimizer, {})
    (tmp_path / "checkpoints" / ".step_00000002.abcdefgh.tmp").mkdir()
    assert checkpoints.newest(tmp_path).folder.name == "step_00000001"


def test_no_whole_checkpoint_is_an_error_that_names_the_damage(tmp_path):
    model, optimizer = trained()
    folder = checkpoints.save(tmp_path, 1, model, optimizer, {})
    (folder / "optimizer.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no whole checkpoint.*optimizer\.safetensors does not match"):
        checkpoints.newest(tmp_path)


def test_a_full_disk_leaves_the_checkpoint_before_it_whole(tmp_path, monkeypatch):
    model, optimizer = trained()
    checkpoints.save(tmp_path, 1, model, optimizer, {})

    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ernie2.storage.tensors.save_file", full)
    with pytest.raises(StorageError, match=r"No space left.*`ernie2 resume .*` goes on from the checkpoint before"):
        checkpoints.save(tmp_path, 2, model, optimizer, {})
    assert [folder.name for folder in (tmp_path / "checkpoints").iterdir()] == ["step_00000001"]
    checkpoints.newest(tmp_path)


def test_pruning_keeps_the_newest_and_the_ends_of_stages(tmp_path):
    model, optimizer = trained()
    for step in range(1, 7):
        checkpoints.save(tmp_path, step, model, optimizer, {"stage_end": step == 2})
    checkpoints.prune(tmp_path, keep=2)
    assert sorted(folder.name[-1] for folder in (tmp_path / "checkpoints").iterdir()) == ["2", "5", "6"]


def test_parameters_of_another_shape_are_refused_by_name(tmp_path):
    model, optimizer = trained()
    checkpoints.save(tmp_path, 1, model, optimizer, {})
    other = nn.Linear(4, 2)
    with pytest.raises(CheckpointError, match=r"weight \(2, 3\) for \(2, 4\)"):
        checkpoints.newest(tmp_path).restore(other, build_optimizer(other, TrainSettings()))


def test_a_checkpoint_of_another_format_is_refused(tmp_path):
    model, optimizer = trained()
    folder = checkpoints.save(tmp_path, 1, model, optimizer, {})
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps({**state, "format": 99}))
    with pytest.raises(CheckpointError, match="format 99"):
        checkpoints.open_checkpoint(folder)


def test_what_a_kill_left_of_a_deletion_does_not_stop_the_next_one(tmp_path):
    model, optimizer = trained()
    for step in (1, 2):
        checkpoints.save(tmp_path, step, model, optimizer, {})
    (tmp_path / "checkpoints" / "step_00000001" / "state.json").unlink()
    checkpoints.prune(tmp_path, keep=1)
    assert [folder.name for folder in (tmp_path / "checkpoints").iterdir()] == ["step_00000002"]


def test_a_run_has_begun_once_it_has_a_checkpoint_or_is_done(tmp_path):
    assert not checkpoints.begun(tmp_path)
    (tmp_path / "run.json").write_text('{"status": "running"}')
    (tmp_path / "checkpoints" / ".step_00000000.abcdefgh.tmp").mkdir(parents=True)
    assert not checkpoints.begun(tmp_path)
    (tmp_path / "run.json").write_text('{"status": "done"}')
    assert checkpoints.begun(tmp_path)
    (tmp_path / "run.json").write_text('{"status": "stopped"}')
    checkpoints.save(tmp_path, 0, *trained(), {})
    assert checkpoints.begun(tmp_path)
