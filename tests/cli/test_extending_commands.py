"""Commands on extended runs: extend, evaluate without --data, report --compare."""

from __future__ import annotations

import pytest

import ernie2
import tiny
import tiny_run
from ernie2 import cli
from ernie2.training.run_record import read_run


@pytest.fixture
def ernie(capsys):
    """Runs the command line in this process: (exit code, what it printed, what it complained of)."""

    def run(*arguments):
        with pytest.raises(SystemExit) as stopped:
            cli.main([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        return int(stopped.value.code or 0), shown.out, shown.err

    return run


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A finished run of two tasks."""
    folder = tmp_path_factory.mktemp("commands")
    tiny_run.write_shards(folder / "shards")
    recipe = tiny_run.recipe(folder, stages={"steps": 4}).model_dump(mode="json")
    ernie2.pretrain({**recipe, "tasks": {name: {} for name in tiny.FOUR[:2]}})
    return folder


def test_extend_then_evaluate_then_a_report_beside_another_run(ernie, place):
    run, shards = place / "run", place / "shards"
    given = (run, "--task", "sentence_distance", "--data", shards)
    code, shown, _ = ernie("extend", *given, "stages.steps=3")
    assert code == 0
    extended = place / "run+sentence_distance"
    assert f"open {extended / 'report.html'} in a browser" in shown
    code, shown, _ = ernie("extend", *given, "stages.steps=3", "--replay", 0, f"run={place / 'alone'}")
    assert code == 0
    assert read_run(place / "alone").stages[2].iterations == {"sentence_distance": 3}
    code, shown, _ = ernie("evaluate", extended)
    assert code == 0
    assert all(name in shown for name in (*tiny.FOUR[:2], "sentence_distance"))
    code, shown, _ = ernie("report", extended, "--compare", place / "alone")
    assert code == 0
    page = (extended / "report.html").read_text(encoding="utf-8")
    assert "Comparison with other runs" in page
    assert "new task only" in page
    assert f"ernie2 extend {run.resolve()} --task sentence_distance" in page


@pytest.mark.parametrize(
    ("task", "more", "message"),
    [
        ("sentence_distence", (), "Did you mean 'sentence_distance'?"),
        ("knowledge_masking", (), "was trained already"),
        ("sentence_distance", ("seed=1",), "the order in which the earlier tasks"),
    ],
)
def test_what_is_wrong_ends_with_code_2_and_a_useful_word(ernie, place, task, more, message):
    code, _, complained = ernie("extend", place / "run", "--task", task, "--data", place / "shards", *more)
    assert code == 2
    assert message in complained
    assert "Traceback" not in complained


def test_a_hugging_face_folder_cannot_be_evaluated_without_data(ernie, place):
    code, _, complained = ernie("evaluate", place / "run" / "hf")
    assert code == 2
    assert "--data" in complained


def test_the_help_of_extend_says_what_it_reads_and_leaves(ernie):
    code, shown, _ = ernie("extend", "--help")
    assert code == 0
    assert all(word in shown for word in ("Reads", "Writes", "Example  ernie2 extend", "--replay"))
