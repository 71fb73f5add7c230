"""The command on two ranks: one rank prints and writes, with the same results as one process."""

import json
import re

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

import ranks
import tiny
import tiny_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Shards, and a recipe of three of the four tasks."""
    folder = tmp_path_factory.mktemp("ranks")
    tiny_run.write_shards(folder / "shards")
    recipe = tiny_run.recipe(folder).model_dump(mode="json")
    recipe["tasks"] = {name: {} for name in tiny.FOUR[:3]}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def outputs(folder):
    """What two sharded ranks printed on their way through the recipe."""
    return ranks.run_ranks(2, ["-m", "ernie2", "pretrain", folder / "recipe.yaml", "train.parallel=fsdp"])


def test_one_of_two_ranks_speaks(outputs):
    assert "Stage 1 of 3" in outputs[0]
    assert "Report:" in outputs[0]
    assert not re.search("Stage|Report|next:", outputs[1])


def test_two_sharded_ranks_leave_the_folder_one_process_leaves(folder, outputs):
    ranks.run_ranks(1, ["-m", "ernie2", "pretrain", folder / "recipe.yaml", f"run={folder / 'alone'}"])
    for file in ("model.safetensors", "task_heads.safetensors"):
        one, two = (load_file(folder / run / "hf" / file) for run in ("alone", "run"))
        assert one.keys() == two.keys()
        for name, values in one.items():
            if not name.endswith("key.bias"):  # attention does not depend on it, so what it learns is rounding error
                assert np.linalg.norm(values - two[name]) <= 1e-5 * np.linalg.norm(values), name
    assert (folder / "run" / "report.html").exists()
    assert json.loads((folder / "run" / "run.json").read_text())["status"] == "done"


def test_two_sharded_ranks_extend_a_finished_run(folder, outputs):
    command = ["-m", "ernie2", "extend", folder / "run", "--task", tiny.FOUR[3], "--data", folder / "shards"]
    output = ranks.run_ranks(2, [*command, "stages.steps=4"])
    assert "newly initialised" in output[0]
    assert "newly initialised" not in output[1]
    facts = json.loads((folder / f"run+{tiny.FOUR[3]}" / "run.json").read_text())
    assert facts["status"] == "done"
    assert facts["stages"][-1]["introduced"] == [tiny.FOUR[3]]


def test_an_error_is_reported_once(folder, outputs):
    output = "".join(ranks.run_ranks(2, ["-m", "ernie2", "pretrain", folder / "recipe.yaml"], code=2))
    assert output.count("contains a finished run") == 1
    assert "Traceback" not in output
