import errno
import random
import shutil
from pathlib import Path
from threading import Event

import pytest
import torch
from torch import nn

import tiny_run
from ernie2.config.settings import TrainSettings
from ernie2.errors import CheckpointError, StorageError
from ernie2.storage.atomic import remove_leftovers
from ernie2.storage.json_files import read_checked_json, write_checked_json
from ernie2.training import checkpoints
from ernie2.training.checkpoints import Saver
from ernie2.training.distributed import ProcessGroup
from ernie2.training.full_state import FullState, gather
from ernie2.training.optimizers import build_optimizer


def trained(seed=0, steps=3):
    torch.manual_seed(seed)
    model = nn.Linear(3, 2)
    optimizer = build_optimizer(model, TrainSettings(peak_lr=0.1))
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.rand(4, 3)).pow(2).sum().backward()
        optimizer.step()
    return model, optimizer


def flip(file: Path, bit: int) -> None:
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)


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
    assert "step_00000002/model.safetensors does not match its checksum" in capsys.readouterr().err


def test_a_checkpoint_that_was_being_written_when_killed_is_not_seen(tmp_path):
    model, optimizer = trained()
    checkpoints.save(tmp_path, 1, model, optimizer, {})
    (tmp_path / "checkpoints" / ".step_00000002.abcdefgh.tmp").mkdir()
    assert checkpoints.newest(tmp_path).folder.name == "step_00000001"


def test_the_error_without_a_complete_checkpoint_names_the_damage(tmp_path):
    model, optimizer = trained()
    folder = checkpoints.save(tmp_path, 1, model, optimizer, {})
    (folder / "optimizer.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no complete checkpoint.*optimizer\.safetensors cannot be read"):
        checkpoints.newest(tmp_path)


def test_a_full_disk_leaves_the_previous_checkpoint_complete(tmp_path, monkeypatch):
    model, optimizer = trained()
    checkpoints.save(tmp_path, 1, model, optimizer, {})

    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(StorageError, match=r"No space left.*resume from the previous checkpoint with `ernie2 resume "):
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


def optimizer_of(model, **train):
    return build_optimizer(model, TrainSettings(**train))


@pytest.mark.parametrize(
    ("saved", "resumed", "told"),
    [
        ({}, {"optimizer": "sgd"}, "exp_avg, exp_avg_sq, step of each parameter, but this one has momentum_buffer"),
        ({"optimizer": "sgd"}, {"optimizer": "sgd", "momentum": 0}, "momentum_buffer .* has nothing"),
        ({"optimizer": "sgd", "momentum": 0}, {}, "nothing of each parameter, but this one has exp_avg"),
    ],
)
def test_the_state_of_another_optimizer_is_refused_with_what_to_set(tmp_path, saved, resumed, told):
    model = nn.Linear(3, 2)
    checkpoints.save(tmp_path, 1, model, optimizer_of(model, **saved), {})
    with pytest.raises(CheckpointError, match=rf"state of another optimizer: {told}.*Set train\.optimizer"):
        checkpoints.newest(tmp_path).restore(model, optimizer_of(model, **resumed))


def test_optimizer_state_that_lacks_a_parameter_is_refused_by_name(tmp_path):
    model = nn.Linear(3, 2)
    optimizer = optimizer_of(model)
    full = gather(model, optimizer, ProcessGroup())
    lacking = {key: tensor for key, tensor in full.optimizer.items() if key != "exp_avg/bias"}
    checkpoints.write(tmp_path, 1, FullState(full.parameters, lacking), {})
    with pytest.raises(CheckpointError, match=r"optimizer's state in .* does not fit.*; missing: exp_avg/bias"):
        checkpoints.newest(tmp_path).restore(model, optimizer)


def test_a_checkpoint_of_another_format_is_refused(tmp_path):
    model, optimizer = trained()
    folder = checkpoints.save(tmp_path, 1, model, optimizer, {})
    write_checked_json(folder / "state.json", {**read_checked_json(folder / "state.json"), "format": 99})
    with pytest.raises(CheckpointError, match="format 99"):
        checkpoints.open_checkpoint(folder)


def test_what_a_kill_left_of_a_deletion_is_no_checkpoint_and_goes_with_other_leftovers(tmp_path, monkeypatch):
    model, optimizer = trained()
    for step in (1, 2):
        checkpoints.save(tmp_path, step, model, optimizer, {})

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as during:
        during.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.prune(tmp_path, keep=1)
    assert checkpoints.newest(tmp_path).folder.name == "step_00000002"
    remove_leftovers(tmp_path)
    assert [folder.name for folder in (tmp_path / "checkpoints").iterdir()] == ["step_00000002"]


