"""Two torchrun agents as on two machines: one is killed and restarted, and the run finishes."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml

import ranks
from ernie2.training.records import Records

pytestmark = pytest.mark.slow

LIMIT = 240


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A corpus of made-up words and a recipe for runs of some 200 steps of two packs."""
    folder = tmp_path_factory.mktemp("machines")
    rng = np.random.default_rng(5)
    words = ["".join(rng.choice(list("abdeiklmnorstu"), size=rng.integers(2, 7))) for _ in range(200)]
    sentences = [" ".join(words[i] for i in rng.integers(200, size=rng.integers(4, 12))).title() for _ in range(900)]
    texts = [". ".join(sentences[i : i + 15]) + "." for i in range(0, 900, 15)]
    (folder / "words.txt").write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    recipe = {
        "name": "machines",
        "run": str(folder / "one"),
        "corpora": {"words": {"path": str(folder / "words.txt")}},
        "tokenizer": {"train": 400},
        "shards": {"folder": str(folder / "shards"), "shard_tokens": 5000, "sentence_tokens": 58, "min_heldout": 6},
        "tasks": {"knowledge_masking": {}, "capitalization_prediction": {}},
        "stages": {"steps": 100},
        "batch": {"batch_tokens": 512, "pack_tokens": 256, "sequence_tokens": 64},
        "encoder": {"layers": 1, "hidden": 32, "heads": 2, "position_rows": 64},
        "train": {"peak_lr": 1e-3, "heldout_instances": 16, "checkpoint_every": 20, "log_every": 5},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return folder


def agent(folder, run, port, host):
    """The agent of one machine; its processes are a group of their own."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", run]
    command += ["--rdzv-conf", f"is_host={host}", "--max-restarts", "3", "-m", "ernie2", "pretrain"]
    command += [str(folder / "recipe.yaml"), f"run={folder / run}"]
    output = (folder / f"{run}-{host}-{time.monotonic():.0f}.txt").open("w")
    return subprocess.Popen(
        command,
        env=ranks.environment(TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1"),  # docs/distributed.md says why
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def kill_agent(process):
    """Kill an agent and its child processes, as if the machine failed."""
    workers = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False).stdout
    for each in (process.pid, *map(int, workers.split())):
        os.kill(each, signal.SIGKILL)
    process.wait()


def until(step, records, processes):
    """Wait until the run has recorded `step`."""
    end = time.monotonic() + LIMIT
    while not any(line.get("step", 0) >= step for line in records.read()):
        assert all(process.poll() is None for process in processes), "it ended before it could be cut off"
        assert time.monotonic() < end
        time.sleep(0.05)


def logs(folder):
    return "\n".join(file.read_text() for file in sorted(folder.glob("*.txt")) if file.name != "words.txt")


def test_a_machine_that_disconnects_and_returns_does_not_change_the_run(folder):
    port = ranks.free_port()
    machines = [agent(folder, "two", port, host) for host in (True, False)]
    try:
        until(60, Records(folder / "two"), machines)
        kill_agent(machines[1])
        machines[1] = agent(folder, "two", port, False)
        codes = [machine.wait(timeout=LIMIT) for machine in machines]
    finally:
        for machine in machines:
            if machine.poll() is None:
                kill_agent(machine)
    assert codes == [0, 0], logs(folder)
    assert "Resuming" in logs(folder)
    assert "another rank ended" in logs(folder)
    ours = [line for line in logs(folder).splitlines() if "/elastic/agent/" not in line]
    assert "Traceback" not in "\n".join(ours)  # torchrun logs one where the other agent left the exit barrier first
    alone = [sys.executable, "-m", "ernie2", "pretrain", str(folder / "recipe.yaml")]
    subprocess.run(alone, env=ranks.environment(), check=True, capture_output=True, timeout=LIMIT)
    one, two = ([line for line in Records(folder / run).read() if line["kind"] == "step"] for run in ("one", "two"))
    assert [line["step"] for line in two] == [line["step"] for line in one]
    assert [line["count"] for line in two] == [line["count"] for line in one]  # the same batches
    for mine, theirs in zip(one, two, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
    assert (folder / "two" / "hf" / "model.safetensors").exists()
