"""A tokeniser from a vocabulary and the files beside it, compared with transformers on the same folder."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ernie2.errors import TokenizerError
from ernie2.shards.tokenizer import SubwordTokenizer, load_tokenizer

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = [*"abcdefghijklmnopqrstuvwxyzABCNéüäß0123456789.,-[]"]
WORDS = ["the", "The", "café", "cafe", "für", "fur", "中", "国", "中国", "york", "new"]
TOKENS = [*SPECIALS, *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
PARTS = [
    "The ",
    "café ",
    "für",
    "中国",
    "New York ",
    "[ENT]",
    "tower-bridge",
    " a",
    "ÀB",
    "é",
    "\n",
    "\u00a0",
    "？",
    "-",
]


def folder(place: Path, tokens: list[str] | None = None, **files: Any) -> Path:
    """A folder with vocab.txt and JSON files: `tokenizer_config={…}` and so on."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens or TOKENS), encoding="utf-8")
    for name, content in files.items():
        (place / f"{name}.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return place


def ids(tokenizer: SubwordTokenizer, text: str) -> list[int]:
    return list(tokenizer.encode_batch([text])[0].ids)


def special_ids(tokenizer: SubwordTokenizer) -> tuple[int, ...]:
    """Ids of [PAD], [UNK], [CLS], [SEP] and [MASK]."""
    return tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id


def tokens(tokenizer: SubwordTokenizer, text: str) -> list[str]:
    return [tokenizer.tokens[identity] for identity in ids(tokenizer, text)]


COMPANIONS: list[dict[str, Any]] = [
    {},
    {"tokenizer_config": {"do_lower_case": False}},
    {"tokenizer_config": {"do_lower_case": True, "strip_accents": False}},
    {"tokenizer_config": {"do_lower_case": False, "strip_accents": True, "tokenize_chinese_chars": False}},
    {
        "tokenizer_config": {"do_lower_case": True},
        "added_tokens": {"[ENT]": len(TOKENS), "tower-bridge": len(TOKENS) + 1},
    },
    {
        "tokenizer_config": {"do_lower_case": True},
        "special_tokens_map": {"additional_special_tokens": ["[ENT]"]},
        "added_tokens": {"[ENT]": len(TOKENS)},
    },
    {"tokenizer_config": {"do_lower_case": False, "additional_special_tokens": ["[ENT]"]}},
    {
        "tokenizer_config": {
            "do_lower_case": True,
            "added_tokens_decoder": {
                str(len(TOKENS)): {"content": "York ", "normalized": False, "lstrip": True, "special": False}
            },
        }
    },
]


@pytest.fixture(scope="module", params=range(len(COMPANIONS)))
def both(request, tmp_path_factory) -> tuple[SubwordTokenizer, SubwordTokenizer, Any, Any]:
    """Our tokeniser; ours saved and loaded; that of transformers on the same folder, and on the one we saved."""
    transformers = pytest.importorskip("transformers")
    place = tmp_path_factory.mktemp("companions")
    given_files = COMPANIONS[request.param]
    ours = load_tokenizer(folder(place / "in", **given_files), lowercase=None if given_files else True)
    ours.save(place / "out")
    theirs = [transformers.BertTokenizer.from_pretrained(place / name) for name in ("in", "out")]
    return ours, load_tokenizer(place / "out"), theirs[0], theirs[1]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.lists(st.sampled_from(PARTS) | st.text(max_size=3), max_size=8).map("".join))
def test_any_text_has_the_ids_that_transformers_gives_it_before_and_after_it_is_written(both, text):
    if any(special in text for special in SPECIALS):
        return  # ordinary text in our tokeniser
    ours, again, theirs, after = both
    text = text.encode("utf-8", "ignore").decode()
    right = theirs(text, add_special_tokens=False)["input_ids"]
    assert ids(ours, text) == right
    assert ids(again, text) == right
    assert after(text, add_special_tokens=False)["input_ids"] == right
    assert again.fingerprint == ours.fingerprint
    assert pickle.loads(pickle.dumps(ours)).fingerprint == ours.fingerprint  # noqa: S301


