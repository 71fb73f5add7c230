"""docs/checkpoints.md works: its commands run in order on a tiny Paddle model."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import paddle_files
from ernie2 import cli
from ernie2.model.formats.loading import load_model

PAGE = Path(__file__).parents[2] / "docs" / "checkpoints.md"


def test_the_commands_of_the_page_lead_from_paddle_to_every_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = PAGE.read_text(encoding="utf-8")
    paddle_files.copied("dygraph", tmp_path).rename(tmp_path / "paddle-model")
    tokens = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", *map(str, range(200)), "[UNK]"]
    vocabulary = "".join(f"{token}\t{i}\n" for i, token in enumerate(tokens))
    (tmp_path / "paddle-model/vocab.txt").write_text(vocabulary)
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^    ernie2 (convert [^#\n]*)", text, re.MULTILINE)
    assert len(commands) == 4
    for command in commands:
        with pytest.raises(SystemExit) as stopped:
            cli.main(shlex.split(command.replace("17964", str(len(tokens)))))
        assert not stopped.value.code, command
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    capsys.readouterr()
    exec(block, {})
    assert capsys.readouterr().out.startswith("Paddle dygraph 1e-05\n() () (")
    assert load_model("smaller-hf").model.vocab_size == len(tokens)
    assert load_model("grown-hf").model.settings.task_ids == 16
