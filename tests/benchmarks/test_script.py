"""Arguments and ends that scripts share."""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path

import pytest

from comparisons.script import count, output_file, reported_errors
from ernie2.errors import ConfigError


def test_a_count_is_a_whole_number_above_0() -> None:
    assert count("3") == 3
    for text in ("0", "-1", "1.5", "x"):
        with pytest.raises(ValueError):
            count(text)


def test_a_file_that_cannot_be_written_is_refused_as_an_argument(tmp_path: Path) -> None:
    assert output_file(str(tmp_path / "new" / "a.json")) == tmp_path / "new" / "a.json"
    with pytest.raises(argparse.ArgumentTypeError, match=str(tmp_path)):
        output_file(str(tmp_path))


def test_an_error_of_the_user_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"), reported_errors():
        raise ConfigError("there is no such thing.")
    assert capsys.readouterr().err.endswith(": there is no such thing.\n")


def test_sigterm_exits_and_the_handler_before_is_back_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match="143"), reported_errors():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before
