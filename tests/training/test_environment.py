import subprocess

import torch

from ernie2.training.environment import environment, fingerprint, git_state, versions
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
    assert found["world"] == 1


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


def test_a_fingerprint_depends_on_values_and_not_on_the_order_of_keys():
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
