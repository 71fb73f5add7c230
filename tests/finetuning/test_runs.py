"""Runs: finished runs are reused, interrupted ones restart, other ones are refused, collapsed ones are named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_finetuning as tiny
from ernie2.datasets.examples import Example, Split
from ernie2.errors import ConfigError, DataError, RunStopped
from ernie2.finetuning import jobs, runs, training
from ernie2.finetuning.finetuned_model import load_finetuned
from ernie2.finetuning.inference.predictions import ExamplePrediction
from ernie2.finetuning.jobs import Job
from ernie2.finetuning.runs import constant_prediction, evaluated_splits, run_seeds
from ernie2.training.hooks.base import Hook, OpenRun, StepDone
from ernie2.training.state import Position


def job(folder: Path, head: Any = "classification", **changes: Any) -> Job:
    return Job(tiny.pretrained(folder / "checkpoint"), tiny.data(head), tiny.settings(**changes), 0, folder / "made-up")


def test_a_run_writes_its_metrics_by_epoch_and_a_model_that_loads(tmp_path: Path) -> None:
    (done,) = run_seeds(job(tmp_path), [0])
    saved = json.loads((tmp_path / "made-up/seed-0/result.json").read_text())
    assert [one["epoch"] for one in saved["epochs"]] == [1, 2]
    assert saved["metrics"] == {"dev": saved["epochs"][-1]["metrics"]["dev"]} == done.metrics
    assert len(saved["losses"]) == 4
    assert load_finetuned(tmp_path / "made-up/seed-0/model").config.labels == ("bad", "good")


def test_a_finished_run_is_loaded_and_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run_seeds(job(tmp_path), [0, 1])
    monkeypatch.setattr(runs, "train_model", lambda *_, **__: pytest.fail("trained again"))
    assert run_seeds(job(tmp_path), [0, 1]) == first


def test_a_result_without_its_model_is_trained_again_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (first,) = run_seeds(job(tmp_path), [0])
    weights = tmp_path / "made-up/seed-0/model/model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    (again,) = run_seeds(job(tmp_path), [0])
    assert (
        "seed-0 has a result, but its model is missing or incomplete. Training seed 0 again" in capsys.readouterr().err
    )
    assert weights.read_bytes() == content
    assert again.losses == first.losses


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"[" * 100_000, b"\xff"])
def test_a_damaged_result_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    run_seeds(job(tmp_path), [0])
    (tmp_path / "made-up/seed-0/result.json").write_bytes(content)
    with pytest.raises(DataError, match=r"result\.json is damaged: .*Remove .*seed-0 to run it again") as refused:
        run_seeds(job(tmp_path), [0])
    assert "\n" not in str(refused.value)


def test_changed_weights_of_a_fine_tuned_model_give_a_warning_with_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_seeds(job(tmp_path), [0])
    model = tmp_path / "made-up/seed-0/model"
    content = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(content[:-2000] + bytes(2000))
    load_finetuned(model)
    assert f"warning: model.safetensors in {model} changed after ernie2 wrote it" in capsys.readouterr().err


def test_an_interrupted_run_restarts_and_gives_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (expected,) = run_seeds(job(tmp_path / "uninterrupted"), [0])

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "write_checked_json", interrupted)  # the model is there, the result is not
        with pytest.raises(KeyboardInterrupt):
            run_seeds(job(tmp_path), [0])
    assert not (tmp_path / "made-up/seed-0/result.json").exists()
    (again,) = run_seeds(job(tmp_path), [0])
    assert (again.losses, again.metrics) == (expected.losses, expected.metrics)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": tiny.settings(batch_size=2)}, r"batch_size=4 \(now 2\)"),
        ({"data": tiny.data("classification", 10)}, "other data"),
    ],
)
def test_a_finished_run_with_other_settings_or_data_is_refused_and_not_overwritten(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    run_seeds(job(tmp_path), [0])
    with pytest.raises(ConfigError, match=message):
        run_seeds(replace(job(tmp_path), **change), [0])


def test_a_hook_sees_every_step_and_epoch_of_each_seed_and_changes_no_result(tmp_path: Path) -> None:
    seen: list[Any] = []

    class Sees(Hook):
        def open(self, run: OpenRun) -> None:
            assert run.folder.is_dir()
            seen.append(run.folder.name)

        def before_step(self, step: int) -> None:
            seen.append(("before", step))

        def on_step(self, done: StepDone, at: Position) -> None:
            seen.append((done.step, at.step, at.seen))

        def on_line(self, line: Any) -> None:
            seen.append((line["kind"], line["epoch"]))

        def close(self) -> None:
            seen.append("closed")

    plain = run_seeds(job(tmp_path / "plain"), [0])
    watched = run_seeds(replace(job(tmp_path / "watched"), hooks=(Sees,)), [0])
    assert [one.losses for one in watched] == [one.losses for one in plain]
    steps = [one for one in seen if isinstance(one, tuple) and len(one) == 3]
    assert [step for step, at, _ in steps if step == at] == [1, 2, 3, 4]
    assert seen[:2] == ["seed-0", ("before", 1)]
    assert [one for one in seen if isinstance(one, tuple) and one[0] == "epoch"] == [("epoch", 1), ("epoch", 2)]
    assert seen[-1] == "closed"
    assert run_seeds(job(tmp_path / "watched"), [0]) == watched  # hooks are not part of the identity


def test_a_run_stopped_by_a_hook_has_no_result_and_is_repeated(tmp_path: Path) -> None:
    class Stops(Hook):
        steps = 0

        def on_step(self, done: StepDone, at: Position) -> None:
            self.steps = done.step

        def stop_reason(self) -> str | None:
            return "two steps are enough" if self.steps == 2 else None

    with pytest.raises(RunStopped, match=r"enough: stopped at step 2 of 4\. .* not saved; the same command"):
        run_seeds(replace(job(tmp_path), hooks=(Stops,)), [0])
    assert not (tmp_path / "made-up/seed-0/result.json").exists()
    (done,) = run_seeds(job(tmp_path), [0])
    assert len(done.losses) == 4


def test_another_tag_scheme_is_another_run(tmp_path: Path) -> None:
    tagging = replace(job(tmp_path), data=tiny.data("tagging"))
    run_seeds(tagging, [0])
    with pytest.raises(ConfigError, match=r"a finished run of another tag scheme \(IOB2\)"):
        run_seeds(replace(tagging, data=replace(tagging.data, scheme="IOB1")), [0])


def test_another_checkpoint_is_another_run(tmp_path: Path) -> None:
    run_seeds(job(tmp_path), [0])
    other = replace(job(tmp_path), pretrained=tiny.pretrained(tmp_path / "other", seed=2))
    with pytest.raises(ConfigError, match="another checkpoint"):
        run_seeds(other, [0])


@pytest.mark.slow
def test_parallel_runs_give_the_same_metrics(tmp_path: Path) -> None:
    alone = run_seeds(job(tmp_path / "a"), [0, 1])
    together = run_seeds(job(tmp_path / "b"), [0, 1], parallel=2)
    assert [one.losses for one in alone] == [one.losses for one in together]
    assert [one.metrics for one in alone] == [one.metrics for one in together]


def test_a_diverged_run_has_a_reason_and_no_metrics(tmp_path: Path) -> None:
    far = tuple(replace(one, label=1e30) for one in tiny.examples("regression", 4))  # its square overflows float32
    data = tiny.data("regression")
    diverging = replace(job(tmp_path), data=replace(data, splits={**data.splits, "train": Split(far, ("far",), "own")}))
    (done,) = run_seeds(diverging, [0])
    assert done.diverged.startswith("diverged: the loss was not finite at step ")
    assert done.metrics == {}
    assert run_seeds(diverging, [0])[0].diverged == done.diverged


def test_a_constant_prediction_is_reported_with_the_number_of_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training, "learning_rate", lambda *_: 0.0)
    test = tiny.examples("classification", 6, seed=2)
    with_test = replace(job(tmp_path), data=tiny.data("classification", test=test))
    (done,) = run_seeds(with_test, [0])
    assert done.diverged == "predicts 'bad' for everything after 4 steps"
    assert done.metrics["test"] == {"accuracy": 50.0}
    assert "made-up, seed 0, scoring test: 6 of 6 sequences (100 %)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("head", "gold", "predicted", "message"),
    [
        ("classification", ["good", "bad"], ["good", "good"], "predicts 'good' for everything"),
        ("classification", ["good", "good"], ["good", "good"], ""),
        ("regression", [1.0, 2.0], [1.5, 1.50001], "predicts 1.500 for everything"),
        ("tagging", [("O", "B-X"), ("O",)], [("O", "O"), ("O",)], "predicts O for every token"),
        ("tagging", [("O", "B-X"), ("O",)], [("O", "I-X"), ("O",)], ""),
    ],
)
def test_constant_predictions_are_described(head: Any, gold: Any, predicted: Any, message: str) -> None:
    some = [Example(str(i), "w1", label=label) for i, label in enumerate(gold)]
    assert constant_prediction(tiny.data(head), some, [ExamplePrediction(value) for value in predicted]) == message


def test_only_labelled_test_splits_are_scored(tmp_path: Path) -> None:
    labelled = tiny.examples("classification", 4)
    unlabelled = [replace(one, label=None) for one in labelled]
    assert evaluated_splits(tiny.data("classification", test=labelled)) == ("dev", "test")
    assert evaluated_splits(tiny.data("classification", test=unlabelled)) == ("dev",)


@pytest.mark.parametrize("head", ["tagging", "span"])
def test_fifty_examples_are_memorised(head: Any, tmp_path: Path) -> None:
    same = tiny.data(head, 50).splits["train"]
    memorising = Job(
        tiny.pretrained(tmp_path / "checkpoint", layers=2, hidden=64),
        replace(tiny.data(head), splits={"train": same, "dev": same}),
        tiny.settings(epochs=40, batch_size=10, peak_lr=2e-3, warmup_ratio=0.1),
        0,
        tmp_path / "made-up",
    )
    (done,) = run_seeds(memorising, [0])
    assert all(value >= 95 for value in done.metrics["dev"].values()), done.metrics


def test_the_cpu_is_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert runs.available_devices() == [torch.device("cpu")]
