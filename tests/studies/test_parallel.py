"""Runs in processes of their own: what becomes of them when one fails, and which GPUs they take."""

from __future__ import annotations

from pathlib import Path

import pytest

import study_workers
from ernie2.errors import DataError, RunFailed
from ernie2.studies.methods import PlannedRun
from ernie2.studies.parallel import log_path, run_parallel, visible_gpus

TWO = [PlannedRun(seed, "per_stage", "multitask") for seed in (0, 1)]


@pytest.mark.slow
def test_each_run_is_yielded_when_it_is_done_and_has_a_log_of_its_own(tmp_path: Path) -> None:
    assert set(run_parallel(TWO, study_workers.tell, 2, tmp_path)) == set(TWO)
    for run in TWO:
        assert log_path(run, tmp_path).read_text(encoding="utf-8") == f"this is {run.name}\n"


@pytest.mark.slow
def test_a_process_that_is_killed_names_the_runs_there_were(tmp_path: Path) -> None:
    with pytest.raises(
        RunFailed, match=r"killed by the system.*It ran per_stage/seed-\d/multitask; .*smaller --parallel"
    ):
        list(run_parallel(TWO, study_workers.die, 2, tmp_path))


@pytest.mark.slow
def test_a_run_that_fails_is_named_with_its_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="nothing to read"):
        list(run_parallel(TWO[:1], study_workers.fail, 2, tmp_path))
    raised = f"per_stage/seed-0/multitask failed; its output is in {tmp_path}/per_stage-seed-0-multitask.log"
    assert raised in capsys.readouterr().err


@pytest.mark.parametrize(
    ("allowed", "count", "places"),
    [(None, 3, ["0", "1", "2"]), ("5,2", 2, ["5", "2"]), ("GPU-ab, GPU-cd", 1, ["GPU-ab"]), (None, 0, []), ("", 0, [])],
)
def test_runs_keep_to_the_gpus_they_may_use(
    monkeypatch: pytest.MonkeyPatch, allowed: str | None, count: int, places: list[str]
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if allowed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", allowed)
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    assert visible_gpus() == places
