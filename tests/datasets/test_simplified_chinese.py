"""Traditional to Simplified Chinese: lengths do not change; without a converter, the error gives advice."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from ernie2.datasets.simplified_chinese import build_simplifier, is_traditional
from ernie2.errors import DataError

PAIRS = {"學": "学", "國": "国", "乾": "干", "麼": "什么"}


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zhconv", None)
    monkeypatch.setitem(sys.modules, "opencc", None)


def test_the_form_is_detected_by_frequent_characters() -> None:
    assert is_traditional(["這個國家的學生們來說"])
    assert not is_traditional(["这个国家的学生们来说"])
    assert not is_traditional(["皇后在公里之內與"[:4]])  # characters of both forms say nothing
    assert not is_traditional(["no Chinese here"])


@pytest.mark.parametrize("installed", ["zhconv", "opencc"])
def test_a_complete_text_is_converted_unless_that_changes_its_length(
    monkeypatch: pytest.MonkeyPatch, nothing_installed: None, installed: str
) -> None:
    def convert(text: str, *_: str) -> str:
        return "".join(PAIRS.get(char, char) for char in text.replace("乾隆", "Q隆")).replace("Q", "乾")

    module = {
        "zhconv": SimpleNamespace(convert=convert),
        "opencc": SimpleNamespace(OpenCC=lambda _: SimpleNamespace(convert=convert)),
    }[installed]
    monkeypatch.setitem(sys.modules, installed, module)
    simplify = build_simplifier("f")
    assert simplify("乾隆國學a") == "乾隆国学a"
    assert simplify("乾國麼a") == "干国麼a"  # 麼 has no single character here, so it stays and the length with it


def test_without_a_converter_the_error_gives_advice(nothing_installed: None) -> None:
    with pytest.raises(DataError, match=r"DRCD.json is in Traditional characters.*-e '\.\[zh\]'"):
        build_simplifier("DRCD.json")


def test_zhconv_knows_common_characters_and_words() -> None:
    pytest.importorskip("zhconv")
    traditional = "這個們來說對時會國學發過還為從見長門問間開關東車馬風飛電話語讀寫書畫點樣種經應該實現"
    simple = "这个们来说对时会国学发过还为从见长门问间开关东车马风飞电话语读写书画点样种经应该实现"
    assert build_simplifier("f")(traditional) == simple
    assert build_simplifier("f")("乾隆乾燥") == "乾隆干燥"
