import itertools
import json
import os
import signal

import numpy as np
import pytest
import torch

import tiny
import tiny_run
from child_processes import wait_until
from ernie2.batches.streams import Cursor
from ernie2.errors import CheckpointError, ConfigError, RunFailed, RunStopped, ShardError
from ernie2.model.multitask import MultiTaskModel
from ernie2.runs.build import build
from ernie2.shards.store import Shards
from ernie2.tasks.building import task_ids
from ernie2.training import checkpoints
from ernie2.training import step as step_module
from ernie2.training import trainer as trainer_module
from ernie2.training.state import Position
from ernie2.training.step import FiniteCheck


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it runs in the loop."""


def fresh(folder, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "shards").exists():
        tiny_run.write_shards(folder / "shards")
    return build(tiny_run.recipe(folder, **changes), Shards(folder / "shards")).trainer


def kill_after(trainer, steps):
    """Lets the trainer take `steps` steps, then dies before the next."""
    count = itertools.count(1)

    def before(_):
        if next(count) > steps:
            raise Killed

    tiny_run.around_steps(trainer, before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    trainer = fresh(folder)
    trainer.train()
    return trainer


@pytest.mark.parametrize("steps", [1, 4, 7, 13])
def test_a_run_killed_and_resumed_ends_bit_identical_to_the_uninterrupted_one(whole, tmp_path, steps):
    killed = fresh(tmp_path)
    kill_after(killed, steps)
    with pytest.raises(Killed):
        killed.train()
    resumed = fresh(tmp_path)
    resumed.restore(checkpoints.newest(tmp_path / "run"))
    position = resumed.train()
    assert position.state() | {"seconds": 0} == whole.position.state() | {"seconds": 0}
    for name, parameter in whole.model.state_dict().items():
        assert torch.equal(parameter, resumed.model.state_dict()[name]), name
    told = [_without_clocks(line) for line in resumed.records.read()]
    assert told == [_without_clocks(line) for line in whole.records.read()]


def _without_clocks(line):
    return {key: value for key, value in line.items() if key not in ("seconds", "tokens_per_second", "time")}


def test_every_task_gets_its_iterations_and_records_say_so(whole):
    assert whole.position.task_steps == dict.fromkeys(tiny.FOUR, 5)
    counted = dict.fromkeys(tiny.FOUR, 0)
    for line in whole.records.read():
        if line["kind"] == "stage" and line["event"] == "end":
            for task, count in line["iterations"].items():
                counted[task] += count
    assert counted == dict.fromkeys(tiny.FOUR, 5)


def test_tasks_enter_in_the_order_of_the_recipe(whole):
    assert [plan.stage.introduced for plan in whole.plans] == [(name,) for name in tiny.FOUR]


def test_instances_are_counted_under_the_id_they_were_trained_with(whole):
    seen = whole.position.seen
    assert set(seen) == set(tiny.FOUR)
    assert all(count > 0 for count in seen.values())


def test_the_peak_of_every_stage_is_recorded(whole):
    peaks = [line["peak_lr_reached"] for line in whole.records.read() if line.get("event") == "end"]
    assert peaks == [pytest.approx(1e-2)] * 4


def test_held_out_figures_stand_at_the_start_and_at_every_stage_end(whole):
    told = [(line["at"], line["stage"]) for line in whole.records.read() if line["kind"] == "heldout"]
    assert told == [("start", 0), *(("stage_end", stage) for stage in range(4))]


def test_a_loss_that_is_not_finite_stops_the_run_and_says_what_now(tmp_path):
    trainer = fresh(tmp_path)
    with torch.no_grad():
        trainer.model.encoder.embeddings.token.weight.fill_(float("nan"))
    with pytest.raises(RunFailed, match=r"not finite.*lower train\.peak_lr"):
        trainer.train()


def scripted(trainer, losses):
    """Evaluations inside a stage give these losses of every task, one after the other; the last one stays."""
    script = iter(losses)
    last = [0.0]

    def evaluate(*_):
        last[0] = next(script, last[0])
        figures = {"loss": last[0], "accuracy": 0.0, "feature_baseline": {"accuracy": 0.0}}
        return dict.fromkeys(tiny.FOUR, figures)

    trainer.heldout.evaluate = evaluate


def test_a_scripted_metric_ends_a_converging_stage_at_the_expected_step(tmp_path):
    changes = {
        "stages": {"steps": 30, "method": "multitask", "patience": 2, "min_gain": 0.0},
        "train": {"evaluate_every": 4},
    }
    trainer = fresh(tmp_path, **changes)
    # at the start, then after 4, 8, 12, 16 and 20 steps: the best comes at 12
    scripted(trainer, [9.0, 3.0, 2.0, 1.0, 1.5, 1.2])
    position = trainer.train()
    assert position.step == 20
    (end,) = [line for line in trainer.records.read() if line.get("event") == "end"]
    planned = trainer.plans[0].iterations_before(len(trainer.plans[0]))
    assert {name: end["iterations"][name] + end["dropped_iterations"][name] for name in tiny.FOUR} == planned
    steps = [line["step"] for line in trainer.records.read() if line["kind"] == "step"]
    assert steps[-1] == 20


def test_a_task_without_held_out_documents_does_not_keep_a_stage_from_converging(tmp_path):
    trainer = fresh(tmp_path, stages={"steps": 30, "method": "multitask", "patience": 1}, train={"evaluate_every": 4})
    del trainer.heldout._sets["sentence_reordering"]
    assert trainer.heldout.missing == ["sentence_reordering"]
    measured = [name for name in tiny.FOUR if name != "sentence_reordering"]
    figures = {"loss": 1.0, "accuracy": 0.0, "feature_baseline": {"accuracy": 0.0}}
    trainer.heldout.evaluate = lambda *_: dict.fromkeys(measured, figures)
    assert trainer.train().step == 8


def test_a_position_survives_json():
    state = {"a": Cursor(3, {"c": (1, 2)}, {"c": 40})}
    position = Position([state], stage=1, stage_step=2, step=9, tokens=100, task_steps={"a": 4}, seen={"a": 7})
    assert Position.of(json.loads(json.dumps(position.state()))).state() == position.state()


def test_task_ids_put_knowledge_masking_first_whatever_the_order():
    assert task_ids(["sentence_reordering", "knowledge_masking"], 16) == {
        "knowledge_masking": 0,
        "sentence_reordering": 1,
    }
    assert task_ids(["sentence_reordering"], 16) == {"sentence_reordering": 1}
    assert task_ids(["a", "b"], 0) == {"a": 0, "b": 0}
    with pytest.raises(ConfigError, match=r"encoder\.task_ids=2"):
        task_ids(["a", "b"], 2)


def test_a_checkpoint_of_another_encoder_is_refused(whole, tmp_path):
    other = fresh(tmp_path, encoder={"hidden": 32})
    with pytest.raises(CheckpointError, match="of another shape"):
        other.restore(checkpoints.newest(whole.run))


def test_shards_with_longer_sentences_than_the_sequence_has_room_for_are_refused(tmp_path):
    made = [tiny.document([[[5] * (60 if i == 3 else 59)]], name=f"d{i}", group=i) for i in range(8)]
    tiny_run.write_shards(tmp_path / "shards", made)
    with pytest.raises(ShardError, match=r"sentences of up to 60 tokens.*allows 59"):
        fresh(tmp_path)


def test_more_segments_than_segment_types_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="segment_types=2"):
        fresh(tmp_path, encoder={"segment_types": 2})


def test_a_stage_that_converges_at_a_checkpoint_is_saved_once_at_its_end(tmp_path, monkeypatch):
    changes = {
        "stages": {"steps": 30, "method": "multitask", "patience": 2, "min_gain": 0.0},
        "train": {"evaluate_every": 4, "checkpoint_every": 4},
    }
    trainer = fresh(tmp_path, **changes)
    scripted(trainer, [9.0, 3.0, 4.0, 5.0])
    saved, write = [], checkpoints.write
    monkeypatch.setattr(checkpoints, "write", lambda run, step, *rest: saved.append(step) or write(run, step, *rest))
    trainer.train()
    assert saved == [0, 4, 8, 12]


def test_dropout_is_seeded_anew_in_every_step(tmp_path, monkeypatch):
    keys, take = [], trainer_module.take_step
    monkeypatch.setattr(trainer_module, "take_step", lambda *a: keys.append(a[2].dropout_key) or take(*a))
    position = fresh(tmp_path).train()
    assert len(set(keys)) == len(keys) == position.step


def same_end(one, other):
    """Whether two trainers ended with the same parameters, positions and records, clocks aside."""
    assert one.position.state() | {"seconds": 0} == other.position.state() | {"seconds": 0}
    for name, parameter in one.model.state_dict().items():
        assert torch.equal(parameter, other.model.state_dict()[name]), name
    told = [[_without_clocks(line) for line in trainer.records.read()] for trainer in (one, other)]
    assert told[0] == told[1]


def killed_and_resumed(folder, steps, **changes):
    """A trainer that ran to the end from the newest checkpoint of one killed after `steps` steps."""
    killed = fresh(folder, **changes)
    kill_after(killed, steps)
    with pytest.raises(Killed):
        killed.train()
    resumed = fresh(folder, **changes)
    resumed.restore(checkpoints.newest(folder / "run"))
    resumed.train()
    return resumed


VARIANTS = (
    {"kind": "lstm"},
    {"kind": "gru", "norm": "pre", "positions": "none"},
    {"norm": "pre", "feed_forward": "gated", "positions": "rotary", "heads": 2},
)


@pytest.mark.parametrize("encoder", VARIANTS)
def test_a_variant_of_the_encoder_trains_and_resumes_bit_identically(tmp_path, encoder):
    changes = {"encoder": encoder}
    straight = fresh(tmp_path / "straight", **changes)
    straight.train()
    same_end(straight, killed_and_resumed(tmp_path / "again", 7, **changes))


def test_layers_computed_again_end_in_the_same_bits(whole, tmp_path):
    recomputing = fresh(tmp_path, train={"activation_checkpointing": True})
    assert recomputing.model.encoder.activation_checkpointing
    recomputing.train()
    same_end(whole, recomputing)


def overflow_at(trainer, steps):
    """Makes the gradients of these steps infinite, as an overflow in fp16 does."""
    bias, hooks = trainer.model.encoder.embeddings.norm.bias, []

    def before(step):
        if step in steps:
            hooks.append(bias.register_hook(lambda slope: slope * torch.inf))

    def after(_):
        while hooks:
            hooks.pop().remove()

    tiny_run.around_steps(trainer, before, after)


FP16 = {"precision": "fp16", "log_every": 1}


def test_overflowing_steps_of_fp16_are_skipped_counted_and_move_the_position_on(tmp_path):
    trainer = fresh(tmp_path, train=FP16)
    overflow_at(trainer, {2, 3})
    trainer.train()
    lines = [line for line in trainer.records.read() if line["kind"] == "step"]
    assert [line["step"] for line in lines] == list(range(1, trainer.position.step + 1))
    assert [line["skipped"] for line in lines[:4]] == [0, 1, 1, 0]
    assert [line["loss_scale"] for line in lines[:4]] == [102_400, 102_400, 81_920, 81_920]
    assert lines[1]["loss"] == {}
    assert trainer.position.task_steps == dict.fromkeys(tiny.FOUR, 5)


def test_the_loss_scale_comes_back_exactly_when_a_run_is_resumed(tmp_path):
    runs = []
    for name, kill in (("straight", None), ("again", 7)):
        folder = tmp_path / name
        trainer = fresh(folder, train=FP16)
        overflow_at(trainer, {2, 3, 5, 6, 11})
        if kill:
            kill_after(trainer, kill)
            with pytest.raises(Killed):
                trainer.train()
            trainer = fresh(folder, train=FP16)
            trainer.restore(checkpoints.newest(folder / "run"))
            assert trainer._scale is not None
            assert trainer._scale.value == pytest.approx(102_400 * 0.8**2)
            overflow_at(trainer, {2, 3, 5, 6, 11})
        trainer.train()
        runs.append(trainer)
    assert runs[0]._scale == runs[1]._scale
    same_end(*runs)


def test_a_loss_that_overflows_unscaled_stops_the_run(tmp_path):
    trainer = fresh(tmp_path, train=FP16)
    trainer._scale.value = 1.0
    overflow_at(trainer, {2})
    with pytest.raises(RunFailed, match=r"step 2: gradients overflow.*lower train\.peak_lr"):
        trainer.train()


def test_a_compiled_run_compiles_nothing_again_over_all_its_stages_and_tasks(tmp_path, monkeypatch):
    torch._dynamo.reset()
    monkeypatch.setattr(trainer_module, "should_compile", lambda wanted, device: wanted)
    compile_parts = MultiTaskModel.compile_parts
    monkeypatch.setattr(MultiTaskModel, "compile_parts", lambda model: compile_parts(model, "eager"))
    trainer = fresh(tmp_path, train={"compile": True}, stages={"steps": 6})
    stats, known, grown = torch._dynamo.utils.counters["stats"], [], []

    def before(_):
        known.append((set(trainer.position.task_steps), stats["unique_graphs"]))

    def after(_):
        tasks, graphs = known.pop()
        if stats["unique_graphs"] > graphs:
            grown.append(set(trainer.position.task_steps) - tasks)

    tiny_run.around_steps(trainer, before, after)
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        trainer.train()
    torch._dynamo.reset()
    assert trainer.position.stage == 4
    assert grown[0] == {"knowledge_masking"}
    assert all(grown)  # only where a task enters, and its head is of a form not met before


def poison_at(trainer, steps):
    """Makes the losses of these steps not a number, as a damaged activation does; parameters stay as they are."""
    norm, kept = trainer.model.encoder.embeddings.norm, []

    def moments():
        return [state["exp_avg"] for state in trainer.optimizer.state.values()]

    def before(step):
        if step in steps:
            hook = norm.register_forward_hook(lambda *given: given[2] * torch.nan)
            kept.append((hook, *([one.clone() for one in some] for some in (trainer.model.parameters(), moments()))))

    def after(_):
        while kept:
            hook, parameters, averages = kept.pop()
            hook.remove()
            assert all(map(torch.equal, parameters, trainer.model.parameters()))
            assert all(map(torch.equal, averages, moments()))

    tiny_run.around_steps(trainer, before, after)


def test_a_step_that_is_not_finite_changes_nothing_is_counted_and_its_data_is_consumed(whole, tmp_path):
    trainer = fresh(tmp_path, train={"log_every": 1})
    poison_at(trainer, {3, 4, 6})
    position = trainer.train()
    lines = [line for line in trainer.records.read() if line["kind"] == "step"]
    assert [line["skipped"] for line in lines[:7]] == [0, 0, 1, 1, 0, 1, 0]
    assert lines[2]["loss"] == {}
    assert (position.skipped, position.bad_steps) == (3, 0)
    straight = whole.position
    assert position.step == straight.step
    assert position.seen == straight.seen
    assert position.stream_states == straight.stream_states


def test_bad_steps_in_a_row_are_counted_over_a_kill(tmp_path):
    trainer = fresh(tmp_path)
    poison_at(trainer, {2, 3})  # and step 3 is saved
    kill_after(trainer, 3)
    with pytest.raises(Killed):
        trainer.train()
    resumed = fresh(tmp_path)
    resumed.restore(checkpoints.newest(tmp_path / "run"))
    assert resumed.position.bad_steps == 2
    poison_at(resumed, {4})
    with pytest.raises(RunFailed, match=r"step 4 of stage.*the last of 3 such steps"):
        resumed.train()


def test_a_verdict_asked_one_step_later_counts_and_stops_at_the_same_step(tmp_path, monkeypatch):
    """As on CUDA: what the device knows of a step is asked for only when the next one is under way."""
    asked_at_once, asked_later = (fresh(tmp_path / name, train={"log_every": 1}) for name in ("once", "later"))
    poison_at(asked_at_once, {3, 4, 6})
    asked_at_once.train()
    monkeypatch.setattr(FiniteCheck, "known", False)
    monkeypatch.setattr(step_module, "skips_on_device", lambda norm: True)
    poison_at(asked_later, {3, 4, 6})
    asked_later.train()
    same_end(asked_at_once, asked_later)
    stopping = fresh(tmp_path / "stopping")
    poison_at(stopping, {3, 4, 5})
    with pytest.raises(RunFailed, match="step 5 of stage"):
        stopping.train()
    assert stopping.position.step == 5


@pytest.mark.parametrize("signal_at", [1, 4, 7])
def test_a_signal_saves_the_step_it_came_in_and_the_resumed_run_ends_bit_identical(whole, tmp_path, signal_at):
    stopped = fresh(tmp_path)
    tiny_run.around_steps(
        stopped, after=lambda step: os.kill(os.getpid(), signal.SIGTERM) if step == signal_at else None
    )
    with pytest.raises(RunStopped, match=rf"received SIGTERM; step {signal_at} is saved.*ernie2 resume"):
        stopped.train()
    newest = checkpoints.newest(tmp_path / "run")
    assert newest.state["step"] == signal_at
    resumed = fresh(tmp_path)
    resumed.restore(newest)
    resumed.train()
    for name, parameter in whole.model.state_dict().items():
        assert torch.equal(parameter, resumed.model.state_dict()[name]), name
    steps = [line["step"] for line in resumed.records.read() if line["kind"] == "step"]
    assert steps == sorted(set(steps))
    begun = [line["stage"] for line in resumed.records.read() if line.get("event") == "begin"]
    assert begun == [0, 1, 2, 3]


def test_a_signal_during_the_last_step_of_a_stage_stops_at_its_end(tmp_path):
    stopped = fresh(tmp_path)
    last = len(stopped.plans[0])
    tiny_run.around_steps(stopped, after=lambda step: os.kill(os.getpid(), signal.SIGINT) if step == last else None)
    with pytest.raises(RunStopped, match="received SIGINT"):
        stopped.train()
    assert checkpoints.newest(tmp_path / "run").state["position"]["stage"] == 1
    resumed = fresh(tmp_path)
    resumed.restore(checkpoints.newest(tmp_path / "run"))
    resumed.train()
    begun = [line["stage"] for line in resumed.records.read() if line.get("event") == "begin"]
    assert begun == [0, 1, 2, 3]


def test_the_watchdog_reports_a_batch_that_is_never_built(tmp_path, capsys):
    trainer = fresh(tmp_path, train={"watchdog_seconds": 0.2})
    pack, told = trainer.streams.pack, ""

    def is_reported():
        nonlocal told
        told += capsys.readouterr().err
        return "the run has been building the batch of step 3 for" in told and "in wait" in told

    def wait(*given):
        if trainer.position.step == 2:
            wait_until(is_reported)
        return pack(*given)

    trainer.streams.pack = wait
    trainer.train()
    assert is_reported()


def test_shards_damaged_before_a_run_is_resumed_end_it_by_name(tmp_path):
    killed = fresh(tmp_path)
    kill_after(killed, 4)
    with pytest.raises(Killed):
        killed.train()
    resumed = fresh(tmp_path)
    resumed.restore(checkpoints.newest(tmp_path / "run"))
    file = resumed.streams.feeds["knowledge_masking"].corpora[0].shards[1].folder / "tokens.npy"
    file.write_bytes(file.read_bytes()[:-2] + b"xy")
    with pytest.raises(ShardError, match=r"tokens\.npy.*checksum"):
        resumed.train()


def test_a_batch_that_damaged_shards_make_impossible_is_laid_at_their_door(tmp_path):
    trainer = fresh(tmp_path)
    file = trainer.streams.feeds["knowledge_masking"].corpora[0].shards[0].folder / "sentences.npy"
    columns = np.load(file)
    columns[3] = 10_000
    np.save(file, columns)
    trainer.position.step = 1  # so that shards are compared beside the steps
    with pytest.raises(ShardError, match=r"sentences\.npy"):
        trainer.train()
