"""Languages are ISO 639 codes; other input gets a suggestion."""

from __future__ import annotations

import pytest

import ernie2
from ernie2.config.languages import check_language
from ernie2.errors import ConfigError
from ernie2.runs.recipes import load_recipe


@pytest.mark.parametrize(
    ("given", "code"),
    [("zh", "zh"), ("ZH", "zh"), ("zh-CN", "zh-CN"), ("pt_BR", "pt_BR"), ("yue", "yue"), ("zh-Hant-TW", "zh-Hant-TW")],
)
def test_codes_may_have_a_script_and_a_region(given, code):
    assert check_language(given) == code
    assert load_recipe("demo-en", [f"corpora.books.language={given}"]).corpora["books"].language == code


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("chinese", "zh"),
        ("English", "en"),
        ("chinse", "zh"),
        ("Simplified Chinese", "zh"),
        ("english (US)", "en"),
        ("zho", "zh"),
        ("cmn", "zh"),
        ("eng", "en"),
        ("cn", "zh"),
        ("jp", "ja"),
        ("中文", "zh"),
    ],
)
def test_names_and_other_codes_are_refused_with_the_code_that_is_meant(given, meant):
    with pytest.raises(ConfigError, match=rf"is not an ISO 639 code; use '{meant}'"):
        check_language(given)
    with pytest.raises(ConfigError, match=rf"corpora\.books\.language: .*; use '{meant}'"):
        load_recipe("demo-en", [f"corpora.books.language={given}"])


@pytest.mark.parametrize("given", ["xx", "", "e", "en]\nlicence: mit", "en, de", "a" * 1_000, "🙂"])
def test_what_is_no_language_at_all_is_refused(given):
    with pytest.raises(ConfigError, match="is not an ISO 639 code"):
        check_language(given)


def test_commands_with_a_language_check_it_before_any_work(tmp_path):
    for attempt in (
        lambda: ernie2.demo("chinese", tmp_path / "demo"),
        lambda: ernie2.mine_discourse("nowhere.txt", tmp_path / "pairs.tsv", "chinese"),
    ):
        with pytest.raises(ConfigError, match="use 'zh'"):
            attempt()
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match=r"path: the path x+… is too long"):
        ernie2.mine_discourse("x" * 300, tmp_path / "pairs.tsv")


@pytest.mark.parametrize("key", ["corpora.books.language", "corpora.books.licence", "about"])
def test_texts_that_reach_the_model_card_hold_no_control_characters(key):
    with pytest.raises(ConfigError, match=key.replace(".", r"\.")):
        load_recipe("demo-en", [f'{key}="a\\e[31mb"'])


def test_a_licence_is_one_line_and_an_account_may_be_several():
    with pytest.raises(ConfigError, match=r"corpora\.books\.licence: the text contains a control character, U\+000A"):
        load_recipe("demo-en", ['corpora.books.licence="MIT\\nlicense: other"'])
    recipe = load_recipe("demo-en", ['corpora.books.licence=" MIT\\n"', 'about="one\\ntwo"'])
    assert (recipe.corpora["books"].licence, recipe.about) == ("MIT", "one\ntwo")
