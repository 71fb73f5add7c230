"""The GPU run loses nothing: parts end by themselves, fail or are cut off, and each leaves its lines and no process.

The dry run is the whole of it at the smallest size on a CPU, and its tables.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml

import tiny
import tiny_run
from child_processes import LIMIT, is_running, wait_until
from comparisons.ablation import ablation_variants
from ernie2.model.optimizations import OPTIMIZATIONS
from gpu_parts.results import Results

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def lines_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from gpu_parts import driver

    module: ModuleType = driver
    return module


STAYS = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
open(sys.argv[1], "w").write(str(child.pid))
time.sleep(600 if sys.argv[2] == "hang" else 0)
"""


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc")
@pytest.mark.parametrize("how", [pytest.param("hang", marks=pytest.mark.slow), "return"])
def test_no_process_outlives_its_part(driver: ModuleType, tmp_path: Path, how: str) -> None:
    file = tmp_path / "pid"
    command = [sys.executable, "-c", STAYS, str(file), how]
    seconds = 300.0 if how == "return" else 30.0  # it must have started its child by then
    failed = driver.run_parts({"stays": seconds}, lambda *_: command, Results(tmp_path, "c1"), limit=600, least=0.0)
    assert failed == ([] if how == "return" else ["stays"])
    wait_until(lambda: not is_running(int(file.read_text())))


def test_a_part_that_fails_or_is_cut_off_does_not_end_the_others_and_is_named(
    driver: ModuleType, tmp_path: Path
) -> None:
    code = {
        "fails": "print('why'); raise SystemExit(3)",
        "hangs": "import time; time.sleep(60)",
        "stopped": f"raise SystemExit({driver.STOPPED})",
        "works": "pass",
    }
    spent = driver.run_parts(
        {"fails": 300.0, "hangs": 0.2, "stopped": 300.0, "works": 300.0},
        lambda name, _: [sys.executable, "-c", code[name]],
        Results(tmp_path, "c1"),
        limit=600,
    )
    late = driver.run_parts({"late": 30.0}, lambda *_: ["never"], Results(tmp_path, "c2"), limit=5.0)
    assert (spent, late) == (["fails", "hangs", "stopped"], ["late"])
    begun, *first = [line for line in lines_of(tmp_path) if line["call"] == "c1"]
    assert (begun["part"], begun["what"], begun["parts"]) == ("call", "begin", ["fails", "hangs", "stopped", "works"])
    second = [line for line in lines_of(tmp_path) if line["call"] == "c2"][1:]
    ended = {line["part"]: (line["what"], line.get("exit_code"), line.get("said")) for line in [*first, *second]}
    assert ended == {
        "fails": ("end", 3, ["why"]),
        "hangs": ("cut off", None, None),
        "stopped": ("cut off", None, None),
        "works": ("end", 0, None),
        "late": ("left out", None, None),
    }


def test_the_start_and_progress_of_a_part_are_printed(
    driver: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(driver, "EVERY", 0.2)
    code = "import time; print('step 3', flush=True); time.sleep(60)"
    command = [sys.executable, "-c", code]
    driver.run_parts({"large": 5.0}, lambda *_: command, Results(tmp_path, "c1"), limit=30.0, least=0.0)
    shown = capsys.readouterr().out.splitlines()
    assert shown[1] == f"large: at most 5 s, log in {tmp_path}/large.log"
    assert any(line.startswith("  large: ") and line.endswith(" of 5 s · step 3") for line in shown)


DRIVES = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[1]]
from gpu_parts.driver import run_parts
from gpu_parts.results import Results
parts, results = {"stays": 500.0, "next": 500.0}, Results(Path(sys.argv[3]), "c1")
run_parts(parts, lambda *_: [sys.executable, "-c", sys.argv[4], sys.argv[2], "hang"], results, 900.0)
"""


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_to_the_driver_ends_every_process_of_the_part_and_is_noted(
    tmp_path: Path, name: str, start_process: Callable[..., subprocess.Popen[bytes]]
) -> None:
    file = tmp_path / "pid"
    driving = start_process([sys.executable, "-c", DRIVES, str(BENCHMARKS), str(file), str(tmp_path), STAYS])
    wait_until(lambda: file.exists() and file.read_text())
    driving.send_signal(signal.Signals[name])
    assert driving.wait(LIMIT) == 128 + signal.Signals[name]
    wait_until(lambda: not is_running(int(file.read_text())))
    begun, ended = lines_of(tmp_path)
    assert begun["parts"] == ["stays", "next"]
    assert (ended["part"], ended["what"], ended["by"]) == ("stays", "cut off", name)


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc")
def test_a_part_whose_driver_was_killed_ends_with_all_its_processes(
    tmp_path: Path, start_process: Callable[..., subprocess.Popen[bytes]]
) -> None:
    file = tmp_path / "pid"
    watched = f"import sys; sys.path[:0] = [{str(BENCHMARKS)!r}]\nfrom gpu_parts.driver import *\nend_with_driver()\n"
    also = 'open(sys.argv[1] + "s", "w").write(str(__import__("os").getpid()))\n'
    code = watched + also + STAYS
    driving = start_process([sys.executable, "-c", DRIVES, str(BENCHMARKS), str(file), str(tmp_path), code])
    wait_until(lambda: file.exists() and file.read_text())
    driving.kill()
    for pid in (file, tmp_path / "pids"):
        wait_until(lambda pid=pid: not is_running(int(pid.read_text())))


def gpu_run(monkeypatch: pytest.MonkeyPatch, shards: Path, *options: str) -> int:
    """What `gpu_run.py` returns for a folder that looks like shards."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu_run

    shards.mkdir(exist_ok=True)
    (shards / "shards.json").touch()
    monkeypatch.setattr(sys, "argv", ["gpu_run.py", "--shards", str(shards), *options])
    code: int = gpu_run.main()
    return code


