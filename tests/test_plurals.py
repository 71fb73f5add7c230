"""A count stands with its noun in the right number."""

from __future__ import annotations

from ernie2.plurals import counted


def test_one_is_singular_and_every_other_number_plural() -> None:
    assert [counted(count, "seed") for count in (0, 1, 1234)] == ["0 seeds", "1 seed", "1,234 seeds"]
    assert (counted(1, "class", "classes"), counted(2, "class", "classes")) == ("1 class", "2 classes")
