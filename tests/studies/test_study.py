"""`study`: the smallest one from text to verdicts, stopped and gone on, and analysed again from its record."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import ernie2
from ernie2.errors import CheckpointError, ConfigError, DataError, StorageError
from ernie2.studies import study as studying
from ernie2.studies.analysis.analyse import analyse
from ernie2.studies.record import RECORD_FILE
from ernie2.training.step_inputs import StepInputs
from ernie2.training.trainer import Trainer

SMALL = (
    "recipe.stages.steps=10",
    "recipe.encoder.layers=1",
    "recipe.encoder.hidden=16",
    "recipe.tokenizer.train=600",
    "recipe.train.heldout_instances=8",
    "recipe.train.evaluate_every=5",
    "recipe.train.checkpoint_every=4",
    "recipe.train.warmup=2",
    "finetuning.settings={epochs: 1, batch_size: 8, max_length: 16, max_train_examples: 16}",
    "finetuning.datasets=[sst2, mrpc]",
)
TASKS = ["knowledge_masking", "capitalization_prediction", "token_document_relation", "sentence_reordering"]


def write_glue(folder: Path) -> Path:
    """SST-2 and MRPC in their official form, of made-up sentences."""
    for name in ("SST-2", "MRPC"):
        (folder / name).mkdir(parents=True)
    for split, count in (("train", 24), ("dev", 12)):
        rows = [f"the house was {'good' if i % 2 else 'bad'} {i}\t{i % 2}" for i in range(count)]
        (folder / "SST-2" / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n", encoding="utf-8")
        rows = [f"{i % 2}\t{i}\t{i + 1}\tthe king {i}\tthe {'king' if i % 2 else 'queen'} {i}" for i in range(count)]
        head = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"
        (folder / "MRPC" / f"{split}.tsv").write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return folder


def small(folder: Path, *more: str) -> Path:
    return ernie2.study("smoke", [f"folder={folder}", *SMALL, *more])


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))


def figures(folder: Path) -> list[dict[str, Any]]:
    """What a study measured: everything but times."""
    made = record(folder)
    return [{key: value for key, value in run.items() if key != "seconds"} for run in made["runs"] + made["scratch"]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of all methods, one seed, with scores."""
    place = tmp_path_factory.mktemp("studies")
    return small(place / "whole", "seeds=1", f"finetuning.data={write_glue(place / 'glue_data')}", "finetuning.seeds=2")


def test_every_method_trained_every_task_equally_often_as_counted_while_training(whole: Path) -> None:
    made = record(whole)
    assert made["status"] == "done"
    assert {(run["method"], run["restart"], run["same_run"]) for run in made["runs"]} == {
        *((method, "per_stage", False) for method in ("continual", "multitask", "continual_multitask", "combined")),
        *(
            (method, "never", method == "multitask")
            for method in ("continual", "multitask", "continual_multitask", "combined")
        ),
    }
    for run in made["runs"]:
        assert run["iterations"] == dict.fromkeys(TASKS, 10)
        lines = [json.loads(line) for line in _metrics(whole, run).read_text(encoding="utf-8").splitlines()]
        counted = dict.fromkeys(TASKS, 0)
        for line in lines:
            if line["kind"] == "stage" and line["event"] == "end":
                for task, count in line["iterations"].items():
                    counted[task] += count
        assert counted == run["iterations"]
        assert run["heldout"][-1]["iterations"] == run["iterations"]


def test_without_combining_a_step_is_one_iteration_and_combining_saves_passes(whole: Path) -> None:
    passes = {run["method"]: run["passes"] for run in record(whole)["runs"] if run["restart"] == "per_stage"}
    assert passes["continual"] == passes["multitask"] == passes["continual_multitask"] == 40
    assert passes["combined"] < 40


def test_methods_begin_with_the_same_parameters_and_the_same_figures(whole: Path) -> None:
    made = record(whole)
    assert len({run["initial"] for run in made["runs"] + made["scratch"]}) == 1
    starts = [run["heldout"][0] for run in made["runs"]]
    assert all(start == starts[0] and start["at"] == "start" for start in starts)


