from __future__ import annotations

import pytest

from ernie2 import wording

NAN = float("nan")


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (wording.decimal(0.41249), "0.412"),
        (wording.decimal(-0.5, 1), "\N{MINUS SIGN}0.5"),
        (wording.decimal(None), "–"),
        (wording.decimal(NAN), "–"),
        (wording.signed(0.2), "+0.200"),
        (wording.signed(-0.2), "\N{MINUS SIGN}0.200"),
        (wording.decimal(-0.0001), "0.000"),
        (wording.signed(0.0), "0.000"),
        (wording.signed(-0.0001), "0.000"),
        (wording.signed(0.004, 2), "0.00"),
        (wording.signed(None), "–"),
        (wording.interval(0.38, 0.44), "0.380–0.440"),
        (wording.interval(None, 0.44), ""),
        (wording.whole(1234567), "1,234,567"),
        (wording.rounded(999_999), "999,999"),
        (wording.rounded(1_234_567), "1.23 million"),
        (wording.rounded(109_482_240), "109 million"),
        (wording.rounded(19_660_800_000), "19.7 billion"),
        (wording.duration(52.2), "52 s"),
        (wording.duration(412.3), "6 min 52 s"),
        (wording.duration(7260), "2 h 1 min"),
        (wording.duration(90_000), "1 d 1 h"),
        (wording.percent(3, 4), "75 %"),
        (wording.percent(1, 80), "1.2 %"),
        (wording.percent(0, 4), "0 %"),
        (wording.percent(0, 0), "–"),
        (wording.spelled(3), "three"),
        (wording.spelled(33), "33"),
        (wording.listing(["a", "b", "c"]), "a, b and c"),
        (wording.listing(["a", "b"]), "a and b"),
        (wording.listing(["a"]), "a"),
        (wording.listing([]), ""),
    ],
)
def test_numbers_and_lists_read_well(made, expected):
    assert made == expected


def test_one_is_singular_and_every_other_number_plural() -> None:
    assert [wording.counted(count, "seed") for count in (0, 1, 1234)] == ["0 seeds", "1 seed", "1,234 seeds"]
    assert (wording.counted(1, "class", "classes"), wording.counted(2, "class", "classes")) == ("1 class", "2 classes")


def test_times_read_as_clocks() -> None:
    times = {5: "0:05", 65: "1:05", 3725: "1:02:05", 2 * 86_400 + 7_300: "2 days 2 h"}
    assert {seconds: wording.clock(seconds) for seconds in times} == times
