"""EM and F1 of answers: worked examples of the official Chinese scripts, and regression values on a full file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie2.datasets.registry import load_dataset
from ernie2.finetuning.scoring.answers import (
    RULES,
    cmrc_units,
    count_common,
    dureader_units,
    longest_common_run,
    score_answer,
    score_answers,
    squad_units,
)

SHARED = Path(os.environ.get("ERNIE2_SHARED_DATA", Path(__file__).parents[2].parent / "shared" / "data"))

CMRC_EXAMPLES = [
    ("北京大学", "北京大学", 1, 1.0),
    ("北京大学", "北京", 0, 0.666667),
    ("《红楼梦》", "红楼梦", 1, 1.0),
    ("1998年10月", "1998年", 0, 0.666667),
    ("iPhone 6 Plus", "iphone 6", 0, 0.8),
    ("上海市浦东新区", "位于上海市浦东新区的陆家嘴", 0, 0.7),
    ("李白|诗人李白", "唐代诗人李白", 0, 0.8),
    ("3,524题", "3524题", 0, 0.5),
    ("A380飞机", "a380型飞机", 0, 0.571429),
    ("中国人民解放军", "美国", 0, 0.222222),
]
DUREADER_EXAMPLES = [
    ("8-10万元", "8-10万", 0, 0.8),
    ("XPE", "xpe爬行垫", 0, 0.4),
    ("约 3.5 米", "3.5米", 0, 0.4),
    ("《论语》", "论语", 1, 1.0),
    ("热带气候", "热带", 0, 0.666667),
]


@pytest.mark.parametrize(("references", "prediction", "exact", "f1"), CMRC_EXAMPLES)
def test_the_worked_examples_of_cmrc(references: str, prediction: str, exact: int, f1: float) -> None:
    assert score_answer(references.split("|"), prediction, RULES["cmrc2018"]) == pytest.approx((exact, f1), abs=1e-6)


@pytest.mark.parametrize(("reference", "prediction", "exact", "f1"), DUREADER_EXAMPLES)
def test_the_worked_examples_of_dureader_robust(reference: str, prediction: str, exact: int, f1: float) -> None:
    assert score_answer([reference], prediction, RULES["dureader_robust"]) == pytest.approx((exact, f1), abs=1e-6)


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("1998年10月", ["1998", "年", "10", "月"]),
        ("iPhone 6 Plus", ["iphone", "6", "plus"]),
        ("3-5", ["35"]),  # marks go before runs are collected
        ("3,524题", ["3,524", "题"]),
        ("it's (fine)", ["it", "'s", "(", "fine", ")"]),
        (" 《红楼梦》。", ["红", "楼", "梦"]),
        ("等……", ["等", "……"]),  # the mark of two characters never matches one
        ("", []),
        ("。", []),
    ],
)
def test_units_of_cmrc(text: str, units: list[str]) -> None:
    assert cmrc_units(text) == units


def test_units_of_dureader_keep_spaces_and_cut_out_the_equals_sign() -> None:
    assert dureader_units("约 3.5 米") == ["约", " 3.5 ", "米"]
    assert dureader_units("a=b-c") == ["a", "=", "b-c"]
    assert dureader_units("㐀𠀀") == ["㐀", "𠀀"]
    assert cmrc_units("㐀") == ["㐀"]  # outside the one block of CMRC's script it is a run, here of one character


def test_cmrc_strips_spaces_and_dureader_does_not() -> None:
    assert score_answer([" 北京 "], "北京", RULES["cmrc2018"])[0] == 1.0
    assert score_answer([" 北京 "], "北京", RULES["dureader_robust"])[0] == 0.0
    assert score_answer(["北 京"], "北京", RULES["cmrc2018"])[0] == 0.0  # inner spaces count


def test_the_chinese_characters_of_cmrc_end_at_u9fa5() -> None:
    assert cmrc_units("龥龥") == ["龥", "龥"]
    assert cmrc_units("甲龦龦") == ["甲", "龦龦"]


def test_squad_ignores_articles_marks_and_order() -> None:
    assert squad_units("The U.S. Army") == ["us", "army"]
    assert score_answer(["the Army of a state"], "state army", RULES["squad"]) == pytest.approx((0.0, 2 * 2 / 5))
    assert score_answer(["The Army."], "army", RULES["squad"]) == (1.0, 1.0)


def test_the_run_is_contiguous_and_the_best_reference_counts() -> None:
    assert longest_common_run("abxcd", "abcd") == 2
    assert longest_common_run("x" + "ab" * 150, "y" + "ab" * 150) == 300  # frequent units count in long answers too
    assert count_common("abxcd", "dcba") == 4
    assert score_answer(["甲乙丙丁", "丁"], "甲丙丁", RULES["cmrc2018"]) == pytest.approx((0.0, 4 / 7))


def test_an_empty_prediction_scores_zero() -> None:
    scores = score_answers([["甲"], ["乙"], ["丙"]], ["甲", "", ""], RULES["cmrc2018"])
    assert scores == pytest.approx((100 / 3, 100 / 3))


@given(st.lists(st.sampled_from("ab甲"), max_size=12), st.lists(st.sampled_from("ab甲"), max_size=12))
def test_the_longest_run_equals_a_search_over_all_of_them(one: list[str], other: list[str]) -> None:
    runs = {tuple(one[i:j]) for i in range(len(one)) for j in range(i + 1, len(one) + 1)}
    theirs = {tuple(other[i:j]) for i in range(len(other)) for j in range(i + 1, len(other) + 1)}
    assert longest_common_run(one, other) == max(map(len, runs & theirs), default=0)


@given(st.text(st.characters(codec="utf-8"), max_size=20), st.sampled_from(sorted(RULES)))
def test_f1_is_symmetric_and_one_for_the_same_text(text: str, rules: str) -> None:
    exact, f1 = score_answer([text], text, RULES[rules])
    assert exact == 1.0
    assert f1 == (1.0 if RULES[rules].split(text) else 0.0)
    assert score_answer([text], "甲a", RULES[rules])[1] == score_answer(["甲a"], text, RULES[rules])[1]


@pytest.mark.skipif(not (SHARED / "zh").is_dir(), reason="the Chinese datasets are not available")
def test_the_full_development_file_of_cmrc_gives_the_official_scores() -> None:
    examples = load_dataset("cmrc2018", str(SHARED / "zh")).splits["dev"].examples
    references = {example.id: [answer.text for answer in example.label or ()] for example in examples}  # type: ignore[union-attr]
    answers = {key: texts[0] for key, texts in references.items()}
    for predictions, exact, f1 in (
        (answers, 100.0, 100.0),
        ({key: text[:-1] for key, text in answers.items()}, 14.1038, 86.5280),
        ({example.id: (example.pair or "")[:20] for example in examples}, 0.0, 10.0388),
    ):
        scores = score_answers(list(references.values()), list(predictions.values()), RULES["cmrc2018"])
        assert scores == pytest.approx((exact, f1), abs=5e-5)
        assert len(references) == 3219
