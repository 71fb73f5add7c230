"""Timing on a device."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from statistics import median

import torch


def milliseconds(run: Callable[[], object], device: torch.device, repeats: int, warm_up: int = 2) -> float:
    """Return the median time of `run` over `repeats` calls, by CUDA events on a GPU, else by the clock."""
    for _ in range(warm_up):
        run()
    if device.type != "cuda":
        times = [time.perf_counter()]
        for _ in range(repeats):
            run()
            times.append(time.perf_counter())
        return 1e3 * median(after - before for before, after in pairwise(times))
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    marks[0].record()
    for mark in marks[1:]:
        run()
        mark.record()
    torch.cuda.synchronize(device)
    return median(before.elapsed_time(after) for before, after in pairwise(marks))
