import multiprocessing
import os
import signal

import pytest

import tiny
import tiny_run
from ernie2.batches import loader
from ernie2.batches.loader import Loader, SharedBuffer, default_workers, hosts_of
from ernie2.batches.packing import Caps
from ernie2.batches.stages import Plan, Stage
from ernie2.batches.stream import Feed, Lane, Stream
from ernie2.errors import ConfigError, RunFailed, TaskError
from ernie2.runs.build import build


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loader")
    shards = tiny_run.write_shards(folder / "shards")
    return build(tiny_run.recipe(folder, batch={"batch_tokens": 384}), shards).trainer  # three lanes


def of_lanes(stream, lanes):
    """The stream with another number of lanes."""
    tasks = list(stream.tasks.values())
    return Stream(stream.feeds, tasks, stream.vocabulary, stream.caps, stream.ids, seed=0, lanes=lanes)


def walk(trainer, workers, numbers=None, stream=None):
    """Bytes of every pack of the run, step by step, and the lanes at its end."""
    made = []
    with Loader(stream or trainer.stream, trainer.plans, workers, numbers) as made_by:
        lanes = [Lane() for _ in made_by.numbers]
        for stage, plan in enumerate(trainer.plans):
            for step in range(len(plan)):
                packs, lanes = made_by.take(stage, step, lanes)
                made.append([(pack.flat.tobytes(), pack.layout()) for pack in packs])
    return made, lanes


@pytest.mark.parametrize("lanes", [1, 2, 3, 6])
@pytest.mark.parametrize("workers", [1, 3, 4, 5])
def test_any_number_of_workers_makes_the_same_packs_in_the_same_order(trainer, lanes, workers):
    stream = of_lanes(trainer.stream, lanes)
    assert walk(trainer, workers, stream=stream) == walk(trainer, 0, stream=stream)


@pytest.mark.parametrize("lanes", range(1, 7))
@pytest.mark.parametrize("workers", range(1, 6))
def test_every_walk_of_a_host_in_a_lane_has_one_worker_and_they_are_shared_out_evenly(trainer, lanes, workers):
    shares = Loader(of_lanes(trainer.stream, lanes), trainer.plans, workers)._shares
    hosts = hosts_of(trainer.plans)
    assert sorted(walk for share in shares for walk in share) == sorted(
        (n, host) for n in range(lanes) for host in hosts
    )
    assert len(shares) == min(workers, lanes * len(hosts))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    for host in hosts:  # and so are the packs of every step
        packs = [sum(walked == host for _, walked in share) for share in shares]
        assert max(packs) - min(packs) <= 1


@pytest.mark.parametrize(
    ("lanes", "hosts", "spare_cores", "workers"),
    [
        (6, 4, 3, 3),  # two turns a step
        (6, 4, 4, 3),  # a fourth would not make it one turn
        (6, 4, 5, 3),
        (6, 4, 15, 6),  # one turn
        (12, 4, 15, 6),  # eight at most: two turns
        (9, 4, 15, 5),
        (3, 4, 15, 3),
        (2, 4, 15, 4),  # two share a lane
        (1, 4, 15, 4),
        (1, 2, 15, 2),  # a lane has no more walks than hosts
        (1, 1, 15, 1),
        (1, 4, 2, 2),
        (6, 4, 0, 1),
        (1, 4, -1, 1),
    ],
)
def test_the_default_number_of_workers_follows_from_lanes_hosts_and_cores(lanes, hosts, spare_cores, workers):
    assert default_workers(lanes, hosts, spare_cores) == workers


def test_packs_that_were_handed_over_stay_as_they_are_while_more_are_made(trainer):
    with Loader(trainer.stream, trainer.plans, 1) as made_by:
        lanes, taken = [Lane() for _ in made_by.numbers], []
        for step in range(min(len(trainer.plans[0]), 2 * loader.AHEAD)):
            packs, lanes = made_by.take(0, step, lanes)
            taken += [(pack, pack.tokens.tobytes()) for pack in packs]
    assert all(pack.tokens.tobytes() == before for pack, before in taken)


