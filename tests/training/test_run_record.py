import json

import pytest
from pydantic import ValidationError

import tiny_run
from ernie2.errors import CheckpointError
from ernie2.storage.json_files import write_checked_json
from ernie2.training.run_record import RunRecord, fingerprint, read_run, write_run


def test_a_record_is_written_as_it_was_read(tmp_path):
    tiny_run.write_run_json(tmp_path, recipe={"seed": 1})
    content = (tmp_path / "run.json").read_bytes()
    write_run(tmp_path, read_run(tmp_path))
    assert (tmp_path / "run.json").read_bytes() == content


def test_a_changed_record_is_a_copy_and_nothing_assigns_to_one():
    record = RunRecord.model_validate(tiny_run.run_values())
    assert (record.updated(status="done").status, record.status) == ("done", "running")
    with pytest.raises(ValidationError, match="frozen"):
        record.status = "done"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"hook": "evil:Class"},
            r"hook: there is no such key.*If a newer ernie2 wrote it.* Put back",
        ),
        ({"status": "paused"}, "status: must be 'running', 'stopped' or 'done'"),
        ({"seed": "seven"}, "seed: must be a whole number"),
        ({"tasks": [{"name": "a"}]}, r"tasks\.0\.id: this key is required"),
        ({"data": {}}, r"data\.shards: this key is required"),
    ],
)
def test_unknown_and_damaged_keys_are_named(tmp_path, changes, said):
    tiny_run.write_run_json(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=rf"run\.json is damaged: .*{said}") as refused:
        read_run(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_record_of_before_run_ids_and_rules_is_read(tmp_path):
    values = tiny_run.run_values()
    del values["run_id"]
    write_checked_json(tmp_path / "run.json", values)
    record = read_run(tmp_path)
    assert (record.run_id, record.rules, record.as_json()) == (None, None, values)
    assert json.loads((tmp_path / "run.json").read_text())["format"] == 3


def test_a_fingerprint_depends_on_values_and_not_on_the_order_of_keys():
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_a_folder_without_run_json_is_no_run(tmp_path):
    with pytest.raises(CheckpointError, match="not a run folder"):
        read_run(tmp_path)
    with pytest.raises(CheckpointError, match="does not exist"):
        read_run(tmp_path / "nowhere")


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{}", b'{"format": 3}', b"[" * 100_000, b"\xff\x00"])
def test_a_damaged_run_json_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"run\.json is damaged: .*Put back a copy") as refused:
        read_run(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_run_json_that_is_a_folder_is_refused(tmp_path):
    (tmp_path / "run.json").mkdir()
    with pytest.raises(CheckpointError, match=r"run\.json is damaged: Is a directory"):
        read_run(tmp_path)


def test_no_flipped_bit_of_run_json_is_accepted(tmp_path):
    tiny_run.write_run_json(tmp_path, seed=3, recipe={"train": {"peak_lr": 1e-3}})
    file = tmp_path / "run.json"
    whole = file.read_bytes()
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        with pytest.raises(CheckpointError):
            read_run(tmp_path)


def test_a_recipe_that_its_fingerprint_does_not_fit_is_refused(tmp_path):
    tiny_run.write_run_json(tmp_path, recipe={"seed": 1})
    write_checked_json(tmp_path / "run.json", read_run(tmp_path).as_json() | {"recipe": {"seed": 2}})
    with pytest.raises(CheckpointError, match="its recipe does not match recipe_fingerprint"):
        read_run(tmp_path)
    write_checked_json(tmp_path / "run.json", {"format": 3, "recipe": {}})
    with pytest.raises(CheckpointError, match=r"name: this key is required; .*; and \d+ more\. Put back"):
        read_run(tmp_path)


def test_a_run_of_the_first_version_is_refused_in_one_line_that_says_what_to_do(tmp_path):
    (tmp_path / "run.json").write_text('{"format": 1, "status": "done"}')
    with pytest.raises(
        CheckpointError, match=r"format 1 \(ernie2 0\.1 wrote it\).*`--init-from .*hf` starts from"
    ) as refused:
        read_run(tmp_path)
    assert "\n" not in str(refused.value)
