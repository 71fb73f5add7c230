"""The paper's figures stand beside ours only with model, size and split, and never beside other data."""

from __future__ import annotations

import pytest

from ernie2.datasets.examples import LabelledData, Split, Standing
from ernie2.finetuning.scoring.paper_results import PAPER_ROWS, beside, paper_rows

BASE, LARGE = (12, 768), (24, 1024)


def data(name: str = "mrpc", **standings: Standing) -> LabelledData:
    splits = {split: Split((), (), standing) for split, standing in standings.items()}
    return LabelledData(name, "classification", ("0", "1"), ("accuracy",), splits)


def test_rows_name_model_size_and_split() -> None:
    (bert, ernie) = paper_rows("mrpc", "base", "test")
    assert bert.described == "BERT base, test: 84.8 / 88.9 (accuracy / f1)"
    assert ernie.described == "ERNIE 2.0 base, test: 86.1 / 89.9 (accuracy / f1)"
    assert [row.described for row in paper_rows("mrpc", "large", "dev")] == [
        "BERT large, dev: 88.0 (accuracy)",
        "XLNet large, dev: 89.2 (accuracy)",
        "ERNIE 2.0 large, dev: 89.7 (accuracy)",
    ]
    assert paper_rows("dbqa", "large", "test")[0].described == "ERNIE 2.0 large, test: 95.8 / 85.8 (mrr / f1)"
    assert [row.model for row in paper_rows("xnli", "base", "dev")] == ["BERT", "ERNIE 1.0", "ERNIE 2.0"]


def test_where_the_paper_has_a_dash_there_is_no_row() -> None:
    assert not paper_rows("wnli", "large", "dev")
    assert not paper_rows("mrpc", "base", "dev")
    assert not paper_rows("cmrc2018", "base", "test")
    # Table 5: 10 tasks × 7 columns less 6 dashes; Table 6: 9 sets × 8 columns less 8 dashes
    assert len(PAPER_ROWS) == 10 * 7 - 6 + 9 * 8 - 8


def test_full_data_is_compared_and_a_subset_says_so() -> None:
    rows, words = beside(data(train="official", dev="official"), LARGE, "dev")
    assert len(rows) == 3
    assert words == "Full data."
    rows, words = beside(data(train="subset", dev="official"), LARGE, "dev")
    assert len(rows) == 3
    assert words == "Not comparable as it stands: only a subset of train was used."


def test_an_encoder_of_another_shape_than_the_papers_says_so() -> None:
    rows, words = beside(data(train="official", dev="official"), (24, 512), "dev")
    assert len(rows) == 3
    assert words == "Not comparable as it stands: this encoder has 24 layers × 512, the paper's 24 × 1024."
    _, words = beside(data("xnli", train="subset", dev="official"), (4, 256), "dev")
    assert "only a subset of train was used; this encoder has 4 layers × 256, the paper's 12 × 768." in words


@pytest.mark.parametrize(
    "standings", [{"train": "stand-in", "dev": "official"}, {"train": "official", "dev": "stand-in"}]
)
def test_stand_ins_are_never_compared(standings: dict[str, Standing]) -> None:
    rows, words = beside(data(**standings), LARGE, "dev")
    assert rows == ()
    assert "not shown" in words
    assert beside(data("own", train="own", dev="own"), LARGE, "dev")[0] == ()


def test_each_half_of_mnli_has_its_own_figure() -> None:
    mnli = data("mnli", train="official", test_mismatched="official", dev_mismatched="official")
    assert [row.values for row in beside(mnli, BASE, "test_mismatched")[0]] == [(83.4,), (85.5,)]
    rows, words = beside(mnli, LARGE, "dev_mismatched")
    assert rows == ()
    assert words == "The paper reports no figure for mnli, a large model, dev_mismatched."
