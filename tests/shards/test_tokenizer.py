from __future__ import annotations

import errno
import gc
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from ernie2.errors import StorageError, TokenizerError
from ernie2.shards.tokenizer import SubwordTokenizer, load_tokenizer, token_columns, train_tokenizer

SHARED = Path(os.environ.get("ERNIE2_SHARED_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TOKENS = [
    *SPECIALS,
    "[unused7]",
    "new",
    "york",
    "##er",
    "##s",
    "cafe",
    "中",
    "文",
    "don",
    "'",
    "t",
    "[",
    "]",
    "mask",
    "a",
]
HARD = [
    "Don't stop: it's 3.5% — naïve café, Ångström, İstanbul, Straße, ﬁne.",
    "中文和English混排，２０２０年。「引号」……",
    "emoji 😀👩‍👩‍👧 and 𝔸𝔹 flags 🇩🇪",
    "tabs\tand\nnew\r\nlines \x00 zero \ufffd width\u200bspace\u3000wide",
    "x" * 101 + " " + "y" * 100,
    "हिन्दी العربية עִבְרִית ไทย 한국어 日本語カタカナ",
    "U.S.-based (co-op) e-mail@example.com http://a.b/c?d=e#f",
    "",
    "   ",
]


def shared(name: str) -> Path:
    path = SHARED / name
    if not path.is_file():
        pytest.skip(f"{name} is not here")
    return path


@pytest.fixture
def tokenizer(tmp_path) -> SubwordTokenizer:
    (tmp_path / "vocab.txt").write_text("\n".join(TOKENS), encoding="utf-8")
    return load_tokenizer(tmp_path / "vocab.txt", lowercase=True)


def special_ids(tokenizer: SubwordTokenizer) -> tuple[int, ...]:
    """Ids of [PAD], [UNK], [CLS], [SEP] and [MASK]."""
    return tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id


def tokens(tokenizer: SubwordTokenizer, text: str) -> list[str]:
    (encoding,) = tokenizer.encode_batch([text])
    return [tokenizer.tokens[identity] for identity in encoding.ids]


def test_a_bert_vocabulary_gives_ids_by_line_and_berts_rules(tokenizer):
    assert special_ids(tokenizer) == (0, 1, 2, 3, 4)
    assert tokenizer.vocab_size == len(TOKENS) == 20
    assert tokenizer.special_ids == {0, 1, 2, 3, 4}
    assert tokenizer.ordinary_ids.tolist() == list(range(6, 20))
    assert np.flatnonzero(tokenizer.is_continuation).tolist() == [8, 9]
    assert tokens(tokenizer, "New\x00 Yorkers 中文CAFÉ don't") == [
        *("new", "york", "##er", "##s", "中", "文", "cafe", "don", "'", "t")
    ]
    assert tokenizer.decode([2, 6, 7, 8, 9, 3]) == "[CLS] new yorkers [SEP]"


def test_a_special_token_spelled_out_in_a_text_is_ordinary_text(tokenizer):
    assert tokens(tokenizer, "[MASK] a [SEP]") == ["[", "mask", "]", "a", "[", "[UNK]", "]"]
    assert tokens(pickle.loads(pickle.dumps(tokenizer)), "[MASK]") == ["[", "mask", "]"]  # noqa: S301


def test_a_word_of_more_than_a_hundred_characters_is_unknown(tokenizer):
    assert tokens(tokenizer, "a" * 101) == ["[UNK]"]


def test_offsets_are_characters_of_the_original_text(tokenizer):
    text = "😀 Cafe\u0301 CAFÉ 中文"
    flat = token_columns(tokenizer.encode_batch([text]))
    assert [text[a:b] for a, b in zip(flat.starts, flat.ends, strict=True)] == ["😀", "Cafe", "CAFÉ", "中", "文"]
    assert flat.ids.tolist() == [1, 10, 10, 11, 12]
    assert flat.word_starts.all()


def test_columns_of_several_texts_are_concatenated(tokenizer):
    flat = token_columns(tokenizer.encode_batch(["Yorkers a", "", "don't", "york"]))
    assert flat.ids.tolist() == [7, 8, 9, 19, 13, 14, 15, 7]
    assert flat.starts.tolist() == [0, 4, 6, 8, 0, 3, 4, 0]
    assert flat.ends.tolist() == [4, 6, 7, 9, 3, 4, 5, 4]
    assert flat.counts.tolist() == [4, 0, 3, 1]
    assert flat.word_starts.tolist() == [True, False, False, True, True, True, True, True]
    assert all(part.dtype == np.int32 for part in (flat.ids, flat.starts, flat.ends, flat.counts))
    assert gc.isenabled()
    nothing = token_columns([])
    assert nothing.ids.shape == nothing.word_starts.shape == (0,)
    assert token_columns(tokenizer.encode_batch(["a", ""])).word_starts.tolist() == [True]


def test_cased_follows_from_the_encoding_not_from_the_option(tmp_path):
    (tmp_path / "upper.txt").write_text("\n".join([*SPECIALS, "a", "A"]))
    (tmp_path / "digits.txt").write_text("\n".join([*SPECIALS, "1", "中"]), encoding="utf-8")
    assert load_tokenizer(tmp_path / "upper.txt", lowercase=False).cased
    assert not load_tokenizer(tmp_path / "upper.txt", lowercase=True).cased
    assert not load_tokenizer(tmp_path / "digits.txt", lowercase=False).cased


def test_an_ernie_vocabulary_gives_the_ids_it_names_and_gaps_become_placeholders(tmp_path):
    lines = ["[PAD]\t0", "[CLS]\t1", "[SEP]\t2", "[MASK]\t3", "，\t4", "[unused0]\t5", "的\t8", "[UNK]\t9"]
    (tmp_path / "vocab.txt").write_text("\r\n".join(lines) + "\n", encoding="utf-8")
    tokenizer = load_tokenizer(tmp_path / "vocab.txt", lowercase=True)
    assert special_ids(tokenizer) == (0, 9, 1, 2, 3)
    assert tokenizer.vocab_size == 10
    assert [tokenizer.tokens[identity] for identity in range(4, 10)] == [
        *("，", "[unused0]", "[unused1]", "[unused2]", "的", "[UNK]")
    ]
    assert tokenizer.ordinary_ids.tolist() == [4, 8]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"]), r"of 5 tokens has no \[MASK\] \(nor <mask>\); pre-"),
        ("a\nb", r"no \[PAD\] .*, no \[UNK\] .*, no \[CLS\] .*, no \[SEP\] .*, no \[MASK\]"),
        ("[PAD]\t0\n[UNK]\t0", r"line 2: the id 0 is also that of line 1"),
        ("[PAD]\t0\n[UNK]", r"line 2: '\[UNK\]' does not have the form token<TAB>id"),
        ("[PAD]\t0\n[UNK]\t999999", r"the largest id is 999999, but there are only 2 tokens"),
        (" \n", r"is empty"),
        ('{"model": 3}', r"is not a tokeniser file of the `tokenizers` library"),
    ],
)
def test_an_unusable_vocabulary_is_refused_with_the_reason(tmp_path, content, message):
    (tmp_path / "v.txt").write_text(content, encoding="utf-8")
    with pytest.raises(TokenizerError, match=message):
        load_tokenizer(tmp_path / "v.txt", lowercase=True)


