"""Makes `tiny`, the hand-sized documents and shards of these tests, importable from every test folder.

Hypothesis has no deadline here, since a test must pass under any load, and the user's cache is left alone.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

import pytest
from hypothesis import settings

from child_processes import child_processes
from ernie2.console import on_terminal

settings.register_profile("ernie2", deadline=None)
settings.load_profile("ernie2")
_CACHE = tempfile.mkdtemp(prefix="ernie2-tests-cache-")
os.environ["XDG_CACHE_HOME"] = _CACHE
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)


@pytest.fixture
def start_process():
    """`subprocess.Popen` for processes that are killed, with their session, when the test ends."""
    with child_processes() as start:
        yield start


@pytest.fixture(autouse=True)
def _messages_on_the_terminal():
    """Messages are printed as under the command line, so that `capsys` finds them."""
    with on_terminal():
        yield
