from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie2.corpora.sentences import sentence_bounds


def pieces(paragraph: str, language: str) -> list[str]:
    return [paragraph[start:end] for start, end in sentence_bounds(paragraph, language)]


@pytest.mark.parametrize(
    ("paragraph", "sentences"),
    [
        ("He left. Why?", ["He left.", "Why?"]),
        ("Mr. Smith paid 3.5 dollars. Fine.", ["Mr. Smith paid 3.5 dollars.", "Fine."]),
        ("  Lead. Trail.  \n", ["Lead.", "Trail."]),
        ("one line\nnext line. Three.", ["one line\nnext line.", "Three."]),
        ("Costs rose; prices fell.", ["Costs rose; prices fell."]),
        ("no mark at all", ["no mark at all"]),
        ("", []),
        (" \n ", []),
    ],
)
def test_english_sentences_are_split_and_trimmed(paragraph, sentences):
    assert pieces(paragraph, "en") == sentences


@pytest.mark.parametrize(
    ("paragraph", "sentences"),
    [
        ("你好。真的？！好的！", ["你好。", "真的？！", "好的！"]),
        ("等等……他走了。", ["等等……", "他走了。"]),
        ("“走吧……”他说。", ["“走吧……”", "他说。"]),
        ("好……，他说……好吗？", ["好……，他说……", "好吗？"]),
        ("他“想……了……”，走了。", ["他“想……了……”，走了。"]),
        ("……我走了。", ["……我走了。"]),
        ("他说“他走……了。我……”然后走。", ["他说“他走……了。我……”", "然后走。"]),
        ("他说『好。』了。", ["他说『好。』", "了。"]),
        ("【注意！】小心。", ["【注意！】", "小心。"]),
        ("他买了米；她买了面。", ["他买了米；她买了面。"]),
        ("\u3000\u3000好。\u3000走。", ["好。", "走。"]),
    ],
)
def test_chinese_sentences_keep_their_closing_marks_and_end_at_a_double_ellipsis(paragraph, sentences):
    assert pieces(paragraph, "zh") == sentences


def test_offsets_are_characters_also_beyond_the_basic_plane():
    assert sentence_bounds("😀 Hé. 𝔸 b? C.", "en") == [(0, 5), (6, 10), (11, 13)]


def test_region_and_case_of_the_language_code_do_not_matter():
    assert pieces("等等……他走了。", "zh_CN") == pieces("等等……他走了。", "ZH-hans") == ["等等……", "他走了。"]


@pytest.mark.parametrize("language", ["xx", "", "klingon"])
def test_an_unknown_language_still_splits_at_sentence_marks(language):
    assert pieces("Dr. Smith came. He left.", language) == ["Dr. Smith came.", "He left."]
    assert pieces("你好。我好。", language) == ["你好。", "我好。"]


def test_a_script_without_sentence_marks_is_one_sentence():
    assert pieces("สวัสดี ครับ", "th") == ["สวัสดี ครับ"]


ALPHABET = st.text(alphabet=st.sampled_from(list("aB. \n!?。…”“』『）（é😀我\u3000\"'")), max_size=60)


@given(paragraph=ALPHABET | st.text(max_size=60), language=st.sampled_from(["en", "zh", "de", "xx"]))
def test_the_sentences_contain_everything_but_white_space_in_order(paragraph, language):
    bounds = sentence_bounds(paragraph, language)
    flat = [place for bound in bounds for place in bound]
    assert flat == sorted(flat)
    assert all(paragraph[a:b] and paragraph[a:b] == paragraph[a:b].strip() for a, b in bounds)
    gaps = [paragraph[a:b] for a, b in zip([0, *flat[1::2]], [*flat[::2], len(paragraph)], strict=True)]
    assert not "".join(gaps).strip()
