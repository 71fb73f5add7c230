from __future__ import annotations

import pytest

from ernie2 import formatting

NAN = float("nan")


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (formatting.decimal(0.41249), "0.412"),
        (formatting.decimal(-0.5, 1), "\N{MINUS SIGN}0.5"),
        (formatting.decimal(None), "–"),
        (formatting.decimal(NAN), "–"),
        (formatting.signed(0.2), "+0.200"),
        (formatting.signed(-0.2), "\N{MINUS SIGN}0.200"),
        (formatting.decimal(-0.0001), "0.000"),
        (formatting.signed(0.0), "0.000"),
        (formatting.signed(-0.0001), "0.000"),
        (formatting.signed(0.004, 2), "0.00"),
        (formatting.signed(None), "–"),
        (formatting.interval(0.38, 0.44), "0.380–0.440"),
        (formatting.interval(None, 0.44), ""),
        (formatting.integer(1234567), "1,234,567"),
        (formatting.rounded(999_999), "999,999"),
        (formatting.rounded(1_234_567), "1.23 million"),
        (formatting.rounded(109_482_240), "109 million"),
        (formatting.rounded(19_660_800_000), "19.7 billion"),
        (formatting.duration(52.2), "52 s"),
        (formatting.duration(412.3), "6 min 52 s"),
        (formatting.duration(7260), "2 h 1 min"),
        (formatting.duration(90_000), "1 d 1 h"),
        (formatting.percent(3, 4), "75 %"),
        (formatting.percent(1, 80), "1.2 %"),
        (formatting.percent(0, 4), "0 %"),
        (formatting.percent(0, 0), "–"),
        (formatting.number_word(3), "three"),
        (formatting.number_word(33), "33"),
        (formatting.join_words(["a", "b", "c"]), "a, b and c"),
        (formatting.join_words(["a", "b"]), "a and b"),
        (formatting.join_words(["a"]), "a"),
        (formatting.join_words([]), ""),
    ],
)
def test_numbers_and_lists_read_well(made, expected):
    assert made == expected


def test_one_is_singular_and_every_other_number_plural() -> None:
    assert [formatting.quantity(count, "seed") for count in (0, 1, 1234)] == ["0 seeds", "1 seed", "1,234 seeds"]
    assert (formatting.quantity(1, "class", "classes"), formatting.quantity(2, "class", "classes")) == (
        "1 class",
        "2 classes",
    )


def test_times_read_as_clocks() -> None:
    times = {5: "0:05", 65: "1:05", 3725: "1:02:05", 2 * 86_400 + 7_300: "2 days 2 h"}
    assert {seconds: formatting.clock(seconds) for seconds in times} == times
