"""What a run takes is told from real steps of it, and leaves nothing behind."""

import pytest

import tiny_run
from ernie2.runs.build import build
from ernie2.training import measuring
from ernie2.training.measuring import (
    Measurements,
    StepCost,
    TaskSet,
    count_evaluations_and_checkpoints,
    forecast,
    measure,
    task_sets,
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return tiny_run.write_shards(tmp_path_factory.mktemp("measuring") / "shards")


def trainer_of(shards, folder, **changes):
    return build(tiny_run.recipe(folder, **changes), shards).trainer


def measured(trainer, folder, seconds=0.0):
    return measure(trainer, seconds=seconds, run_folder=folder / "not" / "there" / "run")


def test_every_task_set_of_the_plan_is_counted_with_its_steps(shards, tmp_path):
    trainer = trainer_of(shards, tmp_path)
    counts = task_sets(trainer.plans)
    assert sum(counts.values()) == sum(map(len, trainer.plans))
    assert list(counts.values()) == sorted(counts.values(), reverse=True)
    alone = [s for s in counts if s.active == ("knowledge_masking",)]
    assert alone == [TaskSet("knowledge_masking", ("knowledge_masking",))]
    assert all(s.main_task in s.active for s in counts)


def test_each_task_set_is_measured_by_its_own_steps_and_no_file_remains(shards, tmp_path):
    trainer = trainer_of(shards, tmp_path)
    made = measured(trainer, tmp_path, seconds=30.0 / 1000)
    assert set(made.sets) == set(task_sets(trainer.plans))
    done = [cost for cost in made.sets.values() if cost.steps]
    assert done
    assert all(cost.training > 0 and 0 < cost.tokens <= 256 * cost.steps for cost in done)
    assert made.evaluation > 0
    assert made.checkpoint > 0
    assert made.checkpoint_bytes > 12 * sum(p.numel() for p in trainer.model.parameters())
    assert list(tmp_path.iterdir()) == []


def test_with_no_time_at_all_one_step_of_the_commonest_set_is_measured(shards, tmp_path):
    trainer = trainer_of(shards, tmp_path)
    made = measured(trainer, tmp_path)
    first, *others = task_sets(trainer.plans)
    assert made.sets[first].steps == 1
    assert all(made.sets[other].steps == 0 for other in others)


def test_the_forecast_weighs_each_set_by_its_steps_and_adds_evaluations_and_checkpoints(shards, tmp_path):
    trainer = trainer_of(shards, tmp_path, train={"evaluate_every": 0, "checkpoint_every": 1000})
    counts = task_sets(trainer.plans)
    (first, steps), *_ = counts.items()
    # the first set takes 2 s a step (half a second of it packing), every other 1 s
    sets = {s: StepCost(2, 1.0, 3.0, 200) if s == first else StepCost(4, 0.0, 4.0, 40) for s in counts}
    cost = forecast(trainer, Measurements(sets, evaluation=10.0, checkpoint=100.0, checkpoint_bytes=7))
    total = sum(counts.values())
    assert cost.steps == pytest.approx(2 * steps + (total - steps))
    assert cost.tokens == 100 * steps + 10 * (total - steps)
    assert (cost.evaluations, cost.checkpoints) == (50.0, 500.0)  # before the first step, and at four ends of stages
    assert (cost.measured_sets, cost.sets) == (len(counts), len(counts))


def test_packs_of_loader_workers_cost_nothing_while_training_is_slower(shards, tmp_path):
    trainer = trainer_of(shards, tmp_path)
    sets = dict.fromkeys(task_sets(trainer.plans), StepCost(1, 3.0, 2.0, 10))
    total = sum(map(len, trainer.plans))
    with_workers = [forecast(trainer, Measurements(sets, 0, 0, None, workers=w)).steps for w in (0, 1, 3)]
    assert with_workers == pytest.approx([5 * total, 3 * total, 2 * total])


def test_a_set_that_was_not_measured_takes_what_the_others_take_on_average(shards, tmp_path):
    trainer = trainer_of(shards, tmp_path)
    first, *others = task_sets(trainer.plans)
    sets = {first: StepCost(2, 0.0, 6.0, 20), **{other: StepCost() for other in others}}
    cost = forecast(trainer, Measurements(sets, 0, 0, None))
    assert cost.steps == pytest.approx(3 * sum(map(len, trainer.plans)))
    assert cost.measured_sets == 1


@pytest.mark.parametrize("every", [0, 3, 4, 7])
def test_evaluations_and_checkpoints_are_as_many_as_the_run_then_makes(shards, tmp_path, monkeypatch, every):
    trainer = trainer_of(shards, tmp_path, train={"evaluate_every": every, "checkpoint_every": every or 50})
    told = count_evaluations_and_checkpoints(trainer)
    saved, evaluated = [], []
    monkeypatch.setattr(measuring.checkpoints, "write", lambda run, step, *rest: saved.append(step))
    evaluate = trainer.heldout.evaluate
    monkeypatch.setattr(trainer.heldout, "evaluate", lambda *a: evaluated.append(1) or evaluate(*a))
    trainer.train()
    assert (len(evaluated), len(saved)) == told
