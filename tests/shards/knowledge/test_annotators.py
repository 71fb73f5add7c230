"""Annotators on texts small enough to check by eye, and conversion of spans to token runs."""

from __future__ import annotations

import sys
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import rjieba
from hypothesis import given
from hypothesis import strategies as st

from ernie2.config.data_settings import KnowledgeSettings
from ernie2.errors import ConfigError, DataError
from ernie2.shards.knowledge.annotators import ChineseWords, Gazetteer, SpacySpans, build_annotators, read_gazetteer
from ernie2.shards.knowledge.token_runs import (
    ACROSS,
    CUTS_TOKEN,
    NO_TOKEN,
    OVERLAPS,
    TOO_LONG,
    TokenPositions,
    as_spans,
    leftmost_longest,
)


def found(annotator, text):
    """kind -> the marked parts of the text."""
    spans = annotator.spans(text, [(0, len(text))])
    return {kind: [text[start:end] for start, end in runs.tolist()] for kind, runs in spans if len(runs)}


def test_a_gazetteer_matches_the_leftmost_and_then_the_longest():
    gazetteer = Gazetteer({"New York": "entity", "New York City": "entity", "City Hall": "entity"})
    assert found(gazetteer, "From New York City Hall to New York.") == {"entity": ["New York City", "New York"]}


def test_a_match_neither_begins_nor_ends_inside_a_word():
    assert found(Gazetteer({"art": "entity", "art deco": "entity"}), "party art decorations, art.") == {
        "entity": ["art", "art"]
    }


def test_an_entry_with_a_capital_is_case_sensitive_others_are_not():
    gazetteer = Gazetteer({"Apple": "entity", "natural selection": "phrase"})
    text = "An apple of Apple. Natural Selection, NATURAL SELECTION"
    assert found(gazetteer, text) == {"entity": ["Apple"], "phrase": ["Natural Selection", "NATURAL SELECTION"]}


def test_letters_that_grow_when_lower_cased_shift_no_offsets():
    assert found(Gazetteer({"ankara": "entity"}), "İİ Ankara") == {"entity": ["Ankara"]}


def test_an_entry_matches_across_line_breaks_odd_spaces_and_combining_accents():
    gazetteer = Gazetteer({"Tower Bridge": "entity", "Café Müller": "entity", "Zürich": "entity"})
    text = "To\u00adwer\u00a0 Bridge, Tower\nBridge; Cafe\u0301\u3000Mu\u0308ller. Zu\u0308rich Tower\n\nBridge"
    assert found(gazetteer, text) == {
        "entity": ["To\u00adwer\u00a0 Bridge", "Tower\nBridge", "Cafe\u0301\u3000Mu\u0308ller", "Zu\u0308rich"]
    }


def test_an_entry_may_have_odd_spaces_and_combining_accents():
    gazetteer = Gazetteer({"Tower\u00a0Bridge": "entity", "Zu\u0308rich": "phrase", "\u200b": "entity"})
    assert found(gazetteer, "Tower Bridge in Zürich") == {"entity": ["Tower Bridge"], "phrase": ["Zürich"]}


def test_a_combining_accent_after_an_entry_belongs_to_a_longer_word():
    assert found(Gazetteer({"cafe": "entity", "か": "entity"}), "cafe\u0301 か\u3099 cafe") == {"entity": ["cafe"]}


def test_a_chinese_name_matches_across_a_line_break_but_not_across_a_space():
    assert found(Gazetteer({"清华大学": "entity"}), "在清华\n大学和清华 大学") == {"entity": ["清华\n大学"]}


def test_scripts_without_spaces_need_no_word_boundary():
    assert found(Gazetteer({"北京": "entity"}), "我在北京大学") == {"entity": ["北京"]}


def test_rjieba_gives_words_of_two_characters_and_more_and_names():
    assert found(ChineseWords(), "小明在北京大学读书。") == {
        "word": ["小明", "北京大学", "读书"],
        "entity": ["小明", "北京大学"],
    }