def test_files_that_are_missing_or_not_utf8_are_named(tmp_path):
    with pytest.raises(TokenizerError, match=r"tokeniser file '.*vocab.txt' not found"):
        load_tokenizer(tmp_path / "vocab.txt")
    with pytest.raises(TokenizerError, match=r"has neither tokenizer.json nor vocab.txt"):
        load_tokenizer(tmp_path)
    (tmp_path / "v.txt").write_bytes("[PAD]\nä\n".encode("latin-1"))
    with pytest.raises(TokenizerError, match=r"v.txt, line 2: not UTF-8 \(byte 7 of the file\)"):
        load_tokenizer(tmp_path / "v.txt")


def test_a_saved_tokeniser_is_loaded_unchanged_also_in_another_process(tmp_path, tokenizer):
    tokenizer.save(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("tokenizer.json", "tokenizer_config.json", "vocab.txt")
    ]
    for other in (
        load_tokenizer(tmp_path / "out"),
        load_tokenizer(tmp_path / "out" / "tokenizer.json", lowercase=False),
        load_tokenizer(tmp_path / "out" / "vocab.txt", lowercase=True),
        pickle.loads(pickle.dumps(tokenizer)),  # noqa: S301
    ):
        assert other.fingerprint == tokenizer.fingerprint
    assert load_tokenizer(tmp_path / "out" / "vocab.txt", lowercase=False).fingerprint != tokenizer.fingerprint


