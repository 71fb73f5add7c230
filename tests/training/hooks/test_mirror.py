import errno
import json

import pytest
from torch import nn

import ernie2
import tiny_run
from ernie2.config.settings import TrainSettings
from ernie2.errors import CheckpointError, ConfigError
from ernie2.training import checkpoints
from ernie2.training.hooks.mirror import Mirror, fetch
from ernie2.training.optimizers import build_optimizer


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory):
    """A finished run and its mirror."""
    folder = tmp_path_factory.mktemp("mirrored")
    tiny_run.write_shards(folder / "shards")
    recipe = tiny_run.recipe(folder, train={"mirror": f"file://{folder}/mirror", "keep_checkpoints": 1})
    ernie2.pretrain(recipe.model_dump(mode="json"))
    return folder


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_a_mirror_holds_the_checkpoints_of_the_run_folder(mirrored):
    for step in names(mirrored / "run" / "checkpoints"):
        checkpoints.open_checkpoint(mirrored / "mirror" / "checkpoints" / step)
    assert names(mirrored / "mirror" / "checkpoints") == names(mirrored / "run" / "checkpoints")


def test_a_run_with_a_lost_disk_resumes_from_its_mirror_to_the_same_bits(mirrored, tmp_path):
    newest, *_ = sorted((mirrored / "mirror" / "checkpoints").iterdir(), reverse=True)
    (newest / "model.safetensors").write_bytes(b"damaged")
    run = ernie2.resume(tmp_path / "run", f"file://{mirrored}/mirror")
    for file in ("model.safetensors", "task_heads.safetensors"):
        assert (run / "hf" / file).read_bytes() == (mirrored / "run" / "hf" / file).read_bytes()
    steps = [line["step"] for line in map(json.loads, (run / "metrics.jsonl").open()) if line["kind"] == "step"]
    assert steps == sorted(set(steps))


def test_a_folder_that_holds_a_run_is_left_as_it_is(mirrored, capsys):
    before = names(mirrored / "run")
    fetch(f"file://{mirrored}/mirror", mirrored / "run")
    assert names(mirrored / "run") == before
    assert "nothing was fetched" in capsys.readouterr().err


def test_a_mirror_without_a_checkpoint_makes_no_run(tmp_path):
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        fetch(f"file://{tmp_path}/nothing", tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_url_nothing_can_open_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="nosuch://"):
        Mirror(tmp_path, "nosuch://bucket/run")


def test_a_failing_mirror_is_reported_and_the_next_checkpoint_is_copied(tmp_path, monkeypatch, capsys):
    mirror = Mirror(tmp_path / "run", "memory://mirror")
    put = mirror._files.put_file
    for step, fails in ((1, True), (2, False)):

        def failing(*arguments, fails=fails):
            if fails:
                raise OSError(errno.ECONNRESET, "connection reset")
            put(*arguments)

        monkeypatch.setattr(mirror._files, "put_file", failing)
        model = nn.Linear(3, 2)
        mirror.on_checkpoint(
            checkpoints.save(tmp_path / "run", step, model, build_optimizer(model, TrainSettings()), {})
        )
    assert "step_00000001 was not copied to memory://mirror" in capsys.readouterr().err
    assert mirror._files.exists(f"{mirror._root}/checkpoints/step_00000002/state.json")
