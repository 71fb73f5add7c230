import multiprocessing
import os
import signal

import pytest

import tiny
import tiny_run
from ernie2.batches import loader
from ernie2.batches.loader import Loader, SharedBuffer, default_workers, main_tasks_of
from ernie2.batches.packing import Caps
from ernie2.batches.stages import Stage, StagePlan
from ernie2.batches.streams import DataStreams, Feed, StreamState
from ernie2.errors import ConfigError, RunFailed, TaskError
from ernie2.runs.build import build


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loader")
    shards = tiny_run.write_shards(folder / "shards")
    return build(tiny_run.recipe(folder, batch={"batch_tokens": 384}), shards).trainer  # three data streams


def with_count(streams, count):
    """Another number of data streams over the same data."""
    tasks = list(streams.tasks.values())
    return DataStreams(streams.feeds, tasks, streams.vocabulary, streams.caps, streams.ids, seed=0, count=count)


def walk(trainer, workers, numbers=None, streams=None):
    """Return the bytes of every pack of the run, step by step, and the states at its end."""
    made = []
    with Loader(streams or trainer.streams, trainer.plans, workers, numbers) as batch_loader:
        states = [StreamState() for _ in batch_loader.numbers]
        for stage, plan in enumerate(trainer.plans):
            for step in range(len(plan)):
                packs, states = batch_loader.load(stage, step, states)
                made.append([(pack.flat.tobytes(), pack.layout()) for pack in packs])
    return made, states


@pytest.mark.parametrize("count", [1, 2, 3, 6])
@pytest.mark.parametrize("workers", [1, 3, 4, 5])
def test_any_number_of_workers_builds_the_same_packs_in_the_same_order(trainer, count, workers):
    streams = with_count(trainer.streams, count)
    assert walk(trainer, workers, streams=streams) == walk(trainer, 0, streams=streams)


@pytest.mark.parametrize("count", range(1, 7))
@pytest.mark.parametrize("workers", range(1, 6))
def test_every_main_task_of_a_data_stream_has_one_worker_and_they_are_shared_out_evenly(trainer, count, workers):
    shares = Loader(with_count(trainer.streams, count), trainer.plans, workers)._shares
    tasks = main_tasks_of(trainer.plans)
    assert sorted(pair for share in shares for pair in share) == sorted(
        (number, task) for number in range(count) for task in tasks
    )
    assert len(shares) == min(workers, count * len(tasks))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    for task in tasks:  # and so are the packs of every step
        packs = [sum(of == task for _, of in share) for share in shares]
        assert max(packs) - min(packs) <= 1


@pytest.mark.parametrize(
    ("streams", "main_tasks", "spare_cores", "workers"),
    [
        (6, 4, 3, 3),  # two rounds a step
        (6, 4, 4, 3),  # a fourth would not make it one round
        (6, 4, 5, 3),
        (6, 4, 15, 6),  # one round
        (12, 4, 15, 6),  # eight at most: two rounds
        (9, 4, 15, 5),
        (3, 4, 15, 3),
        (2, 4, 15, 4),  # two share a data stream
        (1, 4, 15, 4),
        (1, 2, 15, 2),  # a data stream has no more pairs than main tasks
        (1, 1, 15, 1),
        (1, 4, 2, 2),
        (6, 4, 0, 1),
        (1, 4, -1, 1),
    ],
)
def test_the_default_workers_follow_from_streams_main_tasks_and_cores(streams, main_tasks, spare_cores, workers):
    assert default_workers(streams, main_tasks, spare_cores) == workers


def test_loaded_packs_do_not_change_while_more_are_built(trainer):
    with Loader(trainer.streams, trainer.plans, 1) as batch_loader:
        states, loaded = [StreamState() for _ in batch_loader.numbers], []
        for step in range(min(len(trainer.plans[0]), 2 * loader.PREFETCH_STEPS)):
            packs, states = batch_loader.load(0, step, states)
            loaded += [(pack, pack.tokens.tobytes()) for pack in packs]
    assert all(pack.tokens.tobytes() == before for pack, before in loaded)