def test_characters_rjieba_joins_beyond_its_dictionary_count_as_names_only():
    tagged = [("何洁", "nr"), ("曾任", "v"), ("村长", "n")]
    assert rjieba.tag("何洁曾任村长") == tagged
    assert [rjieba.has_word(word) for word, _ in tagged] == [False, False, True]
    assert found(ChineseWords(), "何洁曾任村长") == {"word": ["何洁", "村长"], "entity": ["何洁"]}


def test_known_and_foreign_persons_are_names_too():
    assert rjieba.tag("陈寅恪见阿拉法特") == [("陈寅恪", "nrfg"), ("见", "v"), ("阿拉法特", "nrt")]
    assert found(ChineseWords(), "陈寅恪见阿拉法特")["entity"] == ["陈寅恪", "阿拉法特"]


def test_runs_of_latin_letters_and_digits_are_words_unless_they_have_marks():
    assert found(ChineseWords(), "iPhone降到3.5折，2012年C++。") == {
        "word": ["iPhone", "降到", "2012"],
        "entity": ["C++"],
    }


@pytest.mark.parametrize(
    "word", ["Église", "E\u0301glise", "Björk", "naïve", "Привет", "Ελλάδα", "Ｌｉｎｕｘ", "straße", "한국어", "Ægir2"]
)
def test_a_word_beyond_ascii_in_chinese_text_is_one_word(word):
    assert found(ChineseWords(), f"北京{word}路，{word} Linux")["word"] == ["北京", "Linux", word, word]


def test_symbols_and_kana_are_not_words():
    assert found(ChineseWords(), "①②③ ラーメン、²³") == {}


def test_chinese_words_match_across_a_line_break():
    assert found(ChineseWords(), "我们在北\n京读书")["entity"] == ["北\n京"]


@given(st.lists(st.text("北京大学的人在微信3.aB ，。", max_size=12), max_size=4))
def test_chinese_words_are_words_of_rjieba_inside_one_paragraph(paragraphs):
    text = "\n\n".join(paragraphs)
    starts = [sum(len(earlier) + 2 for earlier in paragraphs[:number]) for number in range(len(paragraphs))]
    places = [(start, start + len(paragraph)) for start, paragraph in zip(starts, paragraphs, strict=True)]
    spans = dict(ChineseWords().spans(text, places))
    whole = {
        (start + begin, start + end)
        for start, paragraph in zip(starts, paragraphs, strict=True)
        for _, begin, end in rjieba.tokenize(paragraph)
    }
    for runs in spans.values():
        assert set(map(tuple, runs.tolist())) <= whole
        assert (runs[1:, 0] >= runs[:-1, 1]).all()


def test_chinese_spans_are_characters_of_the_entire_text():
    text = "北京。\n\n我在上海工作"
    spans = dict(ChineseWords().spans(text, [(0, 3), (5, len(text))]))
    assert [text[start:end] for start, end in spans["entity"].tolist()] == ["北京", "上海"]


def test_a_gazetteer_file_has_one_entry_a_line_with_an_optional_kind(tmp_path):
    file = tmp_path / "names.txt"
    file.write_bytes("\ufeffAda Lovelace\r\n\nnatural selection\tphrase\nAda Lovelace\tphrase\n".encode())
    assert read_gazetteer(str(file)) == {"Ada Lovelace": "entity", "natural selection": "phrase"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Ada\tentitty\n", r"line 1: 'entitty' .* Did you mean 'entity'"),
        (b"Ada\n\xff\xfe\n", r"line 2, byte 1: not UTF-8"),
        (b"\n\n", "has no entries"),
    ],
)
def test_a_bad_gazetteer_says_which_line_and_what_to_do(tmp_path, content, message):
    file = tmp_path / "names.txt"
    file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_gazetteer(str(file))


def test_a_missing_gazetteer_and_a_directory_are_named(tmp_path):
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(DataError, match=str(path)):
            read_gazetteer(str(path))


def test_a_changed_gazetteer_file_is_read_again(tmp_path):
    file = tmp_path / "names.txt"
    settings = KnowledgeSettings(gazetteer=str(file))
    for name in ("Ada", "Bob"):
        file.write_text(name)
        assert found(build_annotators(settings, "en")[0], "Ada Bob") == {"entity": [name]}