def test_a_loader_of_some_lanes_makes_just_the_packs_of_these(trainer):
    everything, lanes = walk(trainer, 0)
    some, some_lanes = walk(trainer, 1, numbers=[0, 2])
    assert some == [[packs[0], packs[2]] for packs in everything]
    assert some_lanes == [lanes[0], lanes[2]]


def test_a_stage_that_ends_early_throws_away_what_was_made_ahead(trainer):
    def first_steps(workers):
        made = []
        with Loader(trainer.stream, trainer.plans, workers) as made_by:
            lanes = [Lane() for _ in made_by.numbers]
            for stage, step in [(0, 0), (0, 1), (1, 0), (1, 1), (3, 0)]:
                packs, lanes = made_by.take(stage, step, lanes)
                made.append([pack.tokens.tobytes() for pack in packs])
        return made

    assert first_steps(2) == first_steps(0)


def test_going_back_to_an_earlier_position_makes_the_same_packs_again(trainer):
    with Loader(trainer.stream, trainer.plans, 2) as made_by:
        start = [Lane() for _ in made_by.numbers]
        first, after = made_by.take(0, 0, start)
        made_by.take(0, 1, after)
        again, _ = made_by.take(0, 0, start)
    assert [pack.tokens.tobytes() for pack in first] == [pack.tokens.tobytes() for pack in again]


def test_a_killed_worker_is_said_and_nothing_hangs(trainer, monkeypatch):
    monkeypatch.setattr(loader, "LOOK_SECONDS", 0.05)

    def go_on(made_by, lanes):  # further than the worker may have been
        for stage, plan in enumerate(trainer.plans):
            for step in range(len(plan)):
                if (stage, step) > (0, 0):
                    _, lanes = made_by.take(stage, step, lanes)

    with Loader(trainer.stream, trainer.plans, 1) as made_by:
        _, lanes = made_by.take(0, 0, [Lane() for _ in made_by.numbers])
        os.kill(made_by._workers[0]._process.pid, signal.SIGKILL)
        with pytest.raises(RunFailed, match=r"ended by SIGKILL.*ernie2 resume"):
            go_on(made_by, lanes)


def test_what_a_task_does_wrong_in_a_worker_is_raised_where_the_run_is(tmp_path):
    same = [tiny.document([[[5, 6]], [[7, 8]], [[9, 10]], [[11, 12]]], name=f"d{i}", group=1) for i in range(8)]
    shards = tiny_run.write_shards(tmp_path / "shards", same, heldout=2)
    task = tiny.task("sentence_distance")  # wants documents of another origin, of which there are none
    feed = {task.name: Feed([shards.corpora["text"]], [1.0])}
    stream = Stream(feed, [task], tiny.VOCABULARY, Caps.of(64, 32, [task]), {task.name: 0}, seed=0)
    plan = Plan(Stage(((task.name, 3),), (task.name,)), {task.name: "sentence"})
    with Loader(stream, [plan], 1) as made_by, pytest.raises(TaskError, match="are of the group of"):
        made_by.take(0, 0, [Lane()])


def test_a_task_that_other_processes_cannot_import_is_refused_by_name(trainer, monkeypatch):
    monkeypatch.setattr(type(trainer.stream.tasks["sentence_reordering"]), "__module__", "__main__")
    with pytest.raises(ConfigError, match=r"'sentence_reordering' is defined in the script.*train\.workers=0"):
        Loader(trainer.stream, trainer.plans, 2)
    Loader(trainer.stream, trainer.plans, 0)


def write(buffer):
    buffer.rows[1] = [7, 8, 9]


def test_what_another_process_writes_is_seen_here_and_rows_begin_empty():
    buffer = SharedBuffer(2, 3)
    process = multiprocessing.get_context("forkserver").Process(target=write, args=(buffer,))
    process.start()
    process.join()
    assert buffer.rows.tolist() == [[0, 0, 0], [7, 8, 9]]
    buffer.close()
