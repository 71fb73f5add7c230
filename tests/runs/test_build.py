import pytest

import tiny
import tiny_run
from ernie2.errors import TaskError
from ernie2.runs.build import build, build_plans, head_specs
from ernie2.shards.store import Shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return tiny_run.write_shards(tmp_path_factory.mktemp("pretraining") / "shards")


def test_the_record_of_a_run_names_everything_the_report_and_the_card_need(shards, tmp_path):
    made = build(tiny_run.recipe(tmp_path, about="A test."), shards)
    record = made.record
    assert [task.name for task in record.tasks] == list(tiny.FOUR)
    assert [task.id for task in record.tasks] == [0, 1, 2, 3]
    assert record.tasks[0].labels is None
    assert len(record.tasks[3].labels) == 33
    assert [stage.introduced for stage in record.stages] == [(name,) for name in tiny.FOUR]
    assert sum(stage.iterations.get("knowledge_masking", 0) for stage in record.stages) == 5
    assert record.data.usable["sentence_reordering"]["text"].of == 16
    assert record.parameters == sum(p.numel() for p in made.trainer.model.parameters())
    assert record.recipe["encoder"]["hidden"] == 16


@pytest.mark.parametrize(("precision", "asked"), [("bf16", [("cpu", 8)]), ("fp32", [])])
def test_flash_attention_is_chosen_before_the_trainer_is_built_where_16_bits_compute(
    shards, tmp_path, monkeypatch, precision, asked
):
    found = []
    monkeypatch.setattr(
        "ernie2.runs.build.activate_newest_flash", lambda device, width, _: found.append((device.type, width))
    )
    monkeypatch.setattr("ernie2.runs.build.Trainer", lambda *_, **__: pytest.fail(f"{found}"))
    with pytest.raises(pytest.fail.Exception) as stopped:
        build(tiny_run.recipe(tmp_path, train={"precision": precision}), shards)
    assert str(stopped.value) == f"{asked}"


@pytest.mark.parametrize(
    ("method", "stages", "combine", "steps"),
    [("continual_multitask", 4, False, 20), ("multitask", 1, False, 20), ("continual", 4, True, 20)],
)
def test_every_method_gives_every_task_its_iterations(shards, tmp_path, method, stages, combine, steps):
    recipe = tiny_run.recipe(tmp_path, stages={"steps": 5, "method": method, "combine": combine})
    plans = build_plans(recipe, [tiny.task(name) for name in tiny.FOUR])
    assert len(plans) == stages
    assert sum(map(len, plans)) == steps
    done = [plan.iterations_before(len(plan)) for plan in plans]
    assert {name: sum(d.get(name, 0) for d in done) for name in tiny.FOUR} == dict.fromkeys(tiny.FOUR, 5)


def test_heads_follow_from_level_and_labels():
    specs = {spec.name: (spec.level, spec.classes) for spec in head_specs([tiny.task(n) for n in tiny.FOUR])}
    assert specs == {
        "knowledge_masking": ("token", None),
        "capitalization_prediction": ("token", 2),
        "token_document_relation": ("token", 2),
        "sentence_reordering": ("sentence", 33),
    }


def test_a_task_that_can_use_nothing_is_refused_by_name_before_any_work(tmp_path):
    one = [tiny.document([[[5, 6, 7]]], name=f"d{i}", group=i) for i in range(12)]
    tiny_run.write_shards(tmp_path / "shards", one, heldout=2)
    with pytest.raises(TaskError, match=r"token_document_relation.*0 of 10 documents of 'text'.*Remove the task"):
        build(tiny_run.recipe(tmp_path), Shards(tmp_path / "shards"))
    assert not (tmp_path / "run").exists()
