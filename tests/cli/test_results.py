"""`ernie2 convert` and `ernie2 evaluate` from the command line: output, messages and errors."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

import paddle_files
from ernie2 import cli
from ernie2.cli.results import show_figures

Outcome = tuple[int, str, str]


class Runs:
    """Makes a file when it is unpickled the usual way."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.mark}",)


@pytest.fixture
def convert(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs `ernie2 convert` in this process: (exit code, what it printed, what it complained of)."""

    def run(*arguments: str | Path) -> Outcome:
        with pytest.raises(SystemExit) as stopped:
            cli.main(["convert", *(str(argument) for argument in arguments)])
        shown = capsys.readouterr()
        return int(stopped.value.code or 0), shown.out, shown.err

    return run


def test_help_has_an_example_and_says_what_is_read_and_left(convert: Callable[..., Outcome]) -> None:
    code, shown, _ = convert("--help")
    assert code == 0
    assert "Example  ernie2 convert" in shown
    assert "Reads" in shown
    assert "Writes" in shown


def test_every_tensor_and_the_next_step_are_shown(tmp_path: Path, convert: Callable[..., Outcome]) -> None:
    code, shown, complaint = convert(paddle_files.FOLDER / "fluid", tmp_path / "hf", "--segment-types", "6")
    assert (code, complaint) == (0, "")
    assert "(Paddle fluid)" in shown
    assert "encoder_layer_{0-1}_multi_head_att_query_fc.w_0" in shown
    assert "left out: nothing" in shown
    assert "newly initialised (1): encoder.embeddings.segment.weight[4:]" in shown
    assert f"--init-from {tmp_path / 'hf'}" in shown
    assert f'from_pretrained("{tmp_path / "hf"}")' in shown


def test_our_own_folder_is_written_where_asked(tmp_path: Path, convert: Callable[..., Outcome]) -> None:
    code, shown, _ = convert(paddle_files.FOLDER / "fluid", tmp_path / "own", "--to", "ernie2")
    assert code == 0
    made = sorted(path.name for path in (tmp_path / "own").iterdir())
    assert made == ["README.md", "ernie2.json", "ernie2.safetensors", "ernie2_checksums.json"]
    assert "from_pretrained" not in shown


@pytest.mark.parametrize("file", ["model_state.pdparams", "pytorch_model.bin", "model.safetensors"])
def test_a_file_that_would_run_code_is_refused_without_a_traceback(
    file: str, tmp_path: Path, convert: Callable[..., Outcome]
) -> None:
    source = paddle_files.copied("paddlenlp-task", tmp_path)
    (source / "model_state.pdparams").unlink()
    (source / file).write_bytes(pickle.dumps({"w": Runs(tmp_path / "mark")}))
    code, _, complaint = convert(source, tmp_path / "hf")
    assert code == 2
    assert "Traceback" not in complaint
    assert file in complaint
    if not file.endswith("safetensors"):  # that is not a file of safetensors at all
        assert f"{os.system.__module__}.system" in complaint
    assert not (tmp_path / "mark").exists()
    assert not (tmp_path / "hf").exists()


def test_a_source_that_is_no_checkpoint_is_refused(tmp_path: Path, convert: Callable[..., Outcome]) -> None:
    (tmp_path / "photos").mkdir()
    for source, message in (("photos", "is not a checkpoint"), ("absent", "does not exist")):
        code, _, complaint = convert(tmp_path / source, tmp_path / "hf")
        assert code == 2
        assert message in complaint


def test_evaluate_says_of_each_task_what_its_baselines_reach_and_whether_it_is_learned(
    capsys: pytest.CaptureFixture[str],
) -> None:
    figures = {
        "instances": 128,
        "scored": 128,
        "loss": 0.693,
        "accuracy": 0.547,
        "low": 0.460,
        "high": 0.633,
        "majority_baseline": {"accuracy": 0.453},
        "constant_baseline": {"accuracy": 0.547},
        "feature_baseline": {"accuracy": 0.453, "feature": "share of tokens in common"},
    }
    show_figures({"same_author": figures})
    assert capsys.readouterr().out.splitlines() == [
        "same_author: accuracy 0.547 (0.460 to 0.633), loss 0.693 (128 instances, 128 scored positions)",
        "  baselines: majority baseline 0.453, constant baseline 0.547, feature baseline 0.453 "
        "(share of tokens in common)",
        "  not learned: the 95 % interval is not above the best baseline (constant baseline, 0.547)",
    ]