def test_chinese_words_are_marked_in_chinese_only():
    assert [type(a) for a in build_annotators(KnowledgeSettings(), "zh-CN")] == [ChineseWords]
    assert build_annotators(KnowledgeSettings(), "en") == []
    assert build_annotators(KnowledgeSettings(chinese=False), "zh") == []


def test_without_spacy_the_install_line_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(ConfigError, match=r"pip install -c constraints.txt -e '\.\[spacy\]'"):
        SpacySpans("en_core_web_sm")


def test_spacy_entities_and_noun_chunks_become_spans(monkeypatch):
    class Chunk(list):
        def __init__(self, words, at):
            super().__init__(words)
            self.start_char, self.end_char = at, at + len(" ".join(word.text for word in words))

        def __getitem__(self, key):
            rest = list.__getitem__(self, key)
            return Chunk(rest, self.start_char + len(self[0].text) + 1) if isinstance(key, slice) else rest

    def pipe(texts):
        for _ in texts:  # "the old house of Ada in 1815"
            words = [SimpleNamespace(text=text, is_stop=text == "the") for text in ("the", "old", "house")]
            ents = [
                SimpleNamespace(label_="PERSON", start_char=17, end_char=20),
                SimpleNamespace(label_="DATE", start_char=24, end_char=28),
            ]
            yield SimpleNamespace(ents=ents, noun_chunks=[Chunk(words, 0), Chunk(words[:2], 0)])

    pipeline = SimpleNamespace(pipe=pipe, pipe_names=["parser", "ner"])
    monkeypatch.setitem(sys.modules, "spacy", SimpleNamespace(load=lambda name: pipeline))
    text = "the old house of Ada in 1815"
    assert found(SpacySpans("any"), text) == {"entity": ["Ada"], "phrase": ["old house"]}


# tokens of "un happy cats. big dogs" as [un][happy] [cats][.] [big] [dogs], two sentences
POSITIONS = TokenPositions(
    starts=np.array([0, 2, 8, 12, 14, 18]),
    ends=np.array([2, 7, 12, 13, 17, 22]),
    sentences=np.array([0, 4, 6]),
    longest=3,
)


@pytest.mark.parametrize(
    ("spans", "runs", "drops"),
    [
        ([(0, 7)], [[0, 2]], {}),
        ([(7, 13)], [[2, 4]], {}),  # white space at an end is ignored
        ([(0, 5)], [], {CUTS_TOKEN: 1}),
        ([(9, 12)], [], {CUTS_TOKEN: 1}),
        ([(7, 8)], [], {NO_TOKEN: 1}),
        ([(8, 17)], [], {ACROSS: 1}),
        ([(0, 13)], [], {TOO_LONG: 1}),
        ([(8, 12), (0, 12), (0, 2)], [[0, 3]], {OVERLAPS: 2}),
        ([(18, 22), (14, 17), (14, 17)], [[4, 5], [5, 6]], {}),
    ],
)
def test_spans_cover_complete_tokens_of_one_sentence_or_are_dropped_and_counted(spans, runs, drops):
    counted = Counter()
    assert POSITIONS.runs(as_spans(spans), counted).tolist() == runs
    assert counted == drops


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 6))))
def test_leftmost_longest_keeps_a_maximal_set_without_overlaps(pairs):
    spans = as_spans([(start, start + length) for start, length in pairs])
    kept = spans[leftmost_longest(spans)]
    assert (kept[1:, 0] >= kept[:-1, 1]).all()
    for start, end in spans.tolist():
        assert any(start < other_end and other_start < end for other_start, other_end in kept.tolist())


def test_lines_of_a_gazetteer_may_end_in_cr(tmp_path) -> None:
    (tmp_path / "names.txt").write_bytes(b"Ada\rBlaise\tphrase\r")
    assert read_gazetteer(str(tmp_path / "names.txt")) == {"Ada": "entity", "Blaise": "phrase"}