def test_the_last_line_of_a_repeated_token_counts_and_ids_remain_line_numbers(tmp_path):
    place = folder(tmp_path, [*SPECIALS, "a", "$", "b", "$", "c"], tokenizer_config={"do_lower_case": True})
    tokenizer = load_tokenizer(place)
    assert ids(tokenizer, "a $ b c") == [5, 8, 7, 9]
    assert tokenizer.tokens[6] == "[unused0]"
    assert 6 not in tokenizer.ordinary_ids
    (note,) = tokenizer.notes
    assert note.endswith(
        "1 line repeats a token: '$' (lines 7 and 9). The last line counts; the other ids are never used."
    )
    transformers = pytest.importorskip("transformers")
    assert transformers.BertTokenizer.from_pretrained(place)("a $ b c").input_ids == [2, 5, 8, 7, 9, 3]
    tokenizer.save(tmp_path / "out")
    assert (tmp_path / "out" / "vocab.txt").read_text().split() == [*SPECIALS, "a", "[unused0]", "b", "$", "c"]


def test_empty_lines_keep_their_ids_and_those_at_the_end_are_ignored(tmp_path):
    place = folder(tmp_path, [*SPECIALS, "a", "", " ", "b", "", ""], tokenizer_config={"do_lower_case": True})
    tokenizer = load_tokenizer(place)
    assert (tokenizer.vocab_size, ids(tokenizer, "a b")) == (9, [5, 8])
    assert [tokenizer.tokens[identity] for identity in (6, 7)] == ["[unused0]", "[unused1]"]
    assert tokenizer.notes[0].endswith("2 empty lines, the first is line 7; the lines after it keep their ids.")


def test_an_ernie_vocabulary_may_have_a_token_twice_and_empty_lines(tmp_path):
    lines = [f"{token}\t{number}" for number, token in enumerate([*SPECIALS, "$", "的", "$"])]
    (tmp_path / "vocab.txt").write_text("\n".join([*lines[:6], "", *lines[6:]]) + "\n\n", encoding="utf-8")
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.vocab_size, ids(tokenizer, "$的")) == (8, [7, 6])


@pytest.mark.parametrize(
    ("words", "config", "lowercase", "cased", "note"),
    [
        (["हिन्दी", "में"], None, None, True, "2 of its 2 tokens with letters have capitals or combining marks, so case"),
        (
            ["Paris", "a", "b"],
            None,
            None,
            True,
            "1 of its 3 tokens with letters have capitals or combining marks, so case is preserved",
        ),
        (
            ["paris", "a", "中"],
            None,
            None,
            False,
            "0 of its 2 tokens with letters have capitals or combining marks, so text is lower-cased",
        ),
        (["Paris"], {"do_lower_case": True}, None, False, None),
        (["paris"], {"do_lower_case": False}, None, True, None),
        (
            ["Paris"],
            {"do_lower_case": False},
            True,
            False,
            "do_lower_case is false in the tokenizer_config.json beside",
        ),
        (
            ["Paris"],
            None,
            True,
            False,
            "have capitals or combining marks, which never occur in text lower-cased by tokenizer.lowercase",
        ),
        (["Paris"], None, False, True, None),
        (["paris"], {"do_lower_case": True}, True, False, None),
    ],
)
def test_case_follows_from_the_config_file_or_else_from_the_vocabulary(tmp_path, words, config, lowercase, cased, note):
    files = {} if config is None else {"tokenizer_config": config}
    tokenizer = load_tokenizer(folder(tmp_path, [*SPECIALS, *words], **files) / "vocab.txt", lowercase)
    assert tokenizer.normalizer["do_lower_case"] is not cased
    assert len(tokenizer.notes) == (note is not None)
    assert note is None or note in tokenizer.notes[0]


