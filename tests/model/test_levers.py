"""Levers are on, and off inside `without` only."""

from __future__ import annotations

import pytest

from ernie2.model import levers


@pytest.fixture(autouse=True)
def two_levers(monkeypatch):
    monkeypatch.setattr(levers, "LEVERS", {"one": "does one thing"})
    monkeypatch.setattr(levers, "FINE_TUNING_LEVERS", {"other": "does another"})


def test_a_lever_is_off_inside_without_and_on_again_after_it():
    with levers.without("one"):
        assert not levers.enabled("one")
        assert levers.enabled("other")
        with levers.without("other"):
            assert not levers.enabled("one")
            assert not levers.enabled("other")
        assert levers.enabled("other")
    assert levers.enabled("one")


def test_an_error_inside_turns_levers_on_again():
    with pytest.raises(ValueError, match="wrong"), levers.without("one"):
        raise ValueError("wrong")
    assert levers.enabled("one")


def test_a_name_that_is_no_lever_is_refused():
    with pytest.raises(KeyError, match="no lever is called tow; there are one, other"), levers.without("tow"):
        pass
