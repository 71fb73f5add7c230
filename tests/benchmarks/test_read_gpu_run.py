"""Tables hold the figures of the lines, and what is missing is named with its reason."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
RATES: dict[str, Any] = {
    "layers": 12, "hidden": 768, "parameters": 110_000_000, "batch_tokens": 393_216, "pack_tokens": 65_536,
    "sequence_tokens": 512, "precision": "bf16", "tokens_per_second": 650_123.4, "mfu": 0.412, "median_seconds": 0.6049,
    "memory_bytes": 24 * 2**30, "real_share": 0.987, "graphs": 9, "recompilations": 0, "steps": 24, "task_sets": 11,
    "measured_sets": 11, "kernels": {"packed": {"packs": 144}},
    "flash_attention": "FA3", "peak_source": "data sheet of H200, dense bf16",
}  # fmt: skip


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import read_gpu_run

    module: ModuleType = read_gpu_run
    return module


def line(part: str, what: str, call: str = "c1", **facts: Any) -> dict[str, Any]:
    return {"call": call, "part": part, "what": what, "at": 1.0, **facts}


def begin(call: str, *parts: str) -> dict[str, Any]:
    return line("call", "begin", call, parts=list(parts), limit=470.0)


def end(part: str, exit_code: int = 0, **facts: Any) -> dict[str, Any]:
    return line(part, "end", exit_code=exit_code, seconds=12.0, **facts)


def section(text: str, title: str) -> list[str]:
    """Lines of one section without its title."""
    (_, found) = text.split(f"## {title}\n\n", 1)
    return found.split("\n\n## ")[0].split("\n## ")[0].strip().splitlines()


def test_figures_stand_in_their_tables(reader: ModuleType) -> None:
    def kernel(name: str, mix: str, took: float, difference: float) -> dict[str, Any]:
        facts = {"kernel": name, "mix": mix, "sequences": 227, "layers": 12, "layers_ms": took}
        facts |= {"compared_with": "varlen FA2"}
        return line("attention", "kernel", **facts, relative_difference=[difference, difference / 2])

    theirs = {
        "tokens_per_second": 200_000.0, "real_share": 0.62, "sequences_at_once": 128, "memory_bytes": 2**30,
        "ratio": 3.25, "ratio_where_masked": None, "steps": 2,
    }  # fmt: skip
    rates = {"forward": 650.04, "input_gradient": 600.0, "weight_gradient": 550.0}
    text = reader.tables(
        [
            line("machine", "copy", terabytes_per_second=4.321),
            line("machine", "matmul", rows=65_536, inner=768, columns=2_304, teraflops=rates),
            line("base", "rates", **RATES),
            line("base", "profile", active=["a", "b"], step_ms=100.0, kernels_ms=98.0,
                 kernels=[{"ms": 20.5, "share": 0.209, "calls": 12, "name": "flash|fwd"}]),
            kernel("varlen FA2", "uniform", 24.123, 0.0),
            kernel("varlen FA2", "pair", 20.0, 0.0),
            kernel("padded groups", "uniform", 30.0, 0.0021),
            line("ablation", "variant", form="all optimisations", off=[], tokens_per_second=660_000.0,
                 memory_bytes=None),
            line("ablation", "variant", form="without x", off=["x"], tokens_per_second=600_000.0, memory_bytes=None,
                 steps=2),
            *(line("ablation", "step", form="without x", tokens=9, seconds=took) for took in (9.0, 0.5, 0.75)),
            *(line("against", "step", side="grouped by length", beside="grouped by length", tokens=9, seconds=took)
              for took in (1.0, 1.25)),
            line("against", "step", side="ernie2", beside="grouped by length", tokens=9, seconds=1.0),
            line("against", "against", side="grouped by length", library="transformers 5", ours=RATES, theirs=theirs),
            line("input", "one_process", tokens_per_second=900_000.0, instances_per_second=7_000.0),
            line("input", "waiting", workers=4, share=0.0123, tokens_per_second=640_000.0, steps=8),
            line("study", "study", preset="small", overrides=["seeds=1"], table="# Methods\n\n| a |",
                 exit_code=0, stopped=False),
            line("tests", "tests", exit_code=0, stopped=False, said=["11 skipped in 40 s"]),
        ]
    )  # fmt: skip
    assert section(text, "Machine and peak rates")[-1] == "| 65,536 × 768 × 2,304 | 650.0 | 600.0 | 550.0 |"
    assert "4.32 TB/s" in text
    assert section(text, "Base")[2] == "| 12 × 768, 110 M | 650,123 | 41.2% | 0.6049 | 24.0 | 98.7% | 9 | 0 | 24 |"
    assert "Attention: packed for 144 packs; packed by FA3." in text
    assert section(text, "Profile of one step of base")[-1] == "| 20.500 | 20.9% | 12 | `flash\\|fwd` |"
    attention = section(text, "Attention kernels")
    assert attention[2:4] == ["| varlen FA2 | 24.12 | 20.00 | – |", "| padded groups | 30.00 | – | 2.1e-03 |"]
    assert section(text, "Ablation")[-1] == "| without x | 600,000 | 1.100 | – | 2 | 0.5000 to 0.7500 |"
    against = "| grouped by length | 200,000 | 62% | 128 | 1.0 | 650,123 | **3.25** | – | 2 | 1.0000 to 1.2500 |"
    assert against in section(text, "Comparison with Hugging Face")
    assert not [row for row in section(text, "Comparison with Hugging Face") if "Cut off" in row]
    assert section(text, "Input pipeline")[-1] == "| 4 | 1.23% | 640,000 | 8 |"
    assert "### Methods" in section(text, "Study of learning methods")
    assert section(text, "Tests marked gpu") == ["Exit code 0: 0 passed, 11 skipped"]


def test_repeated_measurements_are_shown_once_with_the_last_value(reader: ModuleType) -> None:
    again = [line("large", "rates", **{**RATES, "tokens_per_second": rate}) for rate in (1.0, 230_000.0)]
    assert len([row for row in section(reader.tables(again), "Large") if row.startswith("| 12")]) == 1
    assert "230,000" in reader.tables(again)


def test_a_part_that_was_cut_off_shows_its_steps(reader: ModuleType) -> None:
    steps = [line("base", "step", tokens=1_000, seconds=seconds) for seconds in (1.0, 3.0)]
    forms = [line("ablation", "step", form="without x", tokens=500, seconds=1.0)]
    text = reader.tables([*steps, *forms, line("base", "cut off", seconds=150.0)])
    assert section(text, "Base") == ["Cut off after 2 steps: 500 tokens/s over these, not weighted by the plan."]
    assert section(text, "Ablation")[0].startswith("without x: Cut off after 1 step: 500 tokens/s")


def test_what_did_not_run_is_named_with_its_reason(reader: ModuleType) -> None:
    text = reader.tables(
        [
            begin("c1", "machine", "base", "attention", "tests", "ablation", "against", "large", "input", "mini"),
            end("machine"),
            line("base", "cut off", seconds=150.2, by="SIGTERM"),
            line("attention", "kernel", kernel="varlen FA3", error="ModuleNotFoundError: No module named 'fa'"),
            end("attention"),
            end("tests", 1, said=["E: cuda", "2 failed"]),
            line("ablation", "ready", seconds=3),
            line("against", "against", side="padded, compiled", error="OutOfMemoryError: no"),
            end("against"),
            line("large", "left out", why="only 3 s of 470 left"),
            line("mini", "skipped", why="no recipe given; use --mini RECIPE"),
            end("mini"),
        ]
    )
    assert section(text, "Parts that did not run")[2:] == [
        "| base | cut off by SIGTERM, after 150 s |",
        "| tests | failed with exit code 1: 2 failed |",
        "| ablation | the entire call was cut off while it was running |",
        "| large | only 3 s of 470 left |",
        "| input | the entire call was cut off before it started |",
        "| study | it was not requested |",
        "| mini | no recipe given; use --mini RECIPE |",
        "| attention, varlen FA3: every mix | ModuleNotFoundError: No module named 'fa' |",
        "| against, padded, compiled | OutOfMemoryError: no |",
    ]
    assert section(text, "Base") == ["Nothing was measured."]


def test_steps_of_a_part_that_was_cut_off_are_not_blended_over_sides(reader: ModuleType) -> None:
    taken = (("a", "a", 100), ("ernie2", "a", 900), ("a", "a", 300), ("ernie2", "b", 500))
    steps = [
        line("against", "step", side=side, beside=beside, tokens=tokens, seconds=1.0) for side, beside, tokens in taken
    ]
    forms = [line("ablation", "step", form=f"without {name}", tokens=5, seconds=1.0) for name in "dbeca"]
    text = reader.tables([*steps, *forms])
    assert [row for row in section(text, "Comparison with Hugging Face") if row] == [
        "a: Cut off after 2 steps: 200 tokens/s over these, not weighted by the plan.",
        "ernie2, with a: Cut off after 1 step: 900 tokens/s over these, not weighted by the plan.",
        "ernie2, with b: Cut off after 1 step: 500 tokens/s over these, not weighted by the plan.",
    ]
    assert [row[:9] for row in section(text, "Ablation") if row] == [f"without {name}" for name in "dbeca"]


@pytest.mark.parametrize(
    "damaged",
    [
        b'{"call": "c", "at": 1, "part": "base", "wh',
        b'{"part": "base", "what": "end", "exit_code": 0, "at": 1}',
        b'{"call": "c", "at": "1", "part": "base", "what": "end", "exit_code": 0}',
        b'{"call": "c", "at": 1, "part": "base", "what": "rates"}',
        b'{"call": "c", "at": 1, "part": ["base"], "what": "end"}',
        b'{"call": "c", "at": 1, "part": "base", "what": "step", "tokens": 1, "seconds": 0}',
        b'{"call": "c", "at": 1, "part": "base", "what": "step", "tokens": 1, "seconds": NaN}',
        b'{"call": "c", "at": 1, "part": "base", "what": "step", "tokens": "1", "seconds": 1}',
        b'{"call": "c", "at":1, "part": "ablation", "what": "variant", "form": "x", "off": [], "tokens_per_second": 0}',
        b'{"call": "c", "at": 1, "part": "ablation", "what": "step", "form": ["x"], "tokens": 1, "seconds": 1}',
        b'{"call": "c", "at": 1, "part": "base", "what": "end", "exit_code": 1, "said": 3}',
        b'{"call": "c", "at": 1, "part": "mini", "what": "skipped", "why": "\\ud800"}',
        b'{"call": "c", "at": 1, "part": "mini", "what": "skipped", "why": "\xff"}',
        b"[" * 100_000,
        b"7",
    ],
)
def test_a_damaged_line_costs_only_itself_and_is_named(reader: ModuleType, tmp_path: Path, damaged: bytes) -> None:
    file, whole = tmp_path / "results.jsonl", json.dumps(end("base")).encode()
    file.write_bytes(b"\n".join([whole, damaged, b"", damaged, whole]))
    lines, unread = reader.read_lines([file])
    assert [each["what"] for each in lines] == ["end", "end"]
    assert unread == ["2 lines could not be read: lines 2, 4"]


def test_only_a_newline_ends_a_line(reader: ModuleType, tmp_path: Path) -> None:
    skipped = line("mini", "skipped", why="one\u2028two\u0085three")
    (tmp_path / "results.jsonl").write_text(json.dumps(skipped, ensure_ascii=False), encoding="utf-8")
    assert reader.read_lines([tmp_path / "results.jsonl"]) == ([skipped], [])


def test_a_folder_in_place_of_a_file_is_refused_in_one_line(
    reader: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["read_gpu_run.py", str(tmp_path)])
    with pytest.raises(SystemExit, match=f"^cannot read {tmp_path}: Is a directory$"):
        reader.main()


def test_nothing_in_a_cell_breaks_its_table(reader: ModuleType) -> None:
    kernels = [{"ms": 1.0, "share": 1.0, "calls": 1, "name": "a<b>`c|d"}]
    text = reader.tables(
        [
            line("mini", "skipped", why="one\n## two | `three` <b>"),
            line("base", "profile", active=["a"], step_ms=1.0, kernels_ms=1.0, kernels=kernels),
            line("study", "study", preset="small", overrides=[], table="# A\n```\n# code", exit_code=0, stopped=False),
        ]
    )
    assert "| mini | one ## two \\| \\`three\\` &lt;b> |" in text.split("\n")
    assert section(text, "Profile of one step of base")[-1] == "| 1.000 | 100.0% | 1 | `a<b>'c\\|d` |"
    assert section(text, "Study of learning methods")[2:] == ["### A", "```", "# code", "```"]


def settings(part: str, call: str, scale: str, commit: str | None) -> dict[str, Any]:
    return line(part, "settings", call, scale=scale, commit=commit, device="H200", load=0.25)


def test_the_heading_says_which_table_is_of_which_call_and_what_differs(reader: ModuleType) -> None:
    lines = [
        settings("base", "c1", "real", "abc"),
        line("base", "rates", **RATES),
        settings("large", "c1", "real", "abc"),
    ]
    about = "Its scale real; commit abc; device H200. Load when a part began: 0.2 to 0.2."
    assert reader.heading(lines) == f"Call c1: base, large. {about}"
    later = [settings("base", "c2", "tiny", None), line("base", "step", "c2", tokens=9, seconds=1.0)]
    assert reader.heading([*lines, *later]).split("\n\n") == [
        "Scale tiny: a dry run, these are not measurements.",
        "Call c2: base. Its scale tiny; commit not recorded; device H200. Load when a part began: 0.2 to 0.2.",
        f"Call c1: large. {about}",
        "**Different between tables: scale, commit.**",
    ]
    assert reader.heading([]) == ""


def test_a_table_is_of_the_newest_call_that_measured_and_never_of_two(reader: ModuleType) -> None:
    def variant(call: str, form: str, rate: float) -> list[dict[str, Any]]:
        steps = [line("ablation", "step", call, form=form, tokens=9, seconds=1000 / rate)]
        off = [] if form == "all optimisations" else ["x"]
        facts = {"form": form, "off": off, "tokens_per_second": rate, "steps": 1}
        return [*steps, line("ablation", "variant", call, **facts)]

    first = [*variant("c1", "all optimisations", 1000.0), *variant("c1", "without x", 500.0), end("ablation")]
    second = [begin("c2", "ablation", "mini"), *variant("c2", "all optimisations", 4000.0)]
    text = reader.tables([*first, *second])
    assert section(text, "Ablation")[2:] == ["| all optimisations | 4,000 | 1.000 | – | 1 | 0.2500 to 0.2500 |"]
    assert "| ablation | the entire call was cut off while it was running |" in section(text, "Parts that did not run")
    third = [begin("c3", "ablation"), line("ablation", "left out", "c3", why="only 3 s left")]
    text = reader.tables([*first, *second, *third])
    assert section(text, "Ablation")[2:] == ["| all optimisations | 4,000 | 1.000 | – | 1 | 0.2500 to 0.2500 |"]
    assert "| ablation | only 3 s left |" in section(text, "Parts that did not run")
    ready = [line("base", "ready", call, seconds=took, compiled=False) for call, took in (("c1", 7.0), ("c2", 90.0))]
    assert "Ready after 7 s." in reader.tables([line("base", "rates", **RATES), *ready])


def test_a_part_that_ran_in_a_later_call_is_not_missed(reader: ModuleType) -> None:
    skipped = [begin("c1", "mini"), line("mini", "skipped", why="no recipe was named"), end("mini")]
    ended = {"recipe": "r.yaml", "folder": "f", "last": [], "exit_code": 0, "stopped": False}
    ran = [
        begin("c2", "mini"),
        line("mini", "mini", "c2", **ended),
        line("mini", "end", "c2", exit_code=0, seconds=1.0),
    ]
    missing = section(reader.tables([*skipped, *ran]), "Parts that did not run")
    assert not [row for row in missing if row.startswith("| mini |")]


def test_lines_of_several_files_are_sorted_by_time(reader: ModuleType, tmp_path: Path) -> None:
    files = [tmp_path / "b.jsonl", tmp_path / "a.jsonl"]
    for file, at in zip(files, (2.0, 1.0), strict=True):
        file.write_text(json.dumps({**end("base"), "at": at}), encoding="utf-8")
    assert [each["at"] for each in reader.read_lines(files)[0]] == [1.0, 2.0]


@pytest.mark.parametrize("part", ["study", "tests", "mini"])
def test_a_command_that_was_stopped_is_said_to_be(reader: ModuleType, part: str) -> None:
    facts = {"preset": "small", "overrides": [], "table": "", "said": [], "recipe": "r.yaml", "last": []}
    stopped = line(part, part, **facts, exit_code=-15, stopped=True)
    text = reader.tables([begin("c1", part), stopped, line(part, "cut off", seconds=16.0)])
    assert "Stopped at its time limit" in text
    assert f"| {part} | cut off by its limit, after 16 s |" in text


def test_tables_that_cannot_be_written_cost_one_line_and_a_reader_who_left_none(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text(json.dumps(end("base")), encoding="utf-8")
    unread, pipe = os.pipe()
    os.close(unread)
    for place, said in ((pipe, ""), ("/dev/full", "cannot write the tables: No space left on device\n")):
        with open(place, "w") as stdout:
            command = [sys.executable, BENCHMARKS / "read_gpu_run.py", tmp_path / "results.jsonl"]
            assert subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True).stderr == said


def test_model_facts_are_listed_below_the_ablation(reader: ModuleType) -> None:
    built = {"layers": 12, "hidden": 768, "parameters": 110_000_000, "precision": "bf16", "compiled": True}
    text = reader.tables([line("ablation", "ready", form="x", seconds=3.0, **built)])
    assert section(text, "Ablation") == ["12 × 768, 110 M parameters, bf16, compiled."]


@pytest.mark.parametrize(
    ("written", "said"), [(b"", "no part has started"), (b"{\n", "1 line could not be read: line 1")]
)
def test_a_file_without_measurements_makes_no_tables(
    reader: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    written: bytes,
    said: str,
) -> None:
    file = tmp_path / "results.jsonl"
    file.write_bytes(written)
    monkeypatch.setattr(sys, "argv", ["read_gpu_run.py", str(file)])
    with pytest.raises(SystemExit, match=f"no measurement in .*results.jsonl: {said}"):
        reader.main()
    assert capsys.readouterr().out == ""
