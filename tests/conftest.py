"""Makes `tiny`, the hand-sized documents and shards of these tests, importable from every test folder.

Hypothesis has no deadline here, since a test must pass under any load, and the user's cache is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from child_processes import child_processes
from ernie2.console import terminal_output

settings.register_profile("ernie2", deadline=None)
settings.load_profile("ernie2")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache below pytest's own temporary folder, which pytest removes even where a worker of xdist is killed."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture
def start_process():
    """`subprocess.Popen` for processes that are killed, with their session, when the test ends."""
    with child_processes() as start:
        yield start


@pytest.fixture(autouse=True)
def _messages_on_the_terminal():
    """Messages are printed as under the command line, so that `capsys` finds them."""
    with terminal_output():
        yield
