"""Every command reports a run that is unfinished or being trained by another process."""

from __future__ import annotations

import json

import pytest

import ernie2
import tiny_run
from ernie2.cli.results import show_figures
from ernie2.errors import FolderInUse
from ernie2.runs.plan import plan
from ernie2.storage.locks import FolderLock
from ernie2.training.records import Records
from ernie2.training.run_record import read_run
from ernie2.training.trainer import Trainer

ENTERED, LATER = "knowledge_masking", "sentence_distance"


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a run of two stages that was killed in its fifth step, after the checkpoint of its third."""
    folder = tmp_path_factory.mktemp("unfinished")
    tiny_run.write_shards(folder / "shards")
    recipe = tiny_run.recipe(folder).model_dump(mode="json")
    recipe["tasks"] = {ENTERED: {}, LATER: {}}
    recipe["stages"] = {**recipe["stages"], "method": "continual"}
    step = Trainer._next_inputs

    def dying(self):
        if self.position.step == 4:
            raise Killed
        return step(self)

    with pytest.MonkeyPatch.context() as during:
        during.setattr(Trainer, "_next_inputs", dying)
        with pytest.raises(Killed):
            ernie2.pretrain(recipe)
    return folder, recipe


def labelled(folder):
    rows = [f"w{number} {name}\t{name}" for number, name in enumerate(("w7", "w8") * 8)]
    for split in ("train", "dev"):
        (folder / f"{split}.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n", encoding="utf-8")
    return {split: str(folder / f"{split}.tsv") for split in ("train", "dev")}


def note_of(run, planned):
    return (
        f"Note: {run} is not finished (stopped at step 3 of {planned}). Using its last checkpoint; "
        f"finish it with `ernie2 resume {run}`."
    )


@pytest.fixture
def note(place):
    run = place[0] / "run"
    return note_of(run, sum(stage.steps for stage in read_run(run).stages))


def test_evaluate_reports_the_step_of_a_run_and_its_untrained_tasks(place, note, capsys):
    figures = ernie2.evaluate(place[0] / "run")
    warned = capsys.readouterr().err
    assert warned.splitlines().count(note) == 1
    assert figures[LATER]["verdict"] == "not trained yet"
    assert figures[ENTERED]["verdict"] != "not trained yet"
    show_figures(figures)
    assert "  not trained yet: no step has trained this task so far\n" in capsys.readouterr().out


def test_fine_tuning_says_so_and_keeps_it_in_its_results(place, note, tmp_path, capsys):
    out = tmp_path / "out"
    ernie2.finetune(place[0] / "run", files=labelled(tmp_path), out=out, settings=["epochs=1"])
    assert capsys.readouterr().err.splitlines().count(note) == 1
    assert note in json.loads((out / "results.json").read_bytes())["notes"]
    assert "is not finished (stopped at step 3 of " in (out / "results.md").read_text(encoding="utf-8")


def test_converting_says_so_and_tasks_that_are_not_trained_stay_so(place, note, tmp_path, capsys):
    ernie2.convert(place[0] / "run", tmp_path / "hf")
    assert note in capsys.readouterr().err.splitlines()
    figures = ernie2.evaluate(tmp_path / "hf", place[0] / "shards")
    assert {name: found["verdict"] == "not trained yet" for name, found in figures.items()} == {
        ENTERED: False,
        LATER: True,
    }


def test_a_warm_start_from_it_is_noted(place, note, tmp_path, capsys):
    ernie2.pretrain({**place[1], "run": str(tmp_path / "next")}, init_from=place[0] / "run")
    assert note in capsys.readouterr().err.splitlines()


def test_a_finished_run_has_no_such_note(place, tmp_path, capsys):
    run = ernie2.pretrain({**place[1], "run": str(tmp_path / "whole")})
    ernie2.evaluate(run)
    assert "not finished" not in capsys.readouterr().err


def test_figures_at_a_stage_s_end_call_a_later_task_not_trained(place, tmp_path):
    run = ernie2.pretrain({**place[1], "run": str(tmp_path / "whole")})
    words = {
        line["at"] + str(line["stage"]): line["tasks"][LATER]["verdict"] == "not trained yet"
        for line in Records(run).read()
        if line["kind"] == "heldout"
    }
    assert words == {"start0": True, "stage_end0": True, "stage_end1": False}


def test_a_run_that_is_being_trained_is_in_use_for_every_command(place, tmp_path, capsys):
    folder, recipe = place
    run = folder / "run"
    with FolderLock(run):
        with pytest.raises(FolderInUse, match=rf"^{run} is in use by process .*run=FOLDER starts another run\.$"):
            ernie2.pretrain(recipe)
        with pytest.raises(FolderInUse, match=rf"^{run} is in use by process .* until it is finished"):
            ernie2.extend(run, "sentence_reordering", folder / "shards")
        plan(recipe, seconds=0.1)
        assert f"Note: {run} is in use by process " in (warning := capsys.readouterr().err)
        assert "ernie2 resume" not in warning
        ernie2.evaluate(run)
        assert f"Note: {run} is not finished (in use by process " in capsys.readouterr().err
