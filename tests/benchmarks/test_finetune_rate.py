"""The rates of fine-tuning count real sequences on both sides; what cannot run is said first."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

import finetune_against_hf
import finetune_rate


def test_the_short_batch_at_the_end_of_an_epoch_counts_what_it_holds() -> None:
    assert finetune_rate.sequences_of(10, batch=4, steps=2) == 8
    assert finetune_rate.sequences_of(10, batch=4, steps=3) == 10
    assert finetune_rate.sequences_of(10, batch=4, steps=7) == 24  # 4 + 4 + 2, 4 + 4 + 2, 4


def test_the_rate_of_the_trainer_is_that_of_real_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")

    class Trainer:
        def add_callback(self, callback: Any) -> None:
            self.clock = callback

        def remove_callback(self, _: Any) -> None: ...

        def train(self) -> None:
            for _ in range(3):
                self.clock.on_step_begin()
                self.clock.on_step_end()

    made = SimpleNamespace(train=SimpleNamespace(sequences=range(10)), settings=SimpleNamespace(batch_size=4))
    now = iter([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    monkeypatch.setattr(finetune_rate, "_side", {"made": made, "folder": None})
    monkeypatch.setattr(finetune_rate, "trainer_for", lambda *_, **__: Trainer())
    monkeypatch.setattr(finetune_rate, "time", SimpleNamespace(perf_counter=lambda: next(now)))
    assert finetune_rate.theirs(seed=0, steps=3) == 2.0  # 4 + 4 + 2 sequences in 5 s


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sets", "mrpc", "bogus"], "--sets bogus: synthetic texts exist for mrpc, cola"),
        (["--size", "6"], "--size: invalid size value: '6'"),
        (["--size", "6x0"], "--size: invalid size value"),
        (["--steps", "0"], "--steps: invalid count value"),
        (["--json", "/dev/null/x.json"], "/dev/null"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["finetune_rate.py", *options])
    with pytest.raises(SystemExit, match="2"):
        finetune_rate.main()
    assert message in capsys.readouterr().err


def test_what_is_not_installed_is_said_before_anything_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetune_against_hf, "find_spec", lambda name: None if name == "accelerate" else name)
    monkeypatch.setattr(finetune_rate, "made_up_model", lambda *_: pytest.fail("prepared"))
    monkeypatch.setattr(sys, "argv", ["finetune_rate.py"])
    with pytest.raises(SystemExit, match="pip install accelerate"):
        finetune_rate.main()


def test_a_width_that_64_does_not_divide_makes_a_model(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(finetune_rate, "VOCABULARY", 16)
    monkeypatch.setattr(finetune_rate, "save_hf", lambda folder, model, config: made.append(config))
    finetune_rate.made_up_model(tmp_path / "model", 1, 200)  # type: ignore[operator]
    assert made[0]["num_attention_heads"] == 1