def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path, monkeypatch, tokenizer):
    tokenizer.save(tmp_path)
    before = (tmp_path / "tokenizer.json").read_bytes()

    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="No space left on device"):
        tokenizer.save(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == before


def test_transformers_reads_what_is_saved(tmp_path, tokenizer):
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path / "out")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    ours = [encoding.ids for encoding in tokenizer.encode_batch(["New Yorkers", "CAFÉ"])]
    assert theirs(["New Yorkers", "CAFÉ"], add_special_tokens=False)["input_ids"] == ours
    assert theirs("a").input_ids == [2, 19, 3]
    assert (theirs.mask_token_id, theirs.pad_token_id, theirs.unk_token_id) == (4, 0, 1)


@pytest.mark.parametrize("kind", ["bytes", "unigram"])
def test_other_models_can_be_used_if_they_have_the_special_tokens(tmp_path, kind):
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    corpus = ["the cafe in New York", "a café in York"] * 20
    if kind == "bytes":
        library = Tokenizer(models.BPE())
        library.pre_tokenizer = pre_tokenizers.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=names,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    else:
        library = Tokenizer(models.Unigram())
        library.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=names, unk_token="<unk>", show_progress=False)
    library.train_from_iterator(corpus, trainer)
    library.enable_truncation(2)
    library.save(str(tmp_path / "t.json"))
    tokenizer = load_tokenizer(tmp_path / "t.json", lowercase=True)
    assert special_ids(tokenizer) == (1, 3, 0, 2, 4)
    assert tokenizer.cased
    flat = token_columns(tokenizer.encode_batch(["the café in York"]))
    assert len(flat.ids) > 2
    assert int(flat.ends[-1]) == len("the café in York")
    assert not tokenizer.is_continuation.any()
    tokenizer.save(tmp_path / "out")
    assert load_tokenizer(tmp_path / "out").fingerprint == tokenizer.fingerprint
    transformers = pytest.importorskip("transformers")
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out").mask_token_id == 4


def reference(vocabulary: Path, lowercase: bool, text: str) -> list[int]:
    """BERT's tokeniser of transformers in plain Python."""
    module = pytest.importorskip("transformers.models.bert_japanese.tokenization_bert_japanese")
    ids = {token: number for number, token in enumerate(vocabulary.read_text(encoding="utf-8").split("\n"))}
    words = module.BasicTokenizer(do_lower_case=lowercase, tokenize_chinese_chars=True).tokenize(text)
    cut = module.WordpieceTokenizer(vocab=ids, unk_token="[UNK]", max_input_chars_per_word=100)
    return [ids[piece] for word in words for piece in cut.tokenize(word)]


@pytest.mark.parametrize("text", HARD)
def test_hard_strings_agree_with_the_plain_python_bert_tokeniser(text):
    path = shared("en/vocab/bert_uncased_vocab.txt")
    (encoding,) = load_tokenizer(path, lowercase=True).encode_batch([text])
    assert encoding.ids == reference(path, True, text)