def test_a_loader_of_some_data_streams_builds_only_their_packs(trainer):
    everything, states = walk(trainer, 0)
    some, some_states = walk(trainer, 1, numbers=[0, 2])
    assert some == [[packs[0], packs[2]] for packs in everything]
    assert some_states == [states[0], states[2]]


def test_a_stage_that_ends_early_discards_prefetched_packs(trainer):
    def first_steps(workers):
        made = []
        with Loader(trainer.streams, trainer.plans, workers) as batch_loader:
            states = [StreamState() for _ in batch_loader.numbers]
            for stage, step in [(0, 0), (0, 1), (1, 0), (1, 1), (3, 0)]:
                packs, states = batch_loader.load(stage, step, states)
                made.append([pack.tokens.tobytes() for pack in packs])
        return made

    assert first_steps(2) == first_steps(0)


def test_going_back_to_an_earlier_position_builds_the_same_packs_again(trainer):
    with Loader(trainer.streams, trainer.plans, 2) as batch_loader:
        start = [StreamState() for _ in batch_loader.numbers]
        first, after = batch_loader.load(0, 0, start)
        batch_loader.load(0, 1, after)
        again, _ = batch_loader.load(0, 0, start)
    assert [pack.tokens.tobytes() for pack in first] == [pack.tokens.tobytes() for pack in again]


def test_a_killed_worker_is_reported_and_nothing_hangs(trainer, monkeypatch):
    monkeypatch.setattr(loader, "POLL_SECONDS", 0.05)

    def load_on(batch_loader, states):  # beyond the prefetched steps
        for stage, plan in enumerate(trainer.plans):
            for step in range(len(plan)):
                if (stage, step) > (0, 0):
                    _, states = batch_loader.load(stage, step, states)

    with Loader(trainer.streams, trainer.plans, 1) as batch_loader:
        _, states = batch_loader.load(0, 0, [StreamState() for _ in batch_loader.numbers])
        os.kill(batch_loader._workers[0]._process.pid, signal.SIGKILL)
        with pytest.raises(RunFailed, match=r"ended by SIGKILL.*ernie2 resume"):
            load_on(batch_loader, states)


def test_the_error_of_a_task_in_a_worker_is_raised_in_the_training_process(tmp_path):
    same = [tiny.document([[[5, 6]], [[7, 8]], [[9, 10]], [[11, 12]]], name=f"d{i}", group=1) for i in range(8)]
    shards = tiny_run.write_shards(tmp_path / "shards", same, heldout=2)
    task = tiny.task("sentence_distance")  # needs documents of another group; there are none
    feed = {task.name: Feed([shards.corpora["text"]], [1.0])}
    streams = DataStreams(feed, [task], tiny.VOCABULARY, Caps.of(64, 32, [task]), {task.name: 0}, seed=0)
    plan = StagePlan(Stage(((task.name, 3),), (task.name,)), {task.name: "sentence"})
    with Loader(streams, [plan], 1) as batch_loader, pytest.raises(TaskError, match="belong to the group of"):
        batch_loader.load(0, 0, [StreamState()])


def test_a_task_that_other_processes_cannot_import_is_refused_by_name(trainer, monkeypatch):
    monkeypatch.setattr(type(trainer.streams.tasks["sentence_reordering"]), "__module__", "__main__")
    with pytest.raises(ConfigError, match=r"'sentence_reordering' is defined in the script.*train\.workers=0"):
        Loader(trainer.streams, trainer.plans, 2)
    Loader(trainer.streams, trainer.plans, 0)


def write(buffer):
    buffer.rows[1] = [7, 8, 9]


def test_writes_of_another_process_are_visible_and_rows_start_empty():
    buffer = SharedBuffer(2, 3)
    process = multiprocessing.get_context("forkserver").Process(target=write, args=(buffer,))
    process.start()
    process.join()
    assert buffer.rows.tolist() == [[0, 0, 0], [7, 8, 9]]
    buffer.close()
