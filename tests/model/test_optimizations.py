"""Optimisations are on, and off inside `without` only."""

from __future__ import annotations

import pytest

from ernie2.model import optimizations


@pytest.fixture(autouse=True)
def two_optimizations(monkeypatch):
    monkeypatch.setattr(optimizations, "OPTIMIZATIONS", {"one": "does one thing"})
    monkeypatch.setattr(optimizations, "FINE_TUNING_OPTIMIZATIONS", {"other": "does another"})


def test_an_optimization_is_off_inside_without_and_on_again_after_it():
    with optimizations.disabled("one"):
        assert not optimizations.is_enabled("one")
        assert optimizations.is_enabled("other")
        with optimizations.disabled("other"):
            assert not optimizations.is_enabled("one")
            assert not optimizations.is_enabled("other")
        assert optimizations.is_enabled("other")
    assert optimizations.is_enabled("one")


def test_an_error_inside_turns_optimizations_on_again():
    with pytest.raises(ValueError, match="wrong"), optimizations.disabled("one"):
        raise ValueError("wrong")
    assert optimizations.is_enabled("one")


def test_a_name_that_is_no_optimization_is_refused():
    with (
        pytest.raises(KeyError, match="unknown optimisation: tow; choose from one, other"),
        optimizations.disabled("tow"),
    ):
        pass
