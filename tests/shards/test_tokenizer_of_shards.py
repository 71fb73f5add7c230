from __future__ import annotations

import json

import pytest

import ernie2
import tiny
import tiny_run
from ernie2.errors import ShardError
from ernie2.shards.shard_folders import load_shards_tokenizer
from ernie2.shards.store import Shards
from ernie2.storage.atomic import checksum


def exchange_two_ids(file):
    """Exchange the ids of w10 and w11 in a tokenizer.json."""
    described = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = described["model"]["vocab"]
    vocabulary["w10"], vocabulary["w11"] = vocabulary["w11"], vocabulary["w10"]
    file.write_text(json.dumps(described), encoding="utf-8")


def test_the_tokeniser_of_shards_is_the_one_they_were_built_with(tmp_path):
    shards = tiny_run.write_shards(tmp_path)
    assert load_shards_tokenizer(shards).fingerprint == shards.tokenizer_fingerprint


@pytest.mark.parametrize("content", [None, "", "[]", "{", "[" * 100_000])
def test_a_damaged_tokeniser_is_refused_as_damage_of_the_shards(tmp_path, content):
    shards = tiny_run.write_shards(tmp_path)
    file = tmp_path / "tokenizer.json"
    file.unlink() if content is None else file.write_text(content)
    with pytest.raises(ShardError, match=r"tokenizer\.json"):
        load_shards_tokenizer(shards)


def test_two_exchanged_ids_stop_every_command_before_it_does_anything(tmp_path):
    tiny_run.write_shards(tmp_path / "shards")
    recipe = tiny_run.recipe(tmp_path).model_dump(mode="json")
    run = ernie2.pretrain(recipe)
    tiny_run.write_run_json(run, status="stopped")
    exchange_two_ids(tmp_path / "shards" / "tokenizer.json")
    exported = {file.name: file.read_bytes() for file in (run / "hf").iterdir()}
    for use in (
        lambda: ernie2.pretrain({**recipe, "run": str(tmp_path / "other")}),
        lambda: ernie2.resume(run),
        lambda: ernie2.evaluate(run),
        lambda: ernie2.inspect(tmp_path / "shards"),
    ):
        with pytest.raises(ShardError, match=r"tokenizer\.json is not the tokeniser of these shards"):
            use()
    assert {file.name: file.read_bytes() for file in (run / "hf").iterdir()} == exported


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "vocab.txt"])
def test_a_changed_file_of_the_tokeniser_is_named(tmp_path, name):
    folder = tiny_run.write_shards(tmp_path).folder
    tiny.change(folder / "shards.json", files={name: checksum(folder / name)})
    (folder / name).write_text((folder / name).read_text(encoding="utf-8") + " ", encoding="utf-8")
    with pytest.raises(ShardError, match=f"{name} does not match its checksum"):
        load_shards_tokenizer(Shards(folder))
