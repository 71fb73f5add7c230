"""A run that is killed with SIGKILL and resumed ends with the same result."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from child_processes import child_processes
from ernie2.training.records import Records

SOURCE = Path(__file__).parents[2] / "src"
LIMIT = 600
STOPS_ITSELF = """
import os, signal, sys
from ernie2.cli import main
from ernie2.training.records import Records

write, at = Records.write, int(sys.argv.pop(1))


def writing(self, kind, **values):
    write(self, kind, **values)
    if kind == "step" and values["step"] == at:
        os.kill(os.getpid(), signal.SIGSTOP)


Records.write = writing
main(sys.argv[1:])
"""
"""The command line, in a process that stops (as by Ctrl-Z) once it has recorded a step."""


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


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "2"}
PIPED = {"env": ENVIRONMENT, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}


def finish(*arguments, code=0):
    """Return what a command printed that ends with exit code `code`."""
    with child_processes() as start:
        process = start([sys.executable, "-m", "ernie2", *arguments], **PIPED)
        output, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == code, output
    return output


def stopped_at(step, start_process, *arguments):
    """Return the process of a command that has stopped itself after recording `step`."""
    process = start_process([sys.executable, "-c", STOPS_ITSELF, str(step), *arguments], **PIPED)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), "the run ended before it could be stopped"
    return process


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kill")
    write_corpus(folder / "words.txt")
    finish("pretrain", write_recipe(folder, "whole"))
    return folder


def same_end(run, whole):
    for file in ("hf/model.safetensors", "hf/task_heads.safetensors"):
        assert (run / file).read_bytes() == (whole / file).read_bytes()


@pytest.mark.parametrize("step", [20, 90])
def test_a_run_killed_by_sigkill_ends_bit_identical_after_resume(folder, start_process, step):
    run = folder / f"killed{step}"
    process = stopped_at(step, start_process, "pretrain", write_recipe(folder, run.name))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (run / "hf").exists()
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "step", "ste')  # as a kill in the middle of a write leaves it
    output = finish("resume", run)
    assert "Resuming" in output
    same_end(run, folder / "whole")
    steps = [line["step"] for line in Records(run).read() if line["kind"] == "step"]
    assert steps == sorted(set(steps)), "a step stands twice in the records"


def test_sigterm_saves_and_says_by_its_exit_code_that_the_run_can_be_resumed(folder, start_process):
    run = folder / "asked"
    process = stopped_at(30, start_process, "pretrain", write_recipe(folder, run.name))
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    output, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 75, output
    assert "SIGTERM: finishing the step and saving a checkpoint" in output
    assert "stopped: received SIGTERM; step" in output
    assert f"`ernie2 resume {run}` continues from it" in output
    assert "Traceback" not in output
    assert json.loads((run / "run.json").read_text())["status"] == "stopped"
    assert not (run / "lock").exists()
    finish("resume", run)
    same_end(run, folder / "whole")


def test_a_second_process_in_the_same_run_is_refused_while_the_first_lives(folder, start_process):
    run = folder / "shared"
    first = stopped_at(5, start_process, "pretrain", write_recipe(folder, run.name))
    output = finish("resume", run, code=2)
    assert f"{run} is in use by process {first.pid} on " in output
    assert "Traceback" not in output
    first.kill()
    first.communicate()
    assert f"left by process {first.pid}" in finish("resume", run)
    same_end(run, folder / "whole")


def test_resuming_a_finished_run_reports_it_and_changes_no_file(folder):
    before = (folder / "whole" / "metrics.jsonl").read_bytes()
    assert "nothing to resume" in finish("resume", folder / "whole")
    assert (folder / "whole" / "metrics.jsonl").read_bytes() == before


def test_a_second_run_into_the_same_folder_is_refused(folder):
    output = finish("pretrain", folder / "whole.yaml", code=2)
    assert "contains a finished run" in output
    assert "Traceback" not in output