@pytest.mark.parametrize("place", ["file", "file/below", "taken", "logged", "n" * 300])
def test_a_folder_that_cannot_be_written_costs_one_plain_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "taken" / "results.jsonl").mkdir(parents=True)
    (tmp_path / "logged" / "base.log").mkdir(parents=True)
    assert gpu_run(monkeypatch, tmp_path / "shards", "--out", str(tmp_path / place)) == 2
    assert capsys.readouterr().err.startswith(f"cannot use {tmp_path / place}")


def test_shards_with_too_long_a_name_cost_one_plain_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--shards", str(tmp_path / ("n" * 300)), "--out", str(tmp_path / "out")]
    assert gpu_run(monkeypatch, tmp_path / "shards", *options) == 2
    assert "File name too long" in capsys.readouterr().err


@pytest.mark.parametrize("limit", ["nan", "inf", "0", "-5"])
def test_a_limit_is_a_number_of_seconds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], limit: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        gpu_run(monkeypatch, tmp_path / "shards", "--out", str(tmp_path / "out"), "--limit", limit)
    assert f"--limit: invalid seconds value: '{limit}'" in capsys.readouterr().err


def test_what_this_python_lacks_is_named_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: {"torch": fail, "pytest": fail}.get(name, str)(name))
    with pytest.raises(SystemExit, match="2"):
        gpu_run(monkeypatch, tmp_path / "shards", "--out", str(tmp_path / "out"))
    assert f"{sys.executable} lacks torch, pytest; install the project: pip install" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def fail(name: str) -> str:
    raise metadata.PackageNotFoundError(name)