def test_the_real_bert_vocabulary_agrees_with_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    path = shared("en/vocab/bert_uncased_vocab.txt")
    tokenizer = load_tokenizer(path, lowercase=True)
    assert special_ids(tokenizer) == (0, 100, 101, 102, 103)
    assert tokenizer.vocab_size == 30522
    assert len(tokenizer.ordinary_ids) == 30522 - 5 - 994
    assert not tokenizer.cased
    (tmp_path / "vocab.txt").write_bytes(path.read_bytes())
    theirs = transformers.BertTokenizer.from_pretrained(tmp_path, do_lower_case=True)
    reference_output = theirs(HARD, add_special_tokens=False, return_offsets_mapping=True)
    for text, encoding, ids, offsets in zip(
        HARD,
        tokenizer.encode_batch(HARD),
        reference_output["input_ids"],
        reference_output["offset_mapping"],
        strict=True,
    ):
        assert encoding.ids == ids, text
        assert [tuple(pair) for pair in offsets] == encoding.offsets


def test_the_real_ernie_vocabulary_has_its_own_ids():
    tokenizer = load_tokenizer(shared("zh/vocab/ernie1_zh_vocab.txt"), lowercase=True)
    assert special_ids(tokenizer) == (0, 17963, 1, 2, 3)
    assert tokenizer.vocab_size == 17964
    assert tokens(tokenizer, "中国，hello") == ["中", "国", "，", "hello"]


CORPUS = ["The lazy dogs and the lazier dog jumped.", "Jumping dogs, lazy cats; naïve café 中文 中"] * 5


def test_a_trained_vocabulary_has_the_words_of_its_text():
    tokenizer = train_tokenizer(iter(CORPUS), 120, lowercase=True)
    assert [tokenizer.tokens[identity] for identity in range(5)] == SPECIALS
    assert tokenizer.vocab_size <= 120
    assert not tokenizer.cased
    assert tokens(tokenizer, "the LAZY dogs café 中文") == ["the", "lazy", "dogs", "cafe", "中", "文"]
    assert tokens(tokenizer, "дом") == ["[UNK]"]
    assert train_tokenizer(iter(CORPUS), 120, lowercase=False).cased


def test_a_vocabulary_never_exceeds_the_requested_size():
    text = "".join(chr(0x4E00 + i) for i in range(300)) + " ".join(f"{chr(97 + i)}{chr(122 - i)}" for i in range(26))
    for size in (64, 100, 400):
        assert train_tokenizer(iter([text, text]), size, lowercase=True).vocab_size <= size


def test_training_is_the_same_in_every_process():
    script = (
        "from ernie2.shards.tokenizer import train_tokenizer as train;"
        "texts = [''.join(chr(97 + i * j % 7 + j % 5) for j in range(i % 9)) for i in range(3000)];"
        "print(train((' '.join(texts[i:i + 50]) for i in range(0, 3000, 50)), 200, True).fingerprint)"
    )
    import ernie2.errors

    source = str(Path(ernie2.errors.__file__).parents[1])
    fingerprints = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONPATH": source, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(fingerprints) == 1


def test_training_on_nothing_is_an_error():
    with pytest.raises(TokenizerError, match="has no words"):
        train_tokenizer(iter([" ", ""]), 100, lowercase=True)


SMALL = train_tokenizer(iter(CORPUS), 120, lowercase=True)


@settings(deadline=None)
@given(texts=st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40), max_size=4))
def test_tokens_are_in_order_inside_their_text(texts):
    flat = token_columns(SMALL.encode_batch(texts))
    bounds = np.concatenate([[0], np.cumsum(flat.counts)])
    assert bounds[-1] == len(flat.ids)
    for text, first, last in zip(texts, bounds[:-1], bounds[1:], strict=True):
        starts, ends = flat.starts[first:last], flat.ends[first:last]
        assert (starts < ends).all()
        assert (starts[1:] >= starts[:-1]).all()
        assert (ends <= len(text)).all()
        if last > first:
            assert flat.word_starts[first]
    assert not set(flat.ids.tolist()) & (SMALL.special_ids - {SMALL.unk_id})


def test_the_saved_configuration_names_the_special_tokens(tmp_path, tokenizer):
    tokenizer.save(tmp_path / "out")
    config = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert config["do_lower_case"] is True
    assert config["tokenizer_class"] == "BertTokenizer"
    assert [config[f"{role}_token"] for role in ("pad", "unk", "cls", "sep", "mask")] == SPECIALS
