"""Truncation of pairs, compared with removing tokens one by one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ernie2.shards.truncation import longest_first


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 50))
def test_the_longer_text_loses_its_last_token_repeatedly(one: int, other: int, room: int) -> None:
    first, second = one, other
    while first + second > room:
        if first > second:
            first -= 1
        else:
            second -= 1
    assert longest_first(one, other, room) == (first, second)
