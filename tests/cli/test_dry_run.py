"""`ernie2 pretrain RECIPE --dry-run`: messages, exit codes, and no files."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import tiny_run
from ernie2 import cli


def dry_run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["pretrain", *arguments, "--dry-run"])
    return int(stopped.value.code or 0)


def test_with_shards_it_tells_schedule_epochs_memory_and_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ernie2.runs.plan.MEASURING_SECONDS", 0.2)
    tiny_run.write_shards(tmp_path / "shards")
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(tiny_run.recipe(tmp_path).model_dump(mode="json")), encoding="utf-8")
    assert dry_run(str(file)) == 0
    shown = capsys.readouterr().out
    for part in ("Stage 4", "Total: ", "Epochs", "parameters", "Time on cpu", "held-out evaluations"):
        assert part in shown
    assert not (tmp_path / "run").exists()


def test_absent_data_exit_with_2_and_are_named_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = dry_run("english-wiki-small", f"corpora.wiki.path={tmp_path / 'w.jsonl'}", "tokenizer.train=null",
                   f"tokenizer.file={tmp_path / 'vocab.txt'}", f"shards.folder={tmp_path / 'shards'}")  # fmt: skip
    shown = capsys.readouterr()
    assert code == 2
    assert "corpora.wiki.path: no such file" in shown.err
    assert "tokenizer.file: file not found" in shown.err
    assert "Stage 4" in shown.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", [("--init-from", "/nowhere"), ("--hook", "no_such_module:Hook"), ("--grow", "x")])
def test_what_the_run_would_refuse_exits_with_2(given: tuple[str, str]) -> None:
    assert dry_run("demo-en", *given) == 2
