"""What is read off finished runs into a study's record, and when a folder's record is of another study."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import tiny_run
from ernie2.errors import CheckpointError, ConfigError, DataError
from ernie2.runs.recipes import load_recipe
from ernie2.studies.identity import check_same_study
from ernie2.studies.methods import PlannedRun, run_recipe
from ernie2.studies.record import build_record, read_record, serialise_record
from ernie2.studies.settings import StudySettings, load_settings
from ernie2.tasks.base import find_task
from ernie2.training.environment import rules
from ernie2.training.run_record import read_run

TASKS = ("a", "b")


def settings(folder: Path, *overrides: str) -> StudySettings:
    return load_settings("smoke", [f"folder={folder}", "seeds=1", "scratch=false", *overrides])


def made(folder: Path, *overrides: str) -> dict[str, Any]:
    chosen = settings(folder, *overrides)
    return build_record(chosen, chosen.checked_recipe(), preset="smoke", status="running", parallel=3)


def write_run(study: Path, name: str, *, status: str = "done", fingerprint: str = "f") -> Path:
    """A run of two stages: 4 iterations of a, then 2 of a and 3 of b, two of which shared a step."""
    run = study / "runs" / name
    run.mkdir(parents=True)
    restart, seed, method = name.split("/")
    planned = PlannedRun(int(seed.removeprefix("seed-")), restart, method)  # type: ignore[arg-type]
    recipe = load_recipe(run_recipe(planned, settings(study))).model_dump(mode="json")
    recipe["tasks"] = {
        task: find_task(task).Options.model_validate(options).model_dump(mode="json")
        for task, options in recipe["tasks"].items()
    }
    tiny_run.write_run_json(run, **_told(recipe, status, fingerprint))
    lines = [
        _heldout(0, 0, "start", {}),
        {"kind": "stage", "event": "begin", "stage": 0, "step": 0},
        {"kind": "step", "step": 4, "seconds": 2.5, "tokens": 900},
        _heldout(4, 0, "stage_end", {"a": 4}),
        {"kind": "stage", "event": "end", "stage": 0, "step": 4, "iterations": {"a": 4}},
        {"kind": "stage", "event": "begin", "stage": 1, "step": 4},
        {"kind": "step", "step": 8, "seconds": 6.5, "tokens": 1800},
        _heldout(8, 1, "stage_end", {"a": 6, "b": 3}),
        {"kind": "stage", "event": "end", "stage": 1, "step": 8, "iterations": {"a": 2, "b": 3}},
    ]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    (run / "hf").mkdir()
    (run / "report.html").touch()
    return run


def write_scores(study: Path, name: str) -> None:
    """Seed 0 was given up, seed 2 gave one answer to all, seed 10 is well."""
    rows = [{"metric": "accuracy", "split": "dev_matched", "values": {"10": 61.5, "2": 33.0}}, {"metric": "never read"}]
    one = {"dataset": "mnli", "provenance": "subset", "examples": {"train": 9, "dev_matched": 7}, "rows": rows}
    one |= {"diverged": {"0": "no finite loss", "2": "one answer"}}
    place = study / "finetuned" / name / "mnli"
    place.mkdir(parents=True)
    results = {"checkpoint": f"elsewhere/runs/{name}/hf", "datasets": [one]}
    (place / "results.json").write_text(json.dumps(results), encoding="utf-8")


def test_a_run_is_told_as_it_was_counted_while_it_trained(tmp_path: Path) -> None:
    write_run(tmp_path, "per_stage/seed-0/continual")
    record = made(tmp_path)
    (run,) = record["runs"]
    assert (run["method"], run["restart"], run["seed"], run["same_run"]) == ("continual", "per_stage", 0, False)
    assert run["iterations"] == {"a": 6, "b": 3}
    assert (run["steps"], run["passes"], run["tokens"], run["seconds"]) == (8, 16, 1800, 6.5)  # 2 packs a step
    assert run["stages"] == [
        {"begin": 0, "end": 4, "tasks": {"a": 4}, "introduced": ["a"]},
        {"begin": 4, "end": 8, "tasks": {"a": 2, "b": 3}, "introduced": ["b"]},
    ]
    assert [(one["step"], one["at"]) for one in run["heldout"]] == [(0, "start"), (4, "stage_end"), (8, "stage_end")]
    figures = {"accuracy": 0.5, "loss": 1.5, "low": 0.4, "high": 0.6, "feature_baseline": 0.3, "majority_baseline": 0.2}
    figures |= {"constant_baseline": 0.25, "instances": 64}
    assert run["heldout"][-1]["tasks"] == {"a": figures, "b": figures}
    assert (run["scores"], record["machine"]["parallel"]) == ({}, 3)


def test_the_method_of_one_stage_is_listed_under_both_rules_for_the_seeds_without_restart(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path, f"per_stage/seed-{seed}/multitask")
    listed = [(run["restart"], run["seed"], run["same_run"]) for run in made(tmp_path, "seeds=2")["runs"]]
    assert listed == [("per_stage", 0, False), ("never", 0, True), ("per_stage", 1, False)]


def test_runs_that_are_not_done_or_not_asked_for_are_left_out(tmp_path: Path) -> None:
    write_run(tmp_path, "per_stage/seed-0/continual", status="stopped")
    write_run(tmp_path, "per_stage/seed-1/continual")
    assert made(tmp_path)["runs"] == []
    assert [run["seed"] for run in made(tmp_path, "seeds=2")["runs"]] == [1]


def test_a_score_of_every_fine_tuning_seed_with_none_for_what_was_given_up(tmp_path: Path) -> None:
    write_run(tmp_path, "per_stage/seed-0/continual")
    write_scores(tmp_path, "per_stage/seed-0/continual")
    (run,) = made(tmp_path)["runs"]
    assert run["scores"] == {
        "mnli": {
            "metric": "accuracy",
            "split": "dev_matched",
            "provenance": "subset",
            "train": 9,
            "dev": 7,
            "values": {"0": None, "2": 33.0, "10": 61.5},
            "diverged": {"0": "no finite loss", "2": "one answer"},
        }
    }
    assert list(run["scores"]["mnli"]["values"]) == ["0", "2", "10"]


def test_runs_trained_on_different_shards_make_no_record(tmp_path: Path) -> None:
    write_run(tmp_path, "per_stage/seed-0/continual")
    write_run(tmp_path, "per_stage/seed-0/multitask", fingerprint="g")
    with pytest.raises(DataError, match=r"different shards, for example .*/continual and .*/multitask: the corpora"):
        made(tmp_path)


ARM = "per_stage/seed-0/continual"


def test_a_run_of_other_settings_in_the_folder_of_a_run_is_refused_by_its_keys(tmp_path: Path) -> None:
    run = write_run(tmp_path, ARM)
    message = (
        rf"^{run} contains a run of another recipe .*: train\.peak_lr=0\.002, expected 0\.5\. Restore the right run"
    )
    with pytest.raises(CheckpointError, match=message):
        made(tmp_path, "recipe.train.peak_lr=0.5")


def test_the_folders_of_two_methods_that_changed_places_are_refused(tmp_path: Path) -> None:
    one, other = write_run(tmp_path, ARM), write_run(tmp_path, "per_stage/seed-0/combined")
    one.rename(tmp_path / "aside")
    other.rename(one)
    (tmp_path / "aside").rename(other)
    message = r"seed-0/continual contains a run of another recipe .*stages\.combine=True, expected False; stages"
    with pytest.raises(CheckpointError, match=message):
        made(tmp_path)


def test_a_copy_of_another_seed_is_refused(tmp_path: Path) -> None:
    shutil.copytree(write_run(tmp_path, ARM), tmp_path / "runs/per_stage/seed-1/continual")
    with pytest.raises(
        CheckpointError, match=r"seed-1/continual contains a run of another recipe .*: seed=0, expected 1\."
    ):
        made(tmp_path, "seeds=2")


def test_a_study_that_was_moved_still_holds_its_runs(tmp_path: Path) -> None:
    write_run(tmp_path / "study", ARM)
    moved = (tmp_path / "study").rename(tmp_path / "moved")
    assert len(made(moved, "recipe.name=other", "recipe.about=words")["runs"]) == 1


def test_a_resumed_run_records_the_precision_that_auto_became_and_is_still_the_run(tmp_path: Path) -> None:
    recipe = read_run(run := write_run(tmp_path, ARM)).recipe
    tiny_run.write_run_json(run, recipe=recipe | {"train": recipe["train"] | {"precision": "fp32"}})
    assert len(made(tmp_path)["runs"]) == 1
    with pytest.raises(CheckpointError, match=r"train\.precision=fp32, expected bf16"):
        made(tmp_path, "recipe.train.precision=bf16")


def test_scores_of_another_run_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path, ARM)
    write_scores(tmp_path, "per_stage/seed-0/combined")
    (tmp_path / "finetuned/per_stage/seed-0/combined").rename(tmp_path / "finetuned/per_stage/seed-0/continual")
    message = (
        r"continual/mnli/results\.json contains scores of another encoder, .*/combined/hf, not of runs/.*/continual/hf"
    )
    with pytest.raises(DataError, match=message):
        made(tmp_path)


def test_what_differs_from_the_study_in_the_folder_is_named_with_both_values(tmp_path: Path) -> None:
    before = made(tmp_path)
    with pytest.raises(ConfigError) as raised:
        check_same_study(before, settings(tmp_path, "recipe.train.peak_lr=0.5", "recipe.train.max_grad_norm=2.0"))
    assert "recipe.train.max_grad_norm=not set, now 2.0; recipe.train.peak_lr=0.002, now 0.5. Choose another" in str(
        raised.value
    )
    with pytest.raises(ConfigError, match=r"recipe\.encoder\.heads=2, now not set; .*; and 6 more\. Choose"):
        check_same_study(before, settings(tmp_path, "recipe.encoder={}", "forward_transfer_at=0.5", "recipe.train={}"))


@pytest.mark.parametrize(
    "override",
    [
        "seeds=4", "methods=[continual]", "scratch=true", "seeds_without_restart=0",
        "keep_checkpoints=true", "finetuning.data=elsewhere",
        "finetuning.seeds=7", "folder=moved", "recipe.about=other words",
    ],
)  # fmt: skip
def test_what_leaves_the_runs_there_as_they_are_may_change(tmp_path: Path, override: str) -> None:
    check_same_study(made(tmp_path), settings(tmp_path, override))


@pytest.mark.parametrize(
    ("there", "message"),
    [({"kind": "finetuning"}, "not a Table 7 study record"), ({"format": 1}, "format 1; this version")],
)
def test_a_folder_with_a_record_of_something_else_is_refused(
    tmp_path: Path, there: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        check_same_study(made(tmp_path) | there, settings(tmp_path))


def test_a_record_that_is_not_json_is_named(tmp_path: Path) -> None:
    for text in ('{"kind": "stu', "[" * 100_000):
        (tmp_path / "study.json").write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=r"study\.json is damaged"):
            read_record(tmp_path / "study.json")


def _told(recipe: dict[str, Any], status: str, fingerprint: str) -> dict[str, Any]:
    return {
        "status": status,
        "rules": rules(),
        "initial_parameters": "abc",
        "batch_tokens": 2 * recipe["batch"]["pack_tokens"],
        "recipe": recipe,
        "stages": [{"name": "1", "iterations": {}, "steps": 1, "introduced": [name]} for name in TASKS],
        "tasks": [
            {"name": name, "id": 0, "title": name.upper(), "level": "token", "labels": None, "about": ""}
            for name in TASKS
        ],
        "data": tiny_run.run_values()["data"] | {"fingerprint": fingerprint},
        "environment": {"os": "o", "cpu": "c", "cores": 2, "devices": []},
        "device": "cpu",
        "precision": "fp32",
        "versions": {},
        "parameters": 100,
    }


def _heldout(step: int, stage: int, at: str, iterations: dict[str, int]) -> dict[str, Any]:
    figures = {"accuracy": 0.5, "loss": 1.5, "low": 0.4, "high": 0.6, "beside": 1}
    figures |= {"feature_baseline": {"accuracy": 0.3, "feature": "r"}, "majority_baseline": {"accuracy": 0.2}}
    figures |= {"constant_baseline": {"accuracy": 0.25}, "instances": 64}
    tasks = dict.fromkeys(TASKS, figures)
    return {"kind": "heldout", "step": step, "stage": stage, "at": at, "iterations": iterations, "tasks": tasks}


def test_the_text_of_a_record_has_a_line_a_run_and_reads_back_the_same(tmp_path: Path) -> None:
    record = {"kind": "study", "methods": [], "runs": [{"method": "é", "x": [1, None]}, {"method": "b"}], "scratch": []}
    text = serialise_record(record).decode()
    (tmp_path / "study.json").write_text(text, encoding="utf-8")
    assert read_record(tmp_path / "study.json") == record
    assert text.splitlines()[:-2] == [
        "{",
        '"kind": "study",',
        '"methods": [],',
        '"runs": [',
        '{"method":"é","x":[1,null]},',
        '{"method":"b"}',
        "],",
        '"scratch": [],',
    ]


def test_a_changed_figure_in_a_record_is_noticed_and_one_without_checksum_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "study.json"
    file.write_bytes(serialise_record({"kind": "study", "runs": [{"accuracy": 0.512}]}))
    file.write_text(file.read_text().replace("0.512", "0.912"))
    with pytest.raises(DataError, match=r"study\.json is damaged: its content does not match its checksum"):
        read_record(file)
    file.write_text('{"kind": "study"}')
    assert read_record(file) == {"kind": "study"}
    assert "study.json has no checksum" in capsys.readouterr().err
