"""The rule of the released code: start 102,400, twice as much after 100 good steps, 0.8 of it after 2 bad ones."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from ernie2.training.loss_scale import LossScale


def after(*finite):
    scale = LossScale()
    for one in finite:
        scale.update(one)
    return scale


def test_it_starts_at_102400_and_doubles_after_a_hundred_good_steps_in_a_row():
    assert LossScale().value == 102_400
    assert after(*[True] * 99).value == 102_400
    assert after(*[True] * 100).value == 204_800
    assert after(*[True] * 200).value == 409_600


def test_a_bad_step_starts_the_hundred_anew():
    assert after(*[True] * 99, False, *[True] * 99).value == 102_400
    assert after(*[True] * 99, False, *[True] * 100).value == 204_800


def test_two_bad_steps_in_a_row_take_a_fifth_off_and_two_apart_do_not():
    assert after(False).value == 102_400
    assert after(False, False).value == 81_920
    assert after(False, True, False).value == 102_400
    assert after(False, False, False, False).value == 65_536


def test_it_never_falls_below_1():
    assert after(*[False] * 1000).value == 1.0


@given(st.lists(st.booleans(), max_size=300), st.lists(st.booleans(), max_size=300))
def test_its_state_goes_through_json_exactly(before, later):
    scale = after(*before)
    again = LossScale()
    again.restore(json.loads(json.dumps(scale.state())))
    for one in later:
        scale.update(one)
        again.update(one)
    assert again == scale