def test_the_dry_run_uses_one_thread_by_default(
    driver: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    threads: list[str | None] = []
    monkeypatch.setattr(driver, "run_parts", lambda *_: threads.append(os.environ.get("OMP_NUM_THREADS")) or [])
    options = ["--out", str(tmp_path / "out"), "--only", "machine"]
    for given, scale in ((None, "tiny"), (None, "real"), ("2", "tiny")):
        with monkeypatch.context() as patch:
            patch.setenv("OMP_NUM_THREADS", given or "")
            if given is None:
                patch.delenv("OMP_NUM_THREADS")
            assert gpu_run(patch, tmp_path / "shards", *options, "--scale", scale) == 0
    assert threads == ["1", None, "2"]


@pytest.mark.parametrize("only", ["", "base,", "bases"])
def test_names_of_no_part_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], only: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        gpu_run(monkeypatch, tmp_path / "shards", "--out", str(tmp_path / "out"), "--only", only)
    assert f"--only: unknown part '{only.removeprefix('base,')}'; choose from machine, base" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_parts_run_in_the_given_order_and_get_the_absolute_path_of_the_recipe(
    driver: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[list[str]] = []

    def run_parts(parts: dict[str, float], command: Any, *_: Any) -> list[str]:
        asked.extend(command(name, 5.0) for name in parts)
        return []

    monkeypatch.setattr(driver, "run_parts", run_parts)
    monkeypatch.chdir(tmp_path)
    Path("mini.yaml").touch()
    options = ["--out", "out", "--only", " mini", "--only", "machine, base ", "--mini", "mini.yaml"]
    assert gpu_run(monkeypatch, tmp_path / "shards", *options) == 0
    assert [command[command.index("--part") + 1] for command in asked] == ["mini", "machine", "base"]
    assert {command[-1] for command in asked} == {str(tmp_path / "mini.yaml")}
    assert len({command[command.index("--call") + 1] for command in asked}) == 1


def test_a_part_gets_at_most_the_remaining_time(driver: ModuleType, tmp_path: Path) -> None:
    given: list[tuple[str, float]] = []

    def command(name: str, seconds: float) -> list[str]:
        given.append((name, seconds))
        return [sys.executable, "-c", "pass"]

    driver.run_parts({"short": 20.0, "long": 900.0}, command, Results(tmp_path, "c1"), limit=100.0)
    assert given[0] == ("short", 20.0)
    assert 50 < given[1][1] < 100


def test_lengths_fill_the_pack_and_stay_within_their_mix(driver: ModuleType) -> None:
    from gpu_parts.attention import MIXES, lengths_of

    for mix, (low, high) in MIXES.items():
        made = lengths_of(mix, 4096)
        assert sum(made) == 4096
        assert low <= min(made[:-1]) <= max(made) <= high
    assert lengths_of("full", 256, longest=64) == [64] * 4


@pytest.mark.slow
def test_the_dry_run_runs_every_part_and_its_tables_show_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    documents = [tiny.random_document(rng, sentences=120, name=f"doc{i}", group=i) for i in range(12)]
    tiny_run.write_shards(tmp_path / "shards", documents, heldout=3)
    recipe = tiny_run.recipe(tmp_path, train={"evaluate_every": 2}).model_dump(mode="json")
    (tmp_path / "mini.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    out, places = tmp_path / "out", ["--shards", tmp_path / "shards", "--out", tmp_path / "out"]
    run = [sys.executable, BENCHMARKS / "gpu_run.py", *places, "--scale", "tiny", "--mini", tmp_path / "mini.yaml"]
    done = subprocess.run(
        [*map(str, run), "--limit", "1500"],
        capture_output=True,
        text=True,
        timeout=1500,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    lines = lines_of(out)
    assert len({line["call"] for line in lines}) == 1
    assert {line["device"] for line in lines if line["what"] == "settings"} != {"cpu"}  # which CPU it is
    whats: dict[str, list[str]] = {}
    for line in lines:
        whats.setdefault(line["part"], []).append(line["what"])
    expected = {
        "call": {"begin"},
        "machine": {"settings", "environment", "copy", "matmul", "end"},
        "base": {"settings", "ready", "step", "rates", "profile", "end"},
        "attention": {"settings", "kernel", "end"},
        "tests": {"settings", "tests", "end"},
        "ablation": {"settings", "ready", "step", "variant", "end"},
        "against": {"settings", "ready", "step", "against", "end"},
        "large": {"settings", "ready", "step", "rates", "end"},
        "input": {"settings", "ready", "one_process", "waiting", "end"},
        "study": {"settings", "study", "end"},
        "mini": {"settings", "mini", "end"},
    }
    assert {part: set(found) for part, found in whats.items()} == expected
    assert {line["form"] for line in lines if line["what"] == "variant"} == {
        form.name for form in ablation_variants(list(OPTIMIZATIONS))
    }
    assert {line["side"]: "error" in line for line in lines if line["what"] == "against"} == {
        "grouped by length": False,
        "padded, compiled": False,
    }
    sides = {(line["beside"], line["side"]) for line in lines if (line["part"], line["what"]) == ("against", "step")}
    assert sides == {(name, side) for name in ("grouped by length", "padded, compiled") for side in (name, "ernie2")}
    assert {line["kernel"] for line in lines if line["what"] == "kernel" and "error" not in line} == {
        "dense cuDNN",
        "padded groups",
    }
    read = [sys.executable, str(BENCHMARKS / "read_gpu_run.py"), str(out / "results.jsonl")]
    tables = subprocess.run(read, capture_output=True, text=True, check=True).stdout
    sections = dict(part.split("\n", 1) for part in tables.split("## ")[1:] if "\n" in part)
    assert "Nothing was measured" not in tables
    assert tables.startswith("Scale tiny: a dry run, these are not measurements.\n\nCall ")
    for title, shown in (
        ("Machine and peak rates", "gradient of the weights"),
        ("Attention kernels", "padded groups"),
        ("Base", "1 × 32"),
        ("Profile of one step of base", "aten::"),
        ("Large", "2 × 32"),
        ("Ablation", "all optimisations"),
        ("Comparison with Hugging Face", "padded, compiled"),
        ("Input pipeline", "training waits"),
        ("Study of learning methods", "Held-out accuracy"),
        ("Tests marked gpu", " passed, "),
        ("Small encoder", "mini.yaml"),
        ("Parts that did not run", "varlen FA3"),
    ):
        assert shown in tables[tables.index(f"## {title}") :], title
        assert title in sections, title
