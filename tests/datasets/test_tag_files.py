"""CoNLL files: sentences between empty lines, skipped lines, and files that may also be tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from ernie2.datasets.tag_files import is_tag_file, read_tag_file
from ernie2.datasets.user_data import load_user_data
from ernie2.errors import DataError

PLAIN = "Li B-PER\nBai I-PER\nleft O\n\nDu B-PER\n. O\n"
SENTENCES = [["Li", "Bai", "left"], ["Du", "."]]
TAGS = [["B-PER", "I-PER", "O"], ["B-PER", "O"]]


def write(folder: Path, content: str, name: str = "x.conll") -> str:
    (folder / name).write_text(content, encoding="utf-8")
    return str(folder / name)


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        PLAIN.replace(" ", "\t"),
        PLAIN.replace(" ", "  ").replace("\n\n", "\n \t\n\n"),
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace(" ", " NNP x "),
        PLAIN.rstrip("\n"),
    ],
)
def test_a_sentence_ends_at_an_empty_line_and_the_tag_is_in_the_last_column(tmp_path: Path, content: str) -> None:
    rows, notes = read_tag_file(write(tmp_path, content), "text", "label")
    assert [row.cells for row in rows] == [{"text": a, "label": b} for a, b in zip(SENTENCES, TAGS, strict=True)]
    assert rows[0].place.endswith("x.conll, lines 1 to 3")
    assert notes == []


def test_document_marks_comments_and_a_header_are_skipped_and_reported(tmp_path: Path) -> None:
    content = "-DOCSTART- -X- O\n\n# sent_id = 1\nLi NN B-PER\n# NN O\n\n# CD O\nDu NN B-PER\n"
    rows, notes = read_tag_file(write(tmp_path, content), "text", "label")
    assert [row.cells["text"] for row in rows] == [["Li", "#"], ["#", "Du"]]  # a # with a tag is a token
    assert [note.partition(": ")[2] for note in notes] == ["1 -DOCSTART- lines left out", "1 comment lines left out"]
    header = "word\tpos\tner\n" + PLAIN.replace(" ", "\tNN\t")
    rows, notes = read_tag_file(write(tmp_path, header), "text", "label")
    assert [row.cells["text"] for row in rows] == SENTENCES
    assert notes[0].endswith("x.conll, line 1: a header line (word, pos, ner), left out")
    wrong = "Li X-PER\n" + PLAIN  # a wrong tag in the first line does not make it a header
    assert read_tag_file(write(tmp_path, wrong), "text", "label")[0][0].cells["label"][0] == "X-PER"


@pytest.mark.parametrize(
    ("content", "tokens", "comments"),
    [
        ("# SYM\n1 CD\n\nno DT\n# SYM\n", [["#", "1"], ["no", "#"]], 0),
        ("no DT\n# SYM\n\n# SYM\n1 CD\n", [["no", "#"], ["#", "1"]], 0),
        ("# newdoc\nno DT\n\n# SYM\n1 CD\n", [["no"], ["1"]], 2),  # no other line has the tag SYM
        ("# text = SYM\n# NN SYM O\n1 CD = O\n+ SYM = O\n# SYM # O\n", [["#", "1", "+", "#"]], 1),
        ("# SYM a #\nb SYM c d\n", [["#", "b"]], 0),
        ("# O\na\tB-X\n\n#\tO\nb\tO\n", [["a"], ["#", "b"]], 1),
        ("#tag\nis\n\n# a comment\n#\n1\n", [["#tag", "is"], ["#", "1"]], 1),
    ],
)
def test_a_sentence_may_begin_with_a_hash_that_has_a_tag(
    tmp_path: Path, content: str, tokens: list[list[str]], comments: int
) -> None:
    rows, notes = read_tag_file(write(tmp_path, content), "text", "label")
    assert [row.cells["text"] for row in rows] == tokens
    assert [note.partition(": ")[2] for note in notes] == [f"{comments} comment lines left out"] * (comments > 0)


def test_columns_are_named_by_the_header_or_by_number(tmp_path: Path) -> None:
    header = write(tmp_path, "id\tword\tner\tnote\n1\tLi\tB-PER\tx\n2\tleft\tO\ty\n")
    assert read_tag_file(header, "word", "ner")[0][0].cells == {"word": ["Li", "left"], "ner": ["B-PER", "O"]}
    conllu = "1-2\tvom\t_\n1\tvon\tADP\n2\tdem\tDET\n2.1\tx\t_\n"
    rows, notes = read_tag_file(write(tmp_path, conllu), "2", "3")
    assert rows[0].cells == {"2": ["von", "dem"], "3": ["ADP", "DET"]}
    assert "2 lines of CoNLL-U that are no words (1-2, 1.1) left out" in notes[0]
    for text, label, message in (
        ("text", "label", "line 1: the first column numbers the tokens"),
        ("token", "label", "--text token: there is no such column. There is no header line; use a number, 1 to 3"),
        ("2", "4", "--label 4: there is no such column"),
        ("3", "label", "token and tag are both in column 3"),
    ):
        with pytest.raises(DataError, match=message):
            read_tag_file(write(tmp_path, conllu), text, label)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Li B-PER\nBai\n", "line 2: 1 columns, but line 1 has 2"),
        ("Li\tB-PER\n\tO\n", "line 2: column 1 is empty"),
        ("Li\tB-PER\nBai\t\n", "line 2: column 2 is empty"),
        ("\n\n", "the file has no tokens"),
    ],
)
def test_faults_are_named_with_their_line(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_tag_file(write(tmp_path, content), "text", "label")


def test_txt_and_tsv_are_recognised_by_their_lines(tmp_path: Path) -> None:
    for name in ("x.txt", "x.tsv"):
        assert is_tag_file(write(tmp_path, PLAIN, name))
        assert is_tag_file(write(tmp_path, "text\tlabel\n" + PLAIN.replace(" ", "\t"), name))
        assert is_tag_file(write(tmp_path, "a NN\n\nb VB\n", name), tagging=True)
        assert not is_tag_file(write(tmp_path, PLAIN, name), tagging=False)
        assert not is_tag_file(write(tmp_path, "text\tlabel\na film\tgood\n\nno\tbad\n", name))
        assert not is_tag_file(write(tmp_path, "text\tlabel\nshirt\tS\nhat\tM\n", name))
    assert not is_tag_file(write(tmp_path, PLAIN, "x.csv"))
    assert is_tag_file(write(tmp_path, "a NN\n", "x.conll"))


def test_what_may_be_a_table_or_tags_is_refused_until_the_user_says(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"one token per line.* Use --head tagging or --head classification, or rename it to .con"
    ):
        is_tag_file(write(tmp_path, "a\tgood\n\nb\tbad\n", "x.tsv"))
    with pytest.raises(DataError, match=r"every line is one token and a tag, but no empty line separates sentences"):
        is_tag_file(write(tmp_path, "text\tlabel\nLi\tB-PER\nleft\tO\n", "x.tsv"))


def test_a_conll_file_trains_as_sentences(tmp_path: Path) -> None:
    file = write(tmp_path, "-DOCSTART- O\n\n" + PLAIN, "x.txt")
    bare = write(tmp_path, "Li\nleft\n\nDu\n", "bare.conll")
    data = load_user_data(file, file, bare, text="text", label="label")
    assert (data.head, data.scheme, data.metrics) == ("tagging", "IOB2", ("entity_f1", "token_accuracy"))
    assert [example.tokens for example in data.splits["train"].examples] == [tuple(one) for one in SENTENCES]
    assert [example.label for example in data.splits["train"].examples] == [tuple(one) for one in TAGS]
    assert data.splits["train"].notes[0].endswith("x.txt: 1 -DOCSTART- lines left out")
    assert [(example.tokens, example.label) for example in data.splits["test"].examples] == [
        (("Li", "left"), None),
        (("Du",), None),
    ]
    mixed = write(tmp_path, PLAIN + "\nLi M-PER\n", "mixed.conll")
    with pytest.raises(DataError, match=r"mixed.conll, line 8: the tag 'M-PER' and the prefixes B, I"):
        load_user_data(mixed, file, text="text", label="label")