def test_all_tasks_are_measured_after_every_stage(whole: Path) -> None:
    for run in record(whole)["runs"]:
        ends = [one for one in run["heldout"] if one["at"] == "stage_end"]
        assert len(ends) == len(run["stages"]) == (1 if run["method"] == "multitask" else 4)
        assert all(list(one["tasks"]) == TASKS for one in ends)


def test_every_encoder_has_the_scores_of_every_fine_tuning_seed(whole: Path) -> None:
    for run in record(whole)["runs"]:
        assert set(run["scores"]) == {"sst2", "mrpc"}
        for name, score in run["scores"].items():
            assert list(score["values"]) == ["0", "1"]
            assert (score["metric"], score["split"], score["train"], score["dev"]) == ("accuracy", "dev", 16, 12)
            results = json.loads((_tuned(whole, run) / name / "results.json").read_text(encoding="utf-8"))
            assert results["datasets"][0]["rows"][0]["values"] == score["values"]


def test_what_takes_room_is_gone_and_the_models_are_there(whole: Path) -> None:
    assert not list(whole.rglob("checkpoints"))
    assert not list(whole.glob("finetuned/**/model.safetensors"))
    assert len(list(whole.glob("runs/**/hf/model.safetensors"))) == 10


def test_the_same_record_gives_the_same_tables_to_the_digit(whole: Path, tmp_path: Path) -> None:
    again = ernie2.analyse_study(whole / RECORD_FILE, tmp_path / "again")
    for name in (RECORD_FILE, "study.md", "study.html", "forgetting.svg"):
        assert (again / name).read_bytes() == (whole / name).read_bytes()


