"""The rates of fine-tuning count real sequences on both sides; what cannot run is said first."""

from __future__ import annotations

import sys

import pytest

import finetune_against_hf
import finetune_rate


def test_the_short_batch_at_the_end_of_an_epoch_counts_what_it_holds() -> None:
    assert finetune_rate.sequences_of(10, batch=4, steps=2) == 8
    assert finetune_rate.sequences_of(10, batch=4, steps=3) == 10
    assert finetune_rate.sequences_of(10, batch=4, steps=7) == 24  # 4 + 4 + 2, 4 + 4 + 2, 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sets", "mrpc", "bogus"], "--sets bogus: made-up texts are like mrpc, cola"),
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
