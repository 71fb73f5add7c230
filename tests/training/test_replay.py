import json

import numpy as np
import pytest
import torch

import tiny_run
from ernie2.errors import CheckpointError, RunFailed, StorageError
from ernie2.runs.build import build
from ernie2.shards.store import Shards
from ernie2.training import replay
from tiny import states_of


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that met a loss that is not finite, three times in a row."""
    folder = tmp_path_factory.mktemp("bad")
    tiny_run.write_shards(folder / "shards")
    recipe = tiny_run.recipe(folder, stages={"method": "multitask"})
    trainer = build(recipe, Shards(folder / "shards")).trainer
    with torch.no_grad():
        trainer.model.encoder.embeddings.norm.weight.fill_(float("nan"))
    with pytest.raises(RunFailed) as stopped:
        trainer.train()
    return folder / "run", str(stopped.value), trainer


def test_the_message_names_step_stage_tasks_positions_and_the_command(run):
    folder, told, trainer = run
    assert "step 3 of stage 1 (" in told
    tasks = trainer.plans[0].active_tasks(2)
    assert f"({', '.join(tasks)}; " in told
    assert "is not finite" in told
    assert "; data stream 0 at " in told
    assert "the last of 3 such steps in a row" in told
    assert f"python -m ernie2.training.replay {folder / 'bad_batch'}" in told
    assert "lower train.peak_lr" in told


def test_a_saved_batch_has_no_pickles_and_loads_exactly(run):
    folder, _, trainer = run
    assert sorted(file.name for file in (folder / "bad_batch").iterdir()) == [
        "batch.json",
        "model.safetensors",
        "packs.npz",
    ]
    packs, model, facts = replay.read_bad_batch(folder / "bad_batch")
    assert sorted(packs) == [0, 1]
    assert facts["step"] == 3
    assert set(facts["losses"].values()) == {"nan"}
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(torch.nan_to_num(tensor), torch.nan_to_num(model.state_dict()[name])), name
    assert set(facts["streams"]) == {"0", "1"}
    for pack in packs.values():
        assert pack.tokens.dtype == np.int32
        assert pack.real_tokens > 0


def test_the_saved_batch_is_that_of_the_data_streams(run):
    folder, _, trainer = run
    packs, _, facts = replay.read_bad_batch(folder / "bad_batch")

    plan = trainer.plans[0]
    for number, pack in packs.items():
        state = states_of([facts["streams"][str(number)]])[0]
        again, _ = trainer.streams.pack(number, state, plan.main_task(2), plan.active_tasks(2))
        assert np.array_equal(again.tokens, pack.tokens)
        assert set(again.targets) == set(pack.targets)


def test_a_replay_names_the_task_and_the_first_module(run, capsys):
    folder, _, trainer = run
    assert replay.main([str(folder / "bad_batch"), "--device", "cpu"]) == 0
    told = capsys.readouterr().out
    for task in trainer.plans[0].active_tasks(2):
        assert f"{task:<26} loss nan" in told
    assert "Not finite before the step: encoder.embeddings.norm.weight\n" in told
    assert "First output that is not finite: encoder.embeddings" in told
    assert told.endswith("Not finite again.\n")


def test_a_replay_of_a_sound_step_gives_its_losses_bit_for_bit(tmp_path):
    tiny_run.write_shards(tmp_path / "shards")
    recipe = tiny_run.recipe(tmp_path, stages={"method": "multitask"}, train={"max_nonfinite_steps": 1})
    trainer = build(recipe, Shards(tmp_path / "shards")).trainer

    def break_the_gradient(step):
        if step == 2:
            bias = trainer.model.encoder.embeddings.norm.bias
            bias.register_hook(lambda slope: slope * torch.nan)

    tiny_run.around_steps(trainer, break_the_gradient)
    with pytest.raises(RunFailed, match=r"step 2 of stage 1.*a gradient is not finite"):
        trainer.train()
    facts = json.loads((tmp_path / "run" / "bad_batch" / "batch.json").read_text())
    found = replay.replay(tmp_path / "run" / "bad_batch", device="cpu")
    assert found.finite  # the hook, which stands for failing hardware, was not kept
    assert facts["grad_norm"] == "nan"
    for name, total in facts["losses"].items():
        assert found.losses[name] == pytest.approx(float(total) / facts["counts"][name], rel=1e-12)
    assert replay.main([str(tmp_path / "run" / "bad_batch"), "--device", "cpu"]) == 1


def test_a_folder_without_a_saved_batch_is_refused(tmp_path, capsys):
    with pytest.raises(CheckpointError, match="not a saved bad batch"):
        replay.read_bad_batch(tmp_path)
    assert replay.main([str(tmp_path)]) == 2
    assert "error:" in capsys.readouterr().err


def test_a_full_disk_leaves_the_batch_saved_before(run, tmp_path, monkeypatch):
    packs, model, _ = replay.read_bad_batch(run[0] / "bad_batch")
    place = tmp_path / "bad_batch"
    replay.write_bad_batch(place, packs, model, dict(model.named_parameters()), {"step": 1})

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(StorageError, match="No space left"):
        replay.write_bad_batch(place, packs, model, {}, {"step": 2})
    assert json.loads((place / "batch.json").read_text())["step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["bad_batch"]
