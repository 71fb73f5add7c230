"""One run, any group: the same batches, losses and parameters on one rank or several, replicated or sharded."""

import ctypes
import hashlib
import json
import sys
import threading

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import ranks
import tiny_run
from ernie2.errors import ConfigError
from ernie2.training import distributed
from ernie2.training.distributed import ProcessGroup
from ernie2.training.parallel import Sharded

BATCH = {"batch_tokens": 384, "pack_tokens": 128, "sequence_tokens": 64}
"""Three packs a step, which neither two nor four ranks divide."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    tiny_run.write_shards(folder)
    return folder


def job(folder, shards, name, **given):
    """A run of tiny.FOUR with dropout into `folder`/name; `stop` and `resume` as `rank_main` has them.

    Capitals are scored in data stream 1 only, so that head is used on one rank and not on others. Adam's epsilon is
    large: with 1e-6 a weight whose gradient is all but 0 takes a full step by the sign of a rounding error.
    """
    (folder / name).mkdir(exist_ok=True)
    train = {"adam_eps": 1e-4} | given.pop("train", {})
    changes = {"batch": BATCH, "stages": {"steps": 5, "token_only_share": 0.0}, "train": train}
    only = {"capitalization_prediction": 1}
    return {"folder": folder / name, "shards": shards, "changes": changes, "only": only, **given}


def parameters(folder, name):
    """Everything in the newest checkpoint of a run."""
    newest = sorted((folder / name / "run" / "checkpoints").glob("step_*"))[-1]
    return load_file(newest / "model.safetensors") | load_file(newest / "optimizer.safetensors")


def same(folder, one, other, noted, others):
    """Whether two runs saw the same batches, and computed the same but for the order of summation."""
    assert [step["packs"] for step in noted["steps"]] == [step["packs"] for step in others["steps"]]
    assert [step["idle"] for step in noted["steps"]] == [step["idle"] for step in others["steps"]]
    assert noted["position"] == others["position"]
    for a, b in zip(noted["steps"], others["steps"], strict=True):
        assert a["losses"] == pytest.approx(b["losses"], rel=1e-5)
        assert a["norm"] == pytest.approx(b["norm"], rel=1e-5)
    mine, theirs = parameters(folder, one), parameters(folder, other)
    assert mine.keys() == theirs.keys()
    for name, values in mine.items():
        assert np.linalg.norm(values - theirs[name]) <= 1e-5 * np.linalg.norm(values), name


@pytest.fixture(scope="module")
def alone(tmp_path_factory, shards):
    """A folder with a run of one process, and what was noted of it."""
    folder = tmp_path_factory.mktemp("ranks")
    (noted,) = ranks.run_jobs(folder, 1, [job(folder, shards, "alone")])
    return folder, noted


SHARED = {"ddp": {}, "fsdp": {"parallel": "fsdp"}, "workers": {"workers": 3}, "worker": {"workers": 1}}


def test_runs_of_two_ranks_replicated_or_sharded_with_any_workers_are_that_of_one(alone, shards):
    folder, noted = alone
    jobs = [job(folder, shards, name, train=train) for name, train in SHARED.items()]
    for name, others in zip(SHARED, ranks.run_jobs(folder, 2, jobs), strict=True):
        same(folder, "alone", name, noted, others)
        told, mine = ((folder / run / "run" / "metrics.jsonl").read_text().split("\n") for run in ("alone", name))
        assert len(told) == len(mine)  # one rank writes
    idle = [len(step["idle"]) for step in noted["steps"]]
    assert min(idle) < max(idle)  # else nothing was shown of heads that rest
    last = [json.loads(line) for line in mine if '"heldout"' in line][-1]["tasks"]
    expected = [json.loads(line) for line in told if '"heldout"' in line][-1]["tasks"]
    for task, figures in expected.items():
        assert {key: last[task][key] for key in ("instances", "scored", "accuracy")} == {
            key: figures[key] for key in ("instances", "scored", "accuracy")
        }
        assert last[task]["loss"] == pytest.approx(figures["loss"], rel=1e-5)


def test_sharded_sgd_is_that_of_one(tmp_path, shards):
    sgd = {"optimizer": "sgd", "peak_lr": 0.1}
    (noted,) = ranks.run_jobs(tmp_path, 1, [job(tmp_path, shards, "alone", train=sgd)])
    (others,) = ranks.run_jobs(tmp_path, 2, [job(tmp_path, shards, "fsdp", train={**sgd, "parallel": "fsdp"})])
    same(tmp_path, "alone", "fsdp", noted, others)


def test_a_run_of_16_bits_is_the_same_sharded_and_replicated_and_that_of_one_but_for_rounding(tmp_path, shards):
    """A pack gives the same 16-bit products wherever it is computed, and the sum of two gradients has one order.

    Without clipping, whose norm is summed share by share, sharded ranks compute what replicas do. One process adds
    packs in another order, so some parameters are rounded to other 16 bits.
    """
    own = {"precision": "bf16", "max_grad_norm": 1e6}
    (noted,) = ranks.run_jobs(tmp_path, 1, [job(tmp_path, shards, "alone", train=own)])
    jobs = [job(tmp_path, shards, name, train={**own, "parallel": name}) for name in ("ddp", "fsdp")]
    replicated, sharded = ranks.run_jobs(tmp_path, 2, jobs)
    same(tmp_path, "ddp", "fsdp", replicated, sharded)
    for a, b in zip(sharded["steps"], noted["steps"], strict=True):
        assert a["losses"] == pytest.approx(b["losses"], rel=1e-4)
        assert a["norm"] == pytest.approx(b["norm"], rel=1e-3)


@pytest.mark.slow
def test_runs_of_four_ranks_one_of_them_without_a_pack_are_that_of_one(alone, shards):
    folder, noted = alone
    jobs = [job(folder, shards, f"four-{name}", train=train) for name, train in SHARED.items()]
    for name, others in zip(SHARED, ranks.run_jobs(folder, 4, jobs), strict=True):
        same(folder, "alone", f"four-{name}", noted, others)


@pytest.mark.slow
def test_compiled_runs_of_two_ranks_are_that_of_one(tmp_path, shards):
    (noted,) = ranks.run_jobs(tmp_path, 1, [job(tmp_path, shards, "alone", train={"compile": True})])
    shared = {"ddp": {"compile": True}, "fsdp": {"compile": True, "parallel": "fsdp"}}
    jobs = [job(tmp_path, shards, name, train=train) for name, train in shared.items()]
    for name, others in zip(shared, ranks.run_jobs(tmp_path, 2, jobs), strict=True):
        same(tmp_path, "alone", name, noted, others)


def test_a_run_resumes_with_two_sharded_ranks_then_with_one(alone, shards):
    folder, noted = alone
    first = ranks.run_jobs(folder, 1, [job(folder, shards, "moved", stop=6)])
    sharded = {"parallel": "fsdp"}
    second = ranks.run_jobs(folder, 2, [job(folder, shards, "moved", train=sharded, stop=12, resume=True)])
    third = ranks.run_jobs(folder, 1, [job(folder, shards, "moved", resume=True)])
    steps = [step for (part,) in (first, second, third) for step in part["steps"]]
    same(folder, "alone", "moved", noted, {"steps": steps, "position": third[0]["position"]})


def test_data_streams_are_dealt_in_turn_and_ranks_without_one_still_take_part():
    groups_of_four = [ProcessGroup(rank=rank, size=4, device=torch.device("cpu")) for rank in range(4)]
    assert [group.own_streams(6) for group in groups_of_four] == [[0, 4], [1, 5], [2], [3]]
    assert {group.max_per_rank(6) for group in groups_of_four} == {2}
    assert [group.own_streams(3) for group in groups_of_four] == [[0], [1], [2], []]


def test_a_world_of_one_passes_errors_on_and_shares_with_nobody():
    group = ProcessGroup(device=torch.device("cpu"))
    assert group.all_gather(3) == [3]
    assert group.run_on_first(lambda: 4) == 4
    assert group.any(True)
    with pytest.raises(ConfigError), group.shared_errors():
        raise ConfigError("wrong")


def test_layers_of_a_recurrent_encoder_are_not_sharded():
    from ernie2.model.multitask import MultiTaskModel

    recipe = tiny_run.recipe(ranks.TESTS, encoder={"kind": "lstm"})
    model = MultiTaskModel(recipe.encoder, 100, [], seed=0)
    with pytest.raises(ConfigError, match="use ddp"):
        Sharded(model, ProcessGroup(size=2, device=torch.device("cpu")))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems do not show what a thread does")
def test_a_rank_does_not_end_before_the_threads_of_gloo_rest():
    """One that still dropped its tensors while Python shut down ended the process with SIGABRT."""
    named, done = threading.Event(), []

    def collective():
        ctypes.CDLL(None).prctl(15, b"pt_gloo_runloop")  # PR_SET_NAME
        named.set()
        done.append(hashlib.sha256(bytes(200_000_000)))  # busy without the interpreter's lock, as gloo is

    thread = threading.Thread(target=collective)
    thread.start()
    named.wait()
    distributed._wait_for_gloo_threads(seconds=60)
    assert done
    thread.join()
