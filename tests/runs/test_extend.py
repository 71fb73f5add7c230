"""`ernie2.extend`: bitwise equal state, positions that continue, and errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import ernie2
import tiny
import tiny_run
from ernie2.errors import CheckpointError, ConfigError, ShardError, TaskError, UnknownTask
from ernie2.model.heads import HeadSpec
from ernie2.model.multitask import MultiTaskModel
from ernie2.runs.extend import check_overrides
from ernie2.storage.json_files import read_checked_json
from ernie2.training.checkpoints import Checkpoint, newest, open_checkpoint
from ernie2.training.records import Records
from ernie2.training.run_record import read_run
from ernie2.training.trainer import Trainer

TABLE = "encoder.embeddings.task.weight"
OLD = tiny.FOUR[:3]
NEW = "sentence_distance"


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it runs in the loop."""


def new_shards(folder, corpus="later", seed=8):
    """Shards of one other corpus in the same vocabulary."""
    rng = np.random.default_rng(seed)
    documents = [tiny.random_document(rng, name=f"new{i}", group=100 + i) for i in range(16)]
    shards = tiny_run.write_shards(folder, documents, heldout=4)
    if corpus != "text":
        (folder / "text").rename(folder / corpus)
    facts = shards.facts["corpora"]["text"]
    tiny.change(folder / "shards.json", corpora={corpus: facts}, fingerprint=f"tiny-{corpus}")
    return shards.folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a finished run of three tasks, its shards, and shards of another corpus."""
    folder = tmp_path_factory.mktemp("extending")
    tiny_run.write_shards(folder / "shards")
    recipe = tiny_run.recipe(folder, stages={"steps": 8})
    ernie2.pretrain({**recipe.model_dump(mode="json"), "tasks": {name: {} for name in OLD}})
    new_shards(folder / "later")
    return folder


@pytest.fixture(scope="module")
def extended(place):
    before = {file: file.read_bytes() for file in sorted((place / "run").rglob("*")) if file.is_file()}
    run = ernie2.extend(place / "run", NEW, place / "later", ["stages.steps=6"])
    after = {file: file.read_bytes() for file in sorted((place / "run").rglob("*")) if file.is_file()}
    assert before == after, "the finished run was touched"
    return run


def first(run) -> Checkpoint:
    """The checkpoint before the first step of an extension."""
    step = read_run(run).extended_from.step
    return open_checkpoint(run / "checkpoints" / f"step_{step:08d}")


@pytest.fixture
def begun(place, tmp_path, monkeypatch):
    """Begins an extension and stops it before its first step: `begun("run=FOLDER", …, run=…)` → its run folder."""

    def begin(*overrides, run=None, replay=None):
        def killed(*_):
            raise Killed

        with monkeypatch.context() as during:
            during.setattr(Trainer, "_next_inputs", killed)
            given = [f"run={tmp_path / 'new'}", *overrides]
            with pytest.raises(Killed):
                ernie2.extend(run or place / "run", NEW, place / "later", given, replay)
        return tmp_path / "new"

    return begin


# ---- what stays


def test_before_the_first_step_every_old_parameter_is_bit_equal_to_the_finished_run_s(place, begun):
    old, new = newest(place / "run").parameters(), first(begun()).parameters()
    assert set(new) - set(old) == {f"heads.{NEW}.linear.weight", f"heads.{NEW}.linear.bias"}
    for name, values in old.items():
        if name == TABLE:
            assert torch.equal(new[name][[0, 1, 2, *range(4, 16)]], values[[0, 1, 2, *range(4, 16)]])
            assert torch.equal(new[name][3], values[0]), "the new task's row copies row 0"
            assert not torch.equal(values[3], values[0])
        else:
            assert torch.equal(new[name], values), name


def test_the_new_head_follows_from_seed_and_name_alone(place, begun):
    run = begun()
    record = read_run(run)
    recipe = tiny_run.recipe(place)
    lone = MultiTaskModel(recipe.encoder, record.data.vocab_size, [HeadSpec(NEW, "sentence", 3)], record.seed)
    assert torch.equal(first(run).parameters()[f"heads.{NEW}.linear.weight"], lone.heads[NEW].linear.weight)


def test_adam_keeps_its_moments_and_new_parameters_have_none(place, begun):
    old, new = newest(place / "run").optimizer_state(), first(begun()).optimizer_state()
    for name, values in old.items():
        assert torch.equal(new[name], values), name
    assert float(old[f"step/{TABLE}"]) > 0
    fresh = {name for name in new if name not in old}
    assert {name.split("/")[0] for name in fresh} == {"step", "exp_avg", "exp_avg_sq"}
    assert all((new[name] == 0).all() for name in fresh)


def test_old_tasks_begin_with_the_figures_the_finished_run_ended_with(place, extended):
    last = [line for line in Records(place / "run").read() if line["kind"] == "heldout"][-1]["tasks"]
    starts = [line for line in Records(extended).read() if line["kind"] == "heldout" and line["at"] == "start"]
    assert [line["stage"] for line in starts] == [0, 3]
    start = starts[1]
    assert {name: start["tasks"][name] for name in OLD} == last
    assert NEW in start["tasks"]


def test_task_ids_are_never_renumbered_and_the_new_task_takes_the_next(place, extended):
    old, new = ({task.name: task.id for task in read_run(run).tasks} for run in (place / "run", extended))
    assert new == {**old, NEW: 3}


# ---- what goes on


def test_stages_steps_and_records_go_on(place, extended):
    source, record, lines = read_run(place / "run"), read_run(extended), Records(extended).read()
    assert record.stages[:3] == source.stages
    # u of 8 iterations after three stages
    assert record.stages[3].iterations == {**dict.fromkeys(OLD, 2), NEW: 6}
    assert record.stages[3].introduced == (NEW,)
    assert lines[: len(Records(place / "run").read())] == Records(place / "run").read()
    begins = [line for line in lines if line["kind"] == "stage" and line["event"] == "begin"]
    assert [line["stage"] for line in begins] == [0, 1, 2, 3]
    done = sum(stage.steps for stage in source.stages)
    assert begins[3]["step"] == done == record.extended_from.step
    steps = [line["step"] for line in lines if line["kind"] == "step"]
    assert steps == sorted(set(steps))
    assert steps[-1] == done + record.stages[3].steps
    tokens = [line["tokens"] for line in lines if line["kind"] == "step"]
    assert tokens == sorted(set(tokens))
    assert record.extended_from.run == str((place / "run").resolve())


def test_reading_of_the_old_corpora_continues_at_its_position(place, begun):
    old, new = (checkpoint.state["position"] for checkpoint in (newest(place / "run"), first(begun())))
    assert new["streams"] == old["streams"]
    assert new["seen"] == old["seen"]
    assert (new["step"], new["stage"], new["stage_step"]) == (old["step"], 3, 0)


@pytest.mark.parametrize("restart", ["per_stage", "per_task", "never"])
def test_the_schedule_starts_over_wherever_it_usually_does(place, tmp_path, restart):
    overrides = [f"run={tmp_path / restart}", "stages.steps=6", f"train.restart={restart}", "train.warmup=4"]
    run = ernie2.extend(place / "run", NEW, place / "later", [*overrides, "train.log_every=1"])
    begin = read_run(run).extended_from.step
    rates = [line["lr"] for line in Records(run).read() if line["kind"] == "step" and line["step"] > begin]
    # a quarter of the peak of 0.01 in the first step
    assert rates[0] == pytest.approx(0.0025)
    if restart != "per_task":
        assert rates[:4] == pytest.approx([0.0025, 0.005, 0.0075, 0.01])


def test_old_tasks_read_what_they_read_and_the_new_one_what_came_with_it(extended):
    tasks = read_run(extended).recipe["tasks"]
    assert {name: options["corpora"] for name, options in tasks.items()} == {
        **{name: ["text"] for name in OLD},
        NEW: ["later"],
    }


def test_replay_0_trains_the_new_task_alone(begun):
    assert read_run(begun("stages.steps=6", replay=0)).stages[3].iterations == {NEW: 6}


def test_the_new_task_gets_as_many_iterations_as_the_last_one_by_default(begun):
    assert read_run(begun()).stages[3].iterations == {**dict.fromkeys(OLD, 2), NEW: 8}


def test_a_run_can_read_the_old_shards_for_its_new_task(place, tmp_path):
    run = ernie2.extend(place / "run", NEW, place / "shards", [f"run={tmp_path / 'same'}", "stages.steps=2"])
    record = read_run(run)
    assert record.data.shards == (str((place / "shards").resolve()),)
    assert record.recipe["tasks"][NEW]["corpora"] == ["text"]


def test_the_new_task_takes_options(begun):
    options = read_run(begun(f"tasks.{NEW}.loss_weight=0.5")).recipe["tasks"][NEW]
    assert options["loss_weight"] == 0.5


# ---- the task embedding


def test_a_table_added_to_a_model_without_one_is_zero_and_changes_no_output(place, tmp_path, begun):
    recipe = tiny_run.recipe(place, run=str(tmp_path / "bare"), stages={"steps": 4}, encoder={"task_ids": 0})
    bare = ernie2.pretrain({**recipe.model_dump(mode="json"), "tasks": {name: {} for name in OLD}})
    assert TABLE not in newest(bare).parameters()
    run = begun("encoder.task_ids=16", run=bare)
    table = first(run).parameters()[TABLE]
    assert table.shape == (16, 16)
    assert (table == 0).all()
    last = [line for line in Records(bare).read() if line["kind"] == "heldout"][-1]["tasks"]
    start = [line for line in Records(run).read() if line["kind"] == "heldout"][-1]["tasks"]
    assert {name: start[name] for name in OLD} == last


def test_a_table_grows_by_copies_of_row_0(place, begun):
    old, new = newest(place / "run").parameters()[TABLE], first(begun("encoder.task_ids=18")).parameters()[TABLE]
    assert torch.equal(new[16:], old[[0, 0]])


# ---- resuming, evaluating, extending again


def test_an_extension_killed_and_resumed_ends_as_if_it_had_not_been(place, extended, tmp_path, monkeypatch):
    taken, step = [], Trainer._next_inputs

    def dying(self):
        if len(taken) == 5:
            raise Killed
        taken.append(1)
        return step(self)

    with monkeypatch.context() as during:
        during.setattr(Trainer, "_next_inputs", dying)
        with pytest.raises(Killed):
            ernie2.extend(place / "run", NEW, place / "later", ["stages.steps=6", f"run={tmp_path / 'killed'}"])
    assert read_run(tmp_path / "killed").status == "stopped"
    resumed = ernie2.resume(tmp_path / "killed")
    for file in ("hf/model.safetensors", "hf/task_heads.safetensors"):
        assert (resumed / file).read_bytes() == (extended / file).read_bytes()
    clocks = ("seconds", "tokens_per_second", "time")
    ours, theirs = (
        [{key: value for key, value in line.items() if key not in clocks} for line in Records(run).read()]
        for run in (resumed, extended)
    )
    assert ours == theirs
    record, whole = read_run(resumed), read_run(extended)
    for key in ("stages", "extended_from", "tasks", "data"):
        assert getattr(record, key) == getattr(whole, key)


def test_an_extension_stopped_before_its_first_checkpoint_starts_again_with_the_same_command(place, tmp_path):
    run = tmp_path / "again"
    run.mkdir()
    Records(run).write("heldout", at="start")
    tiny_run.write_run_json(run, status="stopped")
    ernie2.extend(place / "run", NEW, place / "later", [f"run={run}", "stages.steps=2"])
    assert Records(run).read()[0] == Records(place / "run").read()[0]


def test_evaluating_an_extended_run_gives_the_figures_it_ended_with(extended):
    last = [line for line in Records(extended).read() if line["kind"] == "heldout"][-1]["tasks"]
    assert ernie2.evaluate(extended) == last


def test_an_extended_run_can_be_extended(place, extended, tmp_path):
    new_shards(tmp_path / "third", "third", seed=9)
    again = ernie2.extend(extended, "sentence_reordering", tmp_path / "third", [f"run={tmp_path / 'again'}"])
    record = read_run(again)
    assert [stage.introduced for stage in record.stages[3:]] == [(NEW,), ("sentence_reordering",)]
    # u of the old tasks (8 + 2 after four stages) and of the one before (6)
    assert record.stages[4].iterations == {**dict.fromkeys(OLD, 2), NEW: 1, "sentence_reordering": 6}
    assert list(record.data.corpora) == ["text", "later", "third"]
    assert len(record.data.shards) == 3
    assert {task.name: task.id for task in record.tasks}["sentence_reordering"] == 4
    report = (again / "report.html").read_text(encoding="utf-8")
    assert "after 5" in report


# ---- what is refused


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("batch.batch_tokens=512", "batch.batch_tokens: .*counted in packs"),
        ("encoder.hidden=32", "only encoder.task_ids can grow"),
        ("encoder.task_ids=8", "set it to that number or more"),
        ("seed=3", "the order in which the earlier tasks"),
        ("tasks.knowledge_masking.mask_share=0.2", "options of earlier tasks are fixed"),
        ("corpora.text.weight=2", "tasks.sentence_distance.corpora"),
        ("stages.method=multitask", "--replay"),
        ("stages.steps=many", "must be one number"),
        ("tasks.sentence_distance.corpora=[nowhere]", "nowhere"),
        ("trian.peak_lr=1", "Did you mean 'train'"),
    ],
)
def test_what_a_finished_run_cannot_take_is_refused_with_the_reason(place, override, message):
    with pytest.raises(ConfigError, match=message):
        ernie2.extend(place / "run", NEW, place / "later", [override])


def test_all_wrong_overrides_are_named_at_once(place):
    with pytest.raises(ConfigError, match=r"(?s)seed.*batch\.pack_tokens"):
        ernie2.extend(place / "run", NEW, place / "later", ["seed=3", "batch.pack_tokens=64"])


def test_a_task_that_was_trained_already_is_refused(place):
    with pytest.raises(ConfigError, match=r"'knowledge_masking' was trained already, in stage 1"):
        ernie2.extend(place / "run", "knowledge_masking", place / "later")


def test_a_task_there_is_none_of_is_refused(place):
    with pytest.raises(UnknownTask, match="sentence_distance"):
        ernie2.extend(place / "run", "sentence_distence", place / "later")


def test_a_run_that_is_not_finished_is_refused(begun, place, tmp_path):
    run = begun()
    with pytest.raises(
        CheckpointError, match=rf"not finished \(it is stopped\)\. Finish it with `ernie2 resume {run}`"
    ):
        ernie2.extend(run, "sentence_reordering", place / "later")


def test_a_folder_that_holds_a_run_or_is_the_finished_one_is_refused(place, extended):
    with pytest.raises(CheckpointError, match=r"run\+sentence_distance contains a finished run"):
        ernie2.extend(place / "run", NEW, place / "later")
    with pytest.raises(ConfigError, match="is the finished run, which must not change"):
        ernie2.extend(place / "run", NEW, place / "later", [f"run={place / 'run'}"])


def test_shards_of_another_tokeniser_are_refused_with_what_to_do(place, tmp_path):
    new_shards(tmp_path / "other", "other")
    for described in [tmp_path / "other" / "shards.json", *(tmp_path / "other").glob("other/*/shard.json")]:
        tiny.change(described, tokenizer="f" * 64)
    with pytest.raises(ShardError, match=r"another tokeniser.*tokenizer\.file="):
        ernie2.extend(place / "run", NEW, tmp_path / "other")


def test_a_corpus_name_that_exists_is_refused(place, tmp_path):
    new_shards(tmp_path / "clash", "text")
    with pytest.raises(ShardError, match="both have a corpus 'text'"):
        ernie2.extend(place / "run", NEW, tmp_path / "clash")


def test_a_task_without_a_corpus_in_the_new_shards_is_refused_and_leaves_no_files(place, tmp_path):
    lone = [tiny.document([[[5, 6, 7]]], name=f"d{i}", group=i) for i in range(12)]
    tiny_run.write_shards(tmp_path / "lone", lone, heldout=2)
    (tmp_path / "lone" / "text").rename(tmp_path / "lone" / "lone")
    file = tmp_path / "lone" / "shards.json"
    tiny.change(file, corpora={"lone": read_checked_json(file)["corpora"]["text"]})
    with pytest.raises(TaskError, match="nothing to read"):
        ernie2.extend(place / "run", NEW, tmp_path / "lone", [f"run={tmp_path / 'none'}"])
    assert not (tmp_path / "none").exists()


# ---- labelled pairs


def test_a_task_on_labelled_pairs_can_arrive_and_brings_its_classes(place, tmp_path):
    rng = np.random.default_rng(3)

    def pair(number):
        first, second = rng.integers(5, 200, size=(2, 6)).tolist()
        label = ("yes", "no", "perhaps")[number % 3]
        return tiny.document([[first], [second]], name=f"p{number}", group=number, label=label)

    tiny_run.write_shards(tmp_path / "pairs", pairs={"pairs": [pair(number) for number in range(40)]})
    file = tmp_path / "pairs" / "shards.json"
    tiny.change(file, corpora={"pairs": read_checked_json(file)["corpora"]["pairs"]}, fingerprint="pairs")
    run = ernie2.extend(
        place / "run", "discourse_relation", tmp_path / "pairs", [f"run={tmp_path / 'paired'}", "stages.steps=3"]
    )
    record = read_run(run)
    options = record.recipe["tasks"]["discourse_relation"]
    assert (options["corpora"], options["labels"]) == (["pairs"], ["no", "perhaps", "yes"])
    assert record.tasks[3].labels == ("no", "perhaps", "yes")
    assert record.recipe["tasks"]["knowledge_masking"]["corpora"] == ["text"]
    last = [line for line in Records(run).read() if line["kind"] == "heldout"][-1]["tasks"]
    assert ernie2.evaluate(run) == last


def test_a_former_key_of_stages_is_refused_with_its_new_name():
    with pytest.raises(ConfigError, match=r"stages\.least_gain: this key is now stages\.min_gain"):
        check_overrides("sentence_distance", ["stages.least_gain=0.1"])