def test_a_finished_study_is_not_done_again(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (whole / RECORD_FILE).read_bytes()
    settings = record(whole)["settings"]
    small(whole, "seeds=1", f"finetuning.data={settings['finetuning']['data']}", "finetuning.seeds=2")
    assert "10 pre-training runs, 10 of them done" in capsys.readouterr().out
    assert (whole / RECORD_FILE).read_bytes() == before


def test_other_settings_in_the_same_folder_are_refused_by_their_keys(whole: Path) -> None:
    with pytest.raises(ConfigError, match=r"peak_lr=0\.002, now 0\.5\. Choose another folder"):
        small(whole, "seeds=1", "recipe.train.peak_lr=0.5")


def test_without_its_record_a_folder_still_takes_no_runs_of_other_settings(whole: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(whole, tmp_path / "copied"))
    (copied / RECORD_FILE).unlink()
    with pytest.raises(CheckpointError, match=r"train\.peak_lr=0\.002, expected 0\.5"):
        small(copied, "seeds=1", "recipe.train.peak_lr=0.5")
    assert not (copied / RECORD_FILE).exists()


def test_a_study_cut_off_inside_a_run_goes_on_to_the_same_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = ("seeds=1", "methods=[continual, combined]", "scratch=false", "seeds_without_restart=0")
    expected = figures(small(tmp_path / "untouched", *two))
    step, taken = Trainer._next_inputs, []

    def cut_off(self: Trainer) -> StepInputs:
        taken.append(1)
        if len(taken) == 28:  # the 28th step is never taken
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(Trainer, "_next_inputs", cut_off)
    with pytest.raises(KeyboardInterrupt):
        small(tmp_path / "stopped", *two)
    with pytest.raises(ConfigError, match=r"other settings: recipe\.train\.peak_lr=0\.002, now 0\.5"):
        small(tmp_path / "stopped", *two, "recipe.train.peak_lr=0.5")  # though no run of it is done yet
    small(tmp_path / "stopped", *two)
    assert figures(tmp_path / "stopped") == expected
    assert len(taken) < 27 + len(expected) * 40 - 20  # it went on from a checkpoint


def test_a_study_stopped_while_fine_tuning_trains_no_run_again_nor_when_more_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "study"
    one = ("seeds=1", "methods=[multitask]", "scratch=false", "seeds_without_restart=0", "finetuning.datasets=[sst2]")
    data = f"finetuning.data={write_glue(tmp_path / 'glue_data')}"
    with monkeypatch.context() as stopping:
        stopping.setattr(studying, "finetune", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            small(folder, *one, data)
    assert (record(folder)["status"], record(folder)["runs"]) == ("running", [])
    monkeypatch.setattr(studying, "pretrain", lambda *_: pytest.fail("trained again"))
    small(folder, *one, data)
    assert not list(folder.rglob("checkpoints"))
    (first,) = record(folder)["runs"]
    assert list(first["scores"]["sst2"]["values"]) == ["0", "1"]
    small(folder, *one, data, "finetuning.seeds=3")
    (more,) = record(folder)["runs"]
    assert list(more["scores"]["sst2"]["values"]) == ["0", "1", "2"]
    assert first["scores"]["sst2"]["values"].items() < more["scores"]["sst2"]["values"].items()
    moved = folder.rename(tmp_path / "moved")
    small(moved, *one, data, "finetuning.seeds=3", "seeds_without_restart=1")
    assert [run["restart"] for run in record(moved)["runs"]] == ["per_stage", "never"]
    capsys.readouterr()
    monkeypatch.setattr(studying, "_run_all", lambda *_: (_ for _ in ()))
    small(moved, *one[2:], "seeds=1", "methods=[continual]")
    assert "2 finished runs have seeds or methods outside the current settings" in capsys.readouterr().err
    assert (record(moved)["status"], record(moved)["runs"]) == ("running", [])


@pytest.mark.slow
def test_runs_side_by_side_give_the_figures_of_one_after_the_other_with_a_seed_added_later(tmp_path: Path) -> None:
    one = ("methods=[multitask]", "scratch=false", "seeds_without_restart=0")
    small(tmp_path / "in-turn", "seeds=1", *one)
    small(tmp_path / "in-turn", "seeds=2", *one)
    ernie2.study("smoke", [f"folder={tmp_path / 'beside'}", *SMALL, "seeds=2", *one], parallel=2)
    assert figures(tmp_path / "beside") == figures(tmp_path / "in-turn")
    assert "Pre-training" in (tmp_path / "beside/logs/per_stage-seed-1-multitask.log").read_text(encoding="utf-8")
    assert analyse(record(tmp_path / "beside")).methods[0].seeds == (0, 1)


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["finetuning.data=nowhere"], DataError, "nowhere"),
        (["finetuning.datasets=[squad]"], DataError, "no dataset is called 'squad'"),
        (["finetuning.datasets=[msra_ner]"], ConfigError, "msra_ner is a tagging task"),
        (["finetuning.settings={bach: 8}"], ConfigError, "bach: there is no such key"),
        (["finetuning.settings={betas: [0.9, x]}"], ConfigError, r"betas: must be a number \(got 'x'\)"),
        (
            ["recipe.corpora.books.path=gone.txt"],
            DataError,
            r"(?s)recipe\.corpora\.books\.path: .*gone\.txt.*\(recipe\.corpora\.books\.path=FILE\)\.$",
        ),
    ],
)
def test_what_is_wrong_is_told_before_any_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], error: type[Exception], message: str
) -> None:
    monkeypatch.setattr("ernie2.studies.study.pretrain", lambda *_: pytest.fail("trained"))
    with pytest.raises(error, match=message):
        small(tmp_path / "study", *overrides)
    assert not (tmp_path / "study").exists()


def test_a_file_that_is_no_study_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"kind": "finetuning"}', encoding="utf-8")
    (tmp_path / "part.json").write_text('{"kind": "study", "study": "table7", "format": 2}', encoding="utf-8")
    (tmp_path / "empty.json").touch()
    for file, message in (
        (tmp_path / "x.json", "not a Table 7 study record"),
        (tmp_path / "part.json", r"damaged at 'status': Field required \(7 errors\)"),
        (tmp_path / "empty.json", r"empty\.json is damaged"),
        (tmp_path / "y.json", r"no such file: .*y\.json"),
    ):
        with pytest.raises(DataError, match=message):
            ernie2.analyse_study(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_named(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"file/again/study\.json cannot be written: Not a directory"):
        ernie2.analyse_study(whole, tmp_path / "file" / "again")


def _interrupted(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def _metrics(folder: Path, run: dict[str, Any]) -> Path:
    restart = "per_stage" if run["same_run"] else run["restart"]
    return folder / "runs" / restart / f"seed-{run['seed']}" / run["method"] / "metrics.jsonl"


def _tuned(folder: Path, run: dict[str, Any]) -> Path:
    restart = "per_stage" if run["same_run"] else run["restart"]
    return folder / "finetuned" / restart / f"seed-{run['seed']}" / run["method"]
