"""docs/finetuning.md against the code: every setting is in its table, and its commands run on a tiny checkpoint."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest

import tiny_finetuning as tiny
from ernie2 import cli
from ernie2.config.finetuning_settings import FineTuningSettings

PAGE = (Path(__file__).parents[2] / "docs" / "finetuning.md").read_text(encoding="utf-8")
QUICK = "--seeds 1 epochs=1 batch_size=4 precision=fp32 max_length=32"


def test_every_setting_is_explained() -> None:
    documented = set(re.findall(r"`([a-z_]+)`", PAGE))
    assert set(FineTuningSettings.model_fields) <= documented


def test_the_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.write_checkpoint(tmp_path / "my-run")
    Path("glue_data/MRPC").mkdir(parents=True)
    rows = [f"{n % 2}\t1\t2\tw{n}\tw{n + 1}" for n in range(6)]
    for name in ("train", "dev"):
        Path(f"glue_data/MRPC/{name}.tsv").write_text("\n".join(["Quality\ta\tb\t#1 String\t#2 String", *rows]) + "\n")
    for name in ("a", "b"):
        Path(f"{name}.tsv").write_text("question\tanswer\tfits\nw1\tw2\tyes\nw3\tw4\tno\n")
    Path("pairs.tsv").write_text("#1 String\t#2 String\nw1\tw2\n")
    commands = re.findall(r"^    ernie2 ([^#\n]*)", PAGE, re.MULTILINE)
    assert len(commands) == 6
    onnx = all(find_spec(name) is not None for name in ("onnx", "onnxscript", "onnxruntime"))
    for command in commands:
        if "--dataset glue" in command or "--dataset chinese" in command or (command.startswith("export") and not onnx):
            continue  # whole groups are run in tests/cli
        with pytest.raises(SystemExit) as stopped:
            cli.main(shlex.split(command + (QUICK if command.startswith("finetune") else "")))
        assert not stopped.value.code, command
