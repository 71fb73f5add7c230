"""Truncation of pairs, beside taking tokens off one by one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ernie2.shards.truncation import longest_first


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 50))
def test_pairs_are_cut_as_if_the_longer_lost_its_last_token_again_and_again(one: int, other: int, room: int) -> None:
    first, second = one, other
    while first + second > room:
        if first > second:
            first -= 1
        else:
            second -= 1
    assert longest_first(one, other, room) == (first, second)
