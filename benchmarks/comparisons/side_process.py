"""A separate process for one side of a comparison."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

from comparisons.process_settings import VARIABLES
from ernie2.processes import exit_with_parent


@contextmanager
def side_process(variables: Mapping[str, str]) -> Iterator[ProcessPoolExecutor]:
    """Yield one process, started with `variables` instead of `VARIABLES`; it always ends with this process."""
    ours = {name: os.environ.pop(name) for name in VARIABLES if name in os.environ}
    os.environ.update(variables)
    try:
        process = ProcessPoolExecutor(1, get_context("spawn"), initializer=exit_with_parent)
        process.submit(os.getpid).result()
    finally:
        for name in variables:
            del os.environ[name]
        os.environ.update(ours)
    with process:
        yield process
