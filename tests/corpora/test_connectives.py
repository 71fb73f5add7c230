"""Discourse pairs: 60 sentences per language with every pair listed by hand, and properties of any text."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie2.config.data_settings import CorpusSettings
from ernie2.corpora.connectives import NO_CONNECTIVE, Pair, discourse_pairs, load_connectives, mine_discourse
from ernie2.corpora.documents import Document, Drops
from ernie2.corpora.sentences import sentence_bounds
from ernie2.errors import ConfigError, DataError
from ernie2.storage.listing import bundled_data_folder

SHARED = Path(os.environ.get("ERNIE2_SHARED_DATA", Path(__file__).parents[2].parent / "shared" / "data"))

# Paragraphs, each a tuple of sentences, with its pairs: (number of the first sentence, label, second one). A
# second sentence of None is the sentence of the text, unchanged.
Paragraph = tuple[tuple[str, ...], list[tuple[int, str, str | None]]]

ENGLISH: list[Paragraph] = [
    (
        (
            "The bridge was old and narrow.",
            "However, it carried trains every day.",
            "However hard he tried, the mayor found no money.",  # no comma after it: not this connective
            "He wrote to the king.",
            "The king, however, did not answer.",  # a comma after its first words
        ),
        [(0, "however", "It carried trains every day."), (2, NO_CONNECTIVE, None)],
    ),
    (
        (
            "Rain fell for a week.",
            "As a result, the river rose.",
            "As a result of the flood, two mills closed.",  # a preposition
            "In the end, the water went down.",
            "In the end of the valley a third mill stood.",
            "In fact it still stands.",
        ),
        [(0, "as_a_result", "The river rose."), (2, "in_the_end", "The water went down.")],
    ),
    (
        (
            "Copper conducts heat well.",
            "For example, a copper pan warms quickly.",
            "Silver is better, for example, but it costs more.",
            "On the other hand, silver does not rust.",
            "On the other hand he wore a glove.",  # his hand
        ),
        [
            (0, "for_example", "A copper pan warms quickly."),
            (2, "on_the_other_hand", "Silver does not rust."),
        ],
    ),
    (
        (
            "She knocked at the door.",
            "But nobody answered her.",
            "And, of course, the lamp was out.",
            "But for the moon she would have seen nothing.",  # a preposition, so nothing joins the two
            "And then, a dog barked.",  # two connectives
            "It barked twice and then, suddenly, stopped.",
        ),
        [
            (0, "but", "Nobody answered her."),
            (1, "and", "Of course, the lamp was out."),
            (2, NO_CONNECTIVE, None),
            (4, NO_CONNECTIVE, None),
        ],
    ),
    (
        (
            "The captain looked at the sky.",
            "“However, we must sail,” he said.",  # in somebody's mouth
            "The crew went aboard.",
            '"Therefore, we sail," said the mate.',
            "He shouted, “Cast off! Now, men, row!”",  # within one quotation
            "Meanwhile, the wind had turned.",
        ),
        [
            (1, NO_CONNECTIVE, None),
            (4, "meanwhile", "The wind had turned."),
        ],
    ),
    (
        (
            "This is the oldest map of the town.",
            "This, with its nine towers, is dear to all.",  # listed, and yet the subject
            "THEREFORE, the town must have been rich.",
            "Therefore the duke wanted it.",  # lacks its comma
            "Second World War bombs destroyed two towers.",
            "Thus, seven remain today.",
            "So seven towers are on the coat of arms.",
        ),
        [
            (1, "therefore", "The town must have been rich."),
            (4, "thus", "Seven remain today."),
        ],
    ),
    (
        (
            "Although it was late, they went on.",  # a clause of the same sentence; a listed word without a comma
            "They were tired.",
            "Also, they were hungry.",
            "Also tired was the mule.",
            "Here, the path forked.",
            "Then, to their left, a light shone.",
            "Because of this, they turned left.",
            "Because of this light they were saved.",
        ),
        [
            (0, NO_CONNECTIVE, None),
            (1, "also", "They were hungry."),
            (3, "here", "The path forked."),
            (4, "then", "To their left, a light shone."),
            (5, "because_of_this", "They turned left."),
        ],
    ),
    (
        ("Iron is cheap.", "Besides, it is strong.", "Indeed.", "Yet, it rusts in the rain."),
        [(0, "besides", "It is strong.")],
    ),
    (
        ("The list names three things.", "Salt was the first.", "Finally, pepper (from India) came."),
        [
            (0, NO_CONNECTIVE, None),
            (1, "finally", "Pepper (from India) came."),
        ],
    ),
    (("A paragraph ends here.", "Dr. Gray, however, wrote another."), []),
    (("However, this one begins anew.", "Its first sentence has no neighbour."), [(0, NO_CONNECTIVE, None)]),
    (
        (
            "Nonetheless, it stands.",
            "In other  words, spaces often vary.",
            "Howevers, if any, do not count.",
            "Next, an omelette was made.",
            "Well-known, too, was the cook.",
            "Instead,he ate bread.",
        ),
        [
            (0, "in_other_words", "Spaces often vary."),
            (2, "next", "An omelette was made."),
            (4, "instead", "He ate bread."),
        ],
    ),
]

CHINESE: list[Paragraph] = [
    (
        (
            "这座桥又老又窄。",
            "但是，每天都有火车经过。",
            "虽然桥很老，但是它很结实。",  # a pair of connectives inside one sentence
            "但愿它永远不倒。",  # a wish
            "但市长没有钱修桥。",
            "他给国王写信，但是没有回音。",  # in the middle of the sentence
        ),
        [
            (0, "但是", "每天都有火车经过。"),
            (1, NO_CONNECTIVE, None),
            (2, NO_CONNECTIVE, None),
            (3, "但", "市长没有钱修桥。"),
            (4, NO_CONNECTIVE, None),
        ],
    ),
    (
        (
            "大雨下了一个星期。",
            "因此河水上涨了。",
            "因为河水上涨，所以磨坊关门了。",
            "结果显示有两座磨坊受损。",  # the result shows: a noun
            "结果，村民都搬走了。",
            "最后一次洪水是在去年。",  # the last flood
            "最后，水退了下去。",
        ),
        [
            (0, "因此", "河水上涨了。"),
            (1, NO_CONNECTIVE, None),
            (3, "结果", "村民都搬走了。"),
            (5, "最后", "水退了下去。"),
        ],
    ),
    (
        (
            "铜的导热性很好。",
            "例如：铜锅热得很快。",
            "银更好，例如银壶。",
            "不过，银的价格很高。",
            "不过十块钱的银器也有。",  # only ten
            "另一方面，银不会生锈。",
            "同样的道理适用于黄金。",  # the same reason
        ),
        [
            (0, "例如", "铜锅热得很快。"),
            (2, "不过", "银的价格很高。"),
            (4, "另一方面", "银不会生锈。"),
            (5, NO_CONNECTIVE, None),
        ],
    ),
    (
        (
            "船长看了看天空。",
            "“但是我们必须出发。”",  # in somebody's mouth
            "水手们上了船。",
            "大副说：“出发吧！所以快划！”",  # within one quotation
            "与此同时，风向变了。",
            "「然而我們不怕。」",
        ),
        [(1, NO_CONNECTIVE, None), (2, NO_CONNECTIVE, None), (3, "与此同时", "风向变了。")],
    ),
    (
        (
            "他想去北京读书。",
            "尽管如此，他还是留下了。",
            "尽管他很想去，可是没有钱。",
            "于是他在村里教书。",
            "而且他很喜欢孩子。",
            "他不但教书，而且写书。",
            "后来他成了作家。",
            "后来的人都记得他。",  # those who came later
        ),
        [
            (0, "尽管如此", "他还是留下了。"),
            (1, NO_CONNECTIVE, None),
            (2, "于是", "他在村里教书。"),
            (3, "而且", "他很喜欢孩子。"),
            (4, NO_CONNECTIVE, None),
            (5, "后来", "他成了作家。"),
            (6, NO_CONNECTIVE, None),
        ],
    ),
    (
        (
            "但丁是意大利的诗人。",
            "但丁写了《神曲》。",  # Dante
            "然而他被赶出了家乡。",
            "然而，因此他写得更多。",  # two connectives
            "总之他很有名！",
            "可是，谁读过全书呢？",
            "一方面书很长，另一方面书很难。",  # a pair inside one sentence
            "换句话说，读者不多。",
        ),
        [
            (0, NO_CONNECTIVE, None),
            (1, "然而", "他被赶出了家乡。"),
            (3, "总之", "他很有名！"),
            (4, "可是", "谁读过全书呢？"),
            (5, NO_CONNECTIVE, None),
            (6, "换句话说", "读者不多。"),
        ],
    ),
    (
        (
            "學生們回到了家裡。",
            "於是老師也離開了。",  # traditional characters, the same label
            "後來，學校關門了。",
            "雖然學校關門，但是書還在。",
            "最終的決定還沒有公布。",
        ),
        [
            (0, "于是", "老師也離開了。"),
            (1, "后来", "學校關門了。"),
            (2, NO_CONNECTIVE, None),
            (3, NO_CONNECTIVE, None),
        ],
    ),
    (("铁很便宜。", "此外、铁很坚固。", "是的。", "所以铁用得很多。"), [(0, "此外", "铁很坚固。")]),
    (("这一段到此结束。",), []),
    (("不仅如此，新的一段开始了。", "它的第一句没有前一句。"), [(0, NO_CONNECTIVE, None)]),
    (
        (
            "苹果发布了新产品。",
            "其实iPhone并不便宜。",
            "再说，它很容易坏。",
            "再说一遍吧。",
            "同时代的产品更便宜。",
            "同时，它们更轻。",
        ),
        [
            (0, "其实", "iPhone并不便宜。"),
            (1, "再说", "它很容易坏。"),
            (4, "同时", "它们更轻。"),
        ],
    ),
]
BY_HAND = {"en": (ENGLISH, " "), "zh": (CHINESE, "")}


@pytest.mark.parametrize("language", BY_HAND)
def test_sixty_sentences_give_exactly_the_pairs_worked_out_by_hand(language: str) -> None:
    paragraphs, space = BY_HAND[language]
    assert sum(len(sentences) for sentences, _ in paragraphs) == 60
    expected = [
        Pair(" ".join(sentences[first].split()), sentences[first + 1] if second is None else second, label, "g")
        for sentences, pairs in paragraphs
        for first, label, second in pairs
    ]
    document = Document("d", "g", "\n\n".join(space.join(sentences) for sentences, _ in paragraphs))
    drops = Drops()
    assert list(discourse_pairs(document, language, drops)) == expected
    adjacent = sum(len(sentences) - 1 for sentences, _ in paragraphs)
    assert drops.counts.total() == adjacent - len(expected)


def test_the_lists_are_long_enough_and_without_duplicates() -> None:
    english, chinese = load_connectives("en").labels, load_connectives("zh-CN").labels
    assert len(set(english)) == len(english) == 174
    assert len(set(chinese)) == len(chinese) > 60
    assert english[0] == chinese[0] == NO_CONNECTIVE


def test_labels_have_no_commas() -> None:
    assert not [label for code in ("en", "zh") for label in load_connectives(code).labels if label[-1] in ",，"]
    assert {"however", "meanwhile", "in_fact"} <= {*load_connectives("en").labels}
    assert {"不过", "但是"} <= {*load_connectives("zh").labels}


@pytest.mark.parametrize(
    ("language", "opening", "reason"),
    [
        ("en", "In addition, the bridge carried trains.", "connective that is no label"),
        ("en", "In addition to the trains the bridge carried carts.", "connective that is no label"),
        ("en", "“In addition, we carry carts,” he said.", "connective that is no label"),
        ("en", "Strictly speaking, the bridge was a dam.", "comma after its first words"),
        ("en", "By the way, the bridge was a dam.", "comma after its first words"),
        ("zh", "对此市长没有回答问题。", "connective that is no label"),
        ("zh", "對此市長沒有回答問題。", "connective that is no label"),
        ("zh", "说实话，桥又老又窄。", "comma after its first words"),
    ],
)
def test_a_connective_that_is_no_label_makes_no_pair(language: str, opening: str, reason: str) -> None:
    before = "这座桥又老又窄。" if language == "zh" else "The bridge was old. "
    drops = Drops()
    assert list(discourse_pairs(Document("d", "d", before + opening), language, drops)) == []
    assert drops.as_dict() == {reason: 1}


def test_a_later_comma_or_one_in_a_number_is_not_an_early_comma() -> None:
    for opening in ("The bridge was old, and so was the mayor.", "Over 10,000 people came."):
        assert load_connectives("en").split_opening(opening) == (NO_CONNECTIVE, opening)


def test_every_listed_connective_is_recognised_with_a_comma_after_it() -> None:
    for language, rest, comma in (("en", "this is known to all.", ", "), ("zh", "这是大家都知道的。", "，")):
        connectives = load_connectives(language)
        for label in sorted({*connectives.labels[1:]} - {"this"}):
            words = label.replace("_", " ")
            found, left = connectives.split_opening(words[0].upper() + words[1:] + comma + rest)
            assert (found, left) == (label, rest[0].upper() + rest[1:])


def test_a_quotation_that_goes_beyond_its_sentence_makes_no_pair() -> None:
    text = "'You are late. But I don't mind.' It was the boys' house. But they'd all left. 'But why?' she asked him."
    drops = Drops()
    assert list(discourse_pairs(Document("d", "d", text), "en", drops)) == [
        Pair("It was the boys' house.", "They'd all left.", "but", "d")
    ]


def test_a_language_without_a_list_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'fr'.*Known: en, zh"):
        load_connectives("fr")


words = st.sampled_from(
    ["However,", "But", "Thus,", "In fact,", "however", "Rain", "fell", "on", "us,", "“Oh,", "home”", "We"]
)
sentences = st.lists(words, min_size=1, max_size=8).map(lambda parts: " ".join(parts) + ".")
texts = st.lists(st.lists(sentences, min_size=1, max_size=6).map(" ".join), min_size=1, max_size=4).map("\n\n".join)


@settings(deadline=None)
@given(texts)
def test_every_two_adjacent_sentences_give_a_pair_or_a_reason(text: str) -> None:
    document, drops = Document("d", "g", text), Drops()
    pairs = list(discourse_pairs(document, "en", drops))
    bounds = [sentence_bounds(text[start:end], "en") for start, end in document.paragraphs]
    assert len(pairs) + drops.counts.total() == sum(len(found) - 1 for found in bounds)
    for pair in pairs:
        assert pair.label in load_connectives("en").labels
        assert pair.sentence1 in text
        assert pair.sentence2[1:] in text
        assert pair.sentence2[0] == pair.sentence2[0].upper()
        found, reason = load_connectives("en").split_opening(pair.sentence2)
        unclear = pair.label != NO_CONNECTIVE and reason in (
            "connective that is no label",
            "comma after its first words",
        )
        assert found == NO_CONNECTIVE or unclear


# --- files --------------------------------------------------------------------------------------------------------


def write(path: Path, texts: list[str]) -> CorpusSettings:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return CorpusSettings(path=str(path))


def rows_of(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]


TEXTS = [f"Town {i} is very old. However, it has {i} walls. It lies by a river." for i in range(40)]


def test_pairs_are_written_in_the_order_of_the_text_with_the_document_as_group(tmp_path: Path) -> None:
    mined = mine_discourse(write(tmp_path / "a.jsonl", TEXTS[:2]), tmp_path / "out.tsv", 10)
    assert rows_of(tmp_path / "out.tsv") == [
        ["sentence1", "sentence2", "label", "group"],
        ["Town 0 is very old.", "It has 0 walls.", "however", "a#1"],
        ["However, it has 0 walls.", "It lies by a river.", "[no-conn]", "a#1"],
        ["Town 1 is very old.", "It has 1 walls.", "however", "a#2"],
        ["However, it has 1 walls.", "It lies by a river.", "[no-conn]", "a#2"],
    ]
    assert mined.labels == {"however": 2, "[no-conn]": 2}
    assert mined.drops.as_dict() == {}


def test_the_cap_keeps_the_same_pairs_whatever_the_order_of_the_text(tmp_path: Path) -> None:
    mined = mine_discourse(write(tmp_path / "a.jsonl", TEXTS), tmp_path / "a.tsv", 7)
    mine_discourse(write(tmp_path / "b.jsonl", TEXTS[::-1]), tmp_path / "b.tsv", 7)
    assert mined.labels == {"however": 7, "[no-conn]": 7}
    assert mined.drops.as_dict() == {"pairs over the cap of 7 per label": 66}
    first, second = ([row[:3] for row in rows_of(tmp_path / f"{name}.tsv")[1:]] for name in "ab")
    assert sorted(first) == sorted(second)
    kept = [int(row[0].split()[1]) for row in first if row[2] == "however"]
    assert kept == sorted(kept)
    assert kept[-1] > 20  # not the first ones


@pytest.mark.parametrize("most", [1, 5, 100])
def test_a_repeated_pair_is_written_once_at_any_cap(most: int, tmp_path: Path) -> None:
    once = mine_discourse(write(tmp_path / "a.jsonl", TEXTS), tmp_path / "a.tsv", most)
    thrice = mine_discourse(write(tmp_path / "b.jsonl", TEXTS * 3), tmp_path / "b.tsv", most)
    assert thrice.labels == once.labels
    assert sorted(row[:3] for row in rows_of(tmp_path / "b.tsv")) == sorted(
        row[:3] for row in rows_of(tmp_path / "a.tsv")
    )


def test_text_without_connectives_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    corpus = write(tmp_path / "a.jsonl", ["Nothing joins these. They stand alone."])
    with pytest.raises(DataError, match="no sentence of 1 documents opens with a connective"):
        mine_discourse(corpus, tmp_path / "out.tsv", 10)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_an_error_in_a_corpus_leaves_the_old_output(tmp_path: Path) -> None:
    corpus = write(tmp_path / "a.jsonl", TEXTS)
    (tmp_path / "out.tsv").write_text("before", encoding="utf-8")
    with open(tmp_path / "a.jsonl", "a", encoding="utf-8") as file:
        file.write('{"text": "cut')
    with pytest.raises(DataError, match="line 41"):
        mine_discourse(corpus, tmp_path / "out.tsv", 10)
    assert (tmp_path / "out.tsv").read_text(encoding="utf-8") == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "out.tsv"]


def test_lists_of_connectives_are_not_shipped_corpora() -> None:
    assert not any(entry.name.endswith(".txt") for entry in bundled_data_folder().iterdir())


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared data")
def test_real_text_gives_pairs_of_many_labels(tmp_path: Path) -> None:
    corpus = CorpusSettings(path=str(SHARED / "zh/corpus/zhwiki_sample.txt.gz"), language="zh")
    mined = mine_discourse(corpus, tmp_path / "zh.jsonl.gz", 50)
    assert len(mined.labels) > 60
    assert max(mined.labels.values()) == 50