def test_tokenizer_config_has_priority_over_tokenizer_json_as_in_transformers(tmp_path):
    load_tokenizer(folder(tmp_path / "in")).save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "do_lower_case": True}))
    tokenizer = load_tokenizer(tmp_path)
    assert tokens(tokenizer, "The") == ["the"]
    assert (
        "its lowercase is false, but the tokenizer_config.json beside it says do_lower_case=true" in tokenizer.notes[0]
    )
    transformers = pytest.importorskip("transformers")
    assert transformers.AutoTokenizer.from_pretrained(tmp_path).tokenize("The") == ["the"]


def test_special_tokens_have_the_names_in_the_files(tmp_path):
    names = ["<blank>", "<unk>", "<s>", "</s>", "<hidden>"]
    special = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), names, strict=True))
    described = {"content": "<hidden>", "lstrip": True, "normalized": False, "rstrip": False, "single_word": False}
    place = folder(tmp_path / "in", [*names, "a"], special_tokens_map={**special, "mask_token": described})
    tokenizer = load_tokenizer(place)
    assert special_ids(tokenizer) == (0, 1, 2, 3, 4)
    assert tokens(tokenizer, "a z") == ["a", "<unk>"]
    tokenizer.save(tmp_path / "out")
    assert json.loads((tmp_path / "out/tokenizer_config.json").read_text())["mask_token"] == "<hidden>"


def test_an_added_token_far_behind_the_vocabulary_keeps_its_id(tmp_path):
    place = folder(
        tmp_path, [*SPECIALS, "a"], added_tokens={"[E1]": 9}, special_tokens_map={"additional_special_tokens": ["[E1]"]}
    )
    tokenizer = load_tokenizer(place)
    assert (tokenizer.vocab_size, ids(tokenizer, "a [E1] a")) == (10, [5, 9, 5])
    assert 9 in tokenizer.special_ids
    assert 9 not in tokenizer.ordinary_ids


def test_keys_of_tokenizer_config_are_written_back_except_paths(tmp_path):
    config = {"do_lower_case": True, "never_split": ["x"], "model_max_length": 96, "name_or_path": "/home/a",
              "auto_map": {"AutoTokenizer": ["evil.Runs", None]}, "tokenizer_class": "ErnieTokenizer"}  # fmt: skip
    tokenizer = load_tokenizer(folder(tmp_path / "in", tokenizer_config=config))
    tokenizer.save(tmp_path / "out", max_length=512)
    written = json.loads((tmp_path / "out/tokenizer_config.json").read_text())
    assert (written["never_split"], written["model_max_length"], written["tokenizer_class"]) == (
        ["x"],
        96,
        "BertTokenizer",
    )
    assert not {"name_or_path", "auto_map"} & set(written)


@pytest.mark.parametrize(("known", "written"), [(None, 128), (10**30, 128), (1e30, 128), (512, 128), (64, 64)])
def test_model_max_length_is_the_limit_of_the_encoder(tmp_path, known, written):
    config = {"do_lower_case": True} | ({} if known is None else {"model_max_length": known})
    load_tokenizer(folder(tmp_path / "in", tokenizer_config=config)).save(tmp_path / "out", max_length=128)
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert theirs.model_max_length == written
    assert len(theirs("a " * 600, truncation=True).input_ids) == written


