"""A real process, a real SIGKILL, a real resume: the run ends as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from ernie2.training.records import Records

SOURCE = Path(__file__).parents[2] / "src"


def write_corpus(file, documents=40, seed=3):
    """Sentences of made-up words, some capitalised: nothing to learn, everything to walk through."""
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(list("abdeiklmnorstu"), size=rng.integers(2, 7))) for _ in range(200)]

    def sentence():
        chosen = [words[i] for i in rng.integers(200, size=rng.integers(4, 12))]
        return " ".join([chosen[0].title(), *(w.title() if rng.random() < 0.1 else w for w in chosen[1:])]) + "."

    def paragraph():
        return " ".join(sentence() for _ in range(rng.integers(2, 7)))

    text = "\n\n".join("\n".join(paragraph() for _ in range(rng.integers(3, 8))) for _ in range(documents))
    file.write_text(text + "\n", encoding="utf-8")


def write_recipe(folder, run):
    recipe = {
        "name": "killed",
        "run": str(folder / run),
        "corpora": {"words": {"path": str(folder / "words.txt")}},
        "tokenizer": {"train": 400},
        "shards": {"folder": str(folder / "shards"), "shard_tokens": 5000, "sentence_tokens": 58, "min_heldout": 6},
        "tasks": {
            "knowledge_masking": {},
            "capitalization_prediction": {},
            "token_document_relation": {},
            "sentence_reordering": {},
        },
        "stages": {"steps": 60},
        "batch": {"batch_tokens": 512, "pack_tokens": 256, "sequence_tokens": 64},
        "encoder": {"layers": 1, "hidden": 32, "heads": 2, "position_rows": 64},
        "train": {"peak_lr": 1e-3, "heldout_instances": 16, "checkpoint_every": 17, "log_every": 5},
    }
    file = folder / f"{run}.yaml"
    file.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return file


def start(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-m", "ernie2", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(*arguments):
    process = start(*arguments)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kill")
    write_corpus(folder / "words.txt")
    finish("pretrain", write_recipe(folder, "whole"))
    return folder


def until(run, process, step):
    """Waits until `process` has trained `step` steps into `run`."""
    while process.poll() is None and not any(line.get("step", 0) >= step for line in Records(run).read()):
        time.sleep(0.02)


def same_end(run, whole):
    for file in ("hf/model.safetensors", "hf/task_heads.safetensors"):
        assert (run / file).read_bytes() == (whole / file).read_bytes()


@pytest.mark.parametrize("step", [20, 90])
def test_a_run_killed_by_sigkill_ends_bit_identical_after_resume(folder, step):
    run = folder / f"killed{step}"
    process = start("pretrain", write_recipe(folder, run.name))
    until(run, process, step)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the run was over before it could be killed"
    assert not (run / "hf").exists()
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "step", "ste')  # as a kill in the middle of a write leaves it
    output = finish("resume", run)
    assert "Resuming" in output
    same_end(run, folder / "whole")
    steps = [line["step"] for line in Records(run).read() if line["kind"] == "step"]
    assert steps == sorted(set(steps)), "a step stands twice in the records"


def test_sigterm_saves_and_says_by_its_exit_code_that_the_run_can_be_resumed(folder):
    run = folder / "asked"
    process = start("pretrain", write_recipe(folder, run.name))
    until(run, process, 30)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75, output
    assert "SIGTERM: finishing the step and saving a checkpoint" in output
    assert "stopped: SIGTERM came; step" in output
    assert f"`ernie2 resume {run}` goes on from there" in output
    assert "Traceback" not in output
    assert json.loads((run / "run.json").read_text())["status"] == "stopped"
    assert not (run / "lock").exists()
    finish("resume", run)
    same_end(run, folder / "whole")


def test_a_second_process_in_the_same_run_is_refused_while_the_first_lives(folder):
    run = folder / "shared"
    first = start("pretrain", write_recipe(folder, run.name))
    until(run, first, 5)
    first.send_signal(signal.SIGSTOP)  # so that it is not done before the second has started
    second = start("resume", run)
    output, _ = second.communicate(timeout=60)
    assert second.returncode == 2
    assert f"{run} is in use by process {first.pid} on " in output
    assert "Traceback" not in output
    first.kill()
    first.communicate()
    assert f"left by process {first.pid}" in finish("resume", run)
    same_end(run, folder / "whole")


def test_resuming_a_finished_run_says_so_and_changes_nothing(folder):
    before = (folder / "whole" / "metrics.jsonl").read_bytes()
    assert "nothing to resume" in finish("resume", folder / "whole")
    assert (folder / "whole" / "metrics.jsonl").read_bytes() == before


def test_a_second_run_into_the_same_folder_is_refused(folder):
    process = start("pretrain", folder / "whole.yaml")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "holds a finished run" in output
    assert "Traceback" not in output
