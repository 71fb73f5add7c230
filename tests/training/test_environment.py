from __future__ import annotations

import json
import subprocess

import pytest
import torch

import ernie2
import tiny_run
from ernie2.errors import CheckpointError
from ernie2.training.environment import SAMPLING, check_rules, environment, git_state, rules, versions
from ernie2.training.run_record import read_run
from ernie2.version import __version__


def test_versions_name_what_is_installed_and_leave_out_what_is_not():
    found = versions()
    assert found["ernie2"] == __version__
    assert found["torch"] == torch.__version__
    assert {"numpy", "tokenizers", "safetensors"} <= set(found)
    assert all(found.values())


def test_the_environment_names_machine_and_threads():
    found = environment()
    assert found["threads"] == torch.get_num_threads()
    assert found["cpu"]
    assert found["os"]
    assert found["cores"] >= 1
    assert found["ranks"] == 1


def test_the_commit_of_a_folder_says_whether_it_has_changes(tmp_path):
    def git(*arguments):
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    assert git_state(tmp_path / "nowhere") is None
    git("init", "-q")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-q", "-m", "one")
    commit = git("rev-parse", "--short=12", "HEAD")
    assert git_state(tmp_path) == commit
    (tmp_path / "file").write_text("two")
    assert git_state(tmp_path) == commit + "+changes"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rules")
    tiny_run.write_shards(folder / "shards")
    ernie2.pretrain(tiny_run.recipe(folder).model_dump(mode="json"))
    return folder


@pytest.fixture
def other_version(place, monkeypatch):
    """The next version, with other sampling rules."""
    monkeypatch.setattr("ernie2.training.environment.SAMPLING", SAMPLING + 1)
    return place / "run"


def everything(folder):
    return {file: file.stat().st_mtime_ns for file in folder.rglob("*")}


def test_a_run_records_the_versions_of_sampling_and_numerics(place):
    assert read_run(place / "run").rules == {"sampling": 2, "numerics": 3}


def test_a_run_of_other_rules_is_neither_resumed_nor_extended_and_its_folder_is_not_touched(other_version, place):
    before = everything(place)
    with pytest.raises(CheckpointError, match=r"run started under other rules \(sampling 2, numerics 3; this version"):
        ernie2.resume(other_version)
    with pytest.raises(CheckpointError, match="Start a new run in another folder"):
        ernie2.extend(other_version, "sentence_distance", place / "shards")
    assert everything(place) == before


def test_a_run_that_records_no_rules_is_refused_in_one_line():
    with pytest.raises(CheckpointError, match=r"records none, as 0\.1\.0 did; this version has") as refused:
        check_rules(None, "run")
    assert "\n" not in str(refused.value)
    check_rules(rules(), "run")


def test_its_weights_still_start_a_new_run_and_are_evaluated_with_a_word_on_it(other_version, place, tmp_path, capsys):
    made = tiny_run.recipe(tmp_path, shards={"folder": str(place / "shards")})
    run = ernie2.pretrain(made.model_dump(mode="json"), init_from=other_version)
    assert read_run(run).rules["sampling"] == 3
    ernie2.evaluate(other_version)
    assert "trained with other sampling rules" in capsys.readouterr().err


def test_a_mirror_of_a_run_of_other_rules_is_not_fetched(other_version, place, tmp_path):
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "run.json").write_text(json.dumps(read_run(place / "run").as_json()))
    with pytest.raises(CheckpointError, match="other rules"):
        ernie2.resume(tmp_path / "run", f"file://{tmp_path}/mirror")
    assert not (tmp_path / "run" / "run.json").exists()