def test_pruning_neither_counts_nor_deletes_damaged_checkpoints(tmp_path):
    model, optimizer = trained()
    for step in (1, 2, 3):
        checkpoints.save(tmp_path, step, model, optimizer, {})
    places = tmp_path / "checkpoints"
    flip(places / "step_00000002" / "state.json", 100)
    (places / "step_00000099").write_text("a stray file")
    (places / "step_99999999").mkdir()
    checkpoints.prune(tmp_path, keep=1)
    names = ["step_00000002", "step_00000003", "step_00000099", "step_99999999"]
    assert sorted(folder.name for folder in places.iterdir()) == names
    assert checkpoints.newest(tmp_path).folder.name == "step_00000003"


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_no_flipped_bit_of_a_checkpoint_is_accepted(tmp_path, name):
    model, optimizer = trained()
    state = {"position": {"step": 3, "stage_step": 3}, "metrics": {"bytes": 812}, "loss_scale": None}
    file = checkpoints.save(tmp_path, 3, model, optimizer, state) / name
    whole, numbers = file.read_bytes(), random.Random(name)
    bits = range(8 * len(whole)) if name == "state.json" else numbers.sample(range(8 * len(whole)), 400)
    for bit in bits:
        flip(file, bit)
        with pytest.raises(CheckpointError):
            checkpoints.open_checkpoint(file.parent)
        file.write_bytes(whole)
    checkpoints.open_checkpoint(file.parent)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b"{}", b'{"format": 3}', b"[" * 100_000, b"\xff", b'{"a": 1, "checksum": 2}']
)
def test_whatever_stands_in_state_json_the_checkpoint_before_is_used(tmp_path, content, capsys):
    model, optimizer = trained()
    for step in (1, 2):
        folder = checkpoints.save(tmp_path, step, model, optimizer, {})
    (folder / "state.json").write_bytes(content)
    assert checkpoints.newest(tmp_path).folder.name == "step_00000001"
    said = capsys.readouterr().err
    assert said.startswith("Skipping a damaged checkpoint: ")
    assert "step_00000002" in said
    assert said.count("\n") == 1
    assert (folder / "state.json").read_bytes() == content


def test_a_renamed_checkpoint_or_one_with_the_state_of_another_is_refused(tmp_path):
    model, optimizer = trained()
    one, two = (checkpoints.save(tmp_path, step, model, optimizer, {}) for step in (1, 2))
    shutil.copy(one / "state.json", two / "state.json")
    with pytest.raises(CheckpointError, match="step_00000002 holds step 1"):
        checkpoints.open_checkpoint(two)
    with pytest.raises(CheckpointError, match="step_00000005 holds step 1"):
        checkpoints.open_checkpoint(one.rename(one.with_name("step_00000005")))


@pytest.mark.parametrize("files", [{}, {"model.safetensors": "0"}])
def test_a_state_that_does_not_name_exactly_the_files_of_a_checkpoint_is_refused(tmp_path, files):
    folder = checkpoints.save(tmp_path, 1, *trained(), {})
    write_checked_json(folder / "state.json", {**read_checked_json(folder / "state.json"), "files": files})
    with pytest.raises(CheckpointError, match="does not name exactly"):
        checkpoints.open_checkpoint(folder)


def test_a_damaged_checkpoint_in_the_place_of_a_new_one_is_renamed(tmp_path):
    model, optimizer = trained()
    for _ in range(3):
        folder = checkpoints.save(tmp_path, 1, model, optimizer, {})
        flip(folder / "model.safetensors", 9)
    checkpoints.save(tmp_path, 1, model, optimizer, {})
    names = ["step_00000001", *(f"step_00000001.damaged{number}" for number in ("", 1, 2))]
    assert sorted(place.name for place in folder.parent.iterdir()) == names
    assert checkpoints.newest(tmp_path).folder == folder


def test_a_run_is_started_once_it_has_a_checkpoint_or_is_done(tmp_path):
    assert not checkpoints.is_started(tmp_path)
    tiny_run.write_run_json(tmp_path, status="running")
    (tmp_path / "checkpoints" / ".step_00000000.abcdefgh.tmp").mkdir(parents=True)
    assert not checkpoints.is_started(tmp_path)
    tiny_run.write_run_json(tmp_path, status="done")
    assert checkpoints.is_started(tmp_path)
    tiny_run.write_run_json(tmp_path, status="stopped")
    checkpoints.save(tmp_path, 0, *trained(), {})
    assert checkpoints.is_started(tmp_path)


STATE = FullState({"weight": torch.ones(2)}, {"step/weight": torch.ones(())})


def test_training_continues_while_a_checkpoint_is_written(tmp_path, monkeypatch):
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


def test_an_error_of_the_thread_is_raised_once_and_the_previous_checkpoint_is_complete(tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with Saver(tmp_path, keep=2) as saver:
        saver.save(1, STATE, {})
        saver.finish()
        monkeypatch.setattr("safetensors.torch.save_file", full)
        saver.save(2, STATE, {})
        with pytest.raises(StorageError, match=r"No space left.*resume from the previous checkpoint"):
            saver.finish()
        saver.check()
    assert checkpoints.newest(tmp_path).folder.name == "step_00000001"
