"""Users' strings are escaped for terminals and Markdown."""

from __future__ import annotations

import json

import hypothesis.strategies as st
import pytest
from hypothesis import given

from ernie2.escaping import escape_markdown, json_line, markdown_table, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain words, 中文 and é — as they are\n\ttabs too", "plain words, 中文 and é — as they are\n\ttabs too"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("over\rwritten \x08\x07\x7f", r"over\x0dwritten \x08\x07\x7f"),
        ("C1 \x9b31m", r"C1 \x9b31m"),
        ("turned \u202egnp.exe", r"turned \u202egnp.exe"),
        ("half a pair \ud83d", r"half a pair \ud83d"),
        ("line \u2028 end", r"line \u2028 end"),
        ("👩\u200d💻 stays", "👩\u200d💻 stays"),
    ],
)
def test_what_steers_a_terminal_is_spelled_out(text, shown):
    assert printable(text) == shown


@given(st.text())
def test_control_characters_are_escaped_and_printable_ones_stay(text):
    shown = printable(text)
    assert not any(char < " " and char not in "\n\t" for char in shown)
    assert "\x9b" not in shown
    assert printable(shown) == shown


@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_a_line_of_json_has_the_same_value_without_control_characters(value):
    line = json_line(value)
    assert json.loads(line) == value
    assert printable(line) == line
    assert "\n" not in line


def test_a_line_of_json_is_readable_in_any_script():
    assert json_line({"text": "好\x9b"}) == '{"text": "好\\u009b"}'


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("knowledge_masking and 3.5", "knowledge_masking and 3.5"),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("a | b\n\n# heading", r"a \| b # heading"),
        ("# heading", r"\# heading"),
        ("### heading", r"##\# heading"),
        ("---", r"--\-"),
        ("- item", r"\- item"),
        ("1. item", r"1\. item"),
        ("+1.5 (95 % −3 to +6)", "+1.5 (95 % −3 to +6)"),
        ("[text](http://evil)", r"\[text\](http://evil)"),
        ("![x](y) `code` *bold* ~~no~~", r"!\[x\](y) \`code\` \*bold\* \~\~no\~\~"),
        ("_emphasis_ and __init__", r"\_emphasis\_ and \_\_init\_\_"),
        ("&lt; \x1b[0m", r"&amp;lt; \\x1b\[0m"),
        (3, "3"),
    ],
)
def test_text_in_markdown_is_one_line_without_markup(text, shown):
    assert escape_markdown(text) == shown


def test_cells_of_a_markdown_table_are_escaped() -> None:
    assert markdown_table(("a|b", "n"), [("x\ny", 3)]) == ["| a\\|b | n |", "| --- | --- |", "| x y | 3 |"]