def test_a_tokeniser_of_other_rules_than_berts_is_not_written_as_berts(tmp_path):
    described = json.loads(load_tokenizer(folder(tmp_path / "in"))._tokenizer.to_str())
    described["pre_tokenizer"] = {"type": "WhitespaceSplit"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    tokenizer = load_tokenizer(tmp_path / "tokenizer.json")
    tokenizer.save(tmp_path / "out")
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in ("the a.b", "a-b"):
        assert theirs(text, add_special_tokens=False).input_ids == ids(tokenizer, text)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tokenizer_config": {"do_lower_case": "false"}}, "do_lower_case is 'false'; set it to true, false or null"),
        ({"tokenizer_config": []}, r"tokenizer_config.json beside .* is not a JSON object"),
        ({"added_tokens": {"x": "seven"}}, r"the id 'seven' of 'x' is invalid"),
        ({"added_tokens": {"ö": 5}}, "the added token 'ö' has the id 5, which is that of 'the'"),
        ({"added_tokens": {"ö": 10**6}}, "the largest id is 999999, but there are only"),
        ({"tokenizer_config": {"added_tokens_decoder": {"7": {}}}}, "the entry '7' of added_tokens_decoder is invalid"),
    ],
)
def test_invalid_files_beside_a_vocabulary_are_refused(tmp_path, files, message):
    with pytest.raises(TokenizerError, match=message):
        load_tokenizer(folder(tmp_path, **files))


def test_truncated_json_beside_a_vocabulary_is_refused(tmp_path):
    (folder(tmp_path) / "tokenizer_config.json").write_text('{"do_lower_case": fal')
    with pytest.raises(TokenizerError, match=r"tokenizer_config.json beside .* is not valid JSON"):
        load_tokenizer(tmp_path / "vocab.txt")


def test_a_sentencepiece_vocabulary_is_refused_by_name(tmp_path):
    with pytest.raises(
        TokenizerError, match="3 of 9 tokens begin with ▁, so this is the vocabulary of a SentencePiece model"
    ):
        load_tokenizer(folder(tmp_path, [*SPECIALS, "▁the", "▁a", "▁", "b"]))


def test_a_class_with_other_rules_is_named(tmp_path):
    tokenizer = load_tokenizer(
        folder(tmp_path, tokenizer_config={"do_lower_case": False, "tokenizer_class": "BertJapaneseTokenizer"})
    )
    assert "names BertJapaneseTokenizer, but the vocabulary is read by BERT's rules" in tokenizer.notes[0]


def test_ernie_3_and_the_vocabularies_of_bert_are_read(tmp_path):
    data = Path(os.environ.get("ERNIE2_SHARED_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
    file = data / "zh/vocab/ernie3_zh_vocab.txt"
    if not file.is_file():
        pytest.skip("no released vocabulary here")
    tokenizer = load_tokenizer(file)
    assert tokenizer.vocab_size == 39980
    assert tokenizer.normalizer["do_lower_case"] is True
    assert "'$' (lines" in tokenizer.notes[0]


def spoil(kind: str, described: dict[str, Any]) -> str:
    vocabulary = described["model"]["vocab"]
    if kind == "same id":
        vocabulary["the"] = vocabulary["york"]
    elif kind == "far id":
        vocabulary["the"] = 4_000_000_000
    elif kind == "BPE":
        described["model"] = {"type": "BPE", "vocab": vocabulary, "merges": [], "unk_token": "[UNK]"}
    return json.dumps(described)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("same id", "is damaged: '(the|york)' and '(the|york)' have the id"),
        ("far id", "is damaged: its largest id is 4,000,000,000, with"),
        ("BPE", r"is a BPE tokeniser, but the tokenizer_config\.json beside it names a BERT tokeniser"),
    ],
)
def test_a_damaged_tokenizer_json_is_refused(tmp_path, kind, message):
    load_tokenizer(folder(tmp_path)).save(tmp_path / "saved")
    file = tmp_path / "saved/tokenizer.json"
    file.write_text(spoil(kind, json.loads(file.read_text())))
    with pytest.raises(TokenizerError, match=message):
        load_tokenizer(file)


@pytest.mark.parametrize("text", ["null", "{}", "<html>", '{"a": ' * 100_000, "[" * 100_000])
def test_an_invalid_tokenizer_json_is_not_read_as_a_list_of_tokens(tmp_path, text):
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(TokenizerError, match="is not a tokeniser file of the `tokenizers` library"):
        load_tokenizer(tmp_path / "tokenizer.json")
