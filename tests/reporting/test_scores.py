from __future__ import annotations

import pytest

from ernie2.reporting.records_reader import Score
from ernie2.reporting.scores import dot_plot

SCORE = Score(name="Which book?", seeds=(0, 1), pretrained=(0.8, 0.9), untrained=(0.6, 0.7), majority=0.5)


def test_every_seed_is_a_dot_and_the_mean_a_bar():
    plot = dot_plot(SCORE)
    assert [[value for _, value in row.dots] for row in plot.rows] == [[0.8, 0.9], [0.6, 0.7]]
    assert [row.mean[1] for row in plot.rows] == pytest.approx([0.85, 0.65])


def test_places_keep_order_and_stay_on_the_axis():
    plot = dot_plot(SCORE)
    places = [plot.majority[0], *(place for row in reversed(plot.rows) for place, _ in row.dots)]
    assert places == sorted(places)
    assert all(0 <= place <= 100 for place in places)


def test_ticks_are_at_the_position_of_their_value():
    plot = dot_plot(SCORE)
    ticks = {float(label): place for place, label in plot.ticks}
    assert ticks[0.5] == pytest.approx(plot.majority[0], abs=0.01)
    assert ticks[0.8] == pytest.approx(plot.rows[0].dots[0][0], abs=0.01)


@pytest.mark.parametrize("values", [(), (0.5,), (0.0, 1.0), (float("nan"),), (-0.4, 0.9), (0.5, 91.5)])
def test_any_values_give_an_axis(values):
    plot = dot_plot(Score(name="x", pretrained=values))
    assert 2 <= len(plot.ticks) <= 10
    assert all(0 <= place <= 100 for place, _ in plot.rows[0].dots)
