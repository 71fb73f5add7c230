"""What the machine can do at most, by times that are given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpu_parts import machine
from gpu_parts.job import SCALES, Job
from gpu_parts.results import Results


def test_rates_are_those_of_a_pencil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[dict[str, Any]] = []
    monkeypatch.setattr(machine, "milliseconds", lambda *_: 4.0)
    monkeypatch.setattr(Job, "note", lambda _, what, **facts: noted.append({"what": what, **facts}))
    scale = replace(SCALES["tiny"], copied=250_000, square=100)
    machine.measure(Job("machine", Results(tmp_path, "c1"), tmp_path, scale, 60.0, None, 0.0))
    _, copy, square, *others = noted
    assert copy["terabytes_per_second"] == pytest.approx(0.0005)  # a million bytes read and written in 4 ms
    assert (square["rows"], square["inner"], square["columns"]) == (100, 100, 100)
    assert square["teraflops"] == pytest.approx(dict.fromkeys(square["teraflops"], 0.0005))  # 2 · 100³ in 4 ms
    assert (others[0]["rows"], others[0]["inner"], others[0]["columns"]) == (512, 32, 96)
    assert others[0]["teraflops"]["forward"] == pytest.approx(2 * 512 * 32 * 96 / 4e9)
