"""Our masking units compared with those of ERNIE 1.0 by the benchmark script, on synthetic and real instances."""

from __future__ import annotations

import gzip
import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from ernie2.shards.tokenizer import load_tokenizer
from ernie2.tasks.building import vocabulary_of
from ernie2.tasks.knowledge_masking import KnowledgeMasking

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("ERNIE2_SHARED_DATA", ROOT.parent / "shared" / "data"))
REAL = SHARED / "zh" / "ernie1_demo_pretrain" / "demo_train_set.txt.gz"
VOCABULARY = "[PAD] [CLS] [SEP] [MASK] 北 京 大 学 在 中 国 。 出 版 社 有 i ##phone x 书 [UNK]"
TOKENS = VOCABULARY.split()
# (tokens, their labels)
INSTANCES = (
    ("[CLS] 北 京 大 学 在 中 国 。 [SEP] 出 版 社 有 书 [SEP]", "-1 0 1 0 1 0 0 1 0 -1 0 1 0 0 0 -1"),
    ("[CLS] [UNK] 中 国 有 i ##phone x [SEP] 书 [SEP]", "-1 0 0 1 0 0 1 0 -1 0 -1"),
)


def _script():
    spec = importlib.util.spec_from_file_location("masking_script", ROOT / "benchmarks" / "masking_against_ernie1.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


script = _script()


@pytest.fixture
def written(tmp_path):
    """The two instances as a file of the authors' form, and their vocabulary."""
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("".join(f"{token}\t{number}\n" for number, token in enumerate(TOKENS)), encoding="utf-8")
    lines = []
    for tokens, labels in INSTANCES:
        ids = " ".join(str(TOKENS.index(token)) for token in tokens.split())
        lines.append(f"{ids};{ids};{ids};{labels};0\n")
    file = tmp_path / "instances.txt.gz"
    file.write_bytes(gzip.compress("".join(lines).encode()))
    return file, load_tokenizer(vocabulary)


def units_of(text, begins):
    return [text.text[text.starts[a] : text.ends[b - 1]] for a, b in sorted(script.units(begins))]


def test_instances_become_text_again_with_the_position_of_each_token(written):
    file, tokenizer = written
    first, second = script.read_texts(file, tokenizer, 2)
    assert first.text == "北京大学在中国。\n\n出版社有书"
    assert second.text == "□中国有iphone x\n\n书"
    assert second.starts.tolist() == [0, 1, 2, 3, 4, 5, 11, 14]
    assert units_of(first, first.begins) == ["北京", "大学", "在", "中国", "。", "出版", "社", "有", "书"]
    assert second.texts.tolist() == [0, 7, 8]


def test_boundaries_and_units_are_counted_by_hand(written):
    file, tokenizer = written
    texts = list(script.read_texts(file, tokenizer, 2))
    vocabulary = vocabulary_of(tokenizer)
    sequences = [
        script.sequence_of(text, script.VARIANTS["ours"], vocabulary, tokenizer.is_continuation) for text in texts
    ]
    ours = [script.begins_of(sequence) for sequence in sequences]
    assert units_of(texts[0], ours[0]) == ["北京大学", "在", "中国", "。", "出版社", "有", "书"]
    assert units_of(texts[1], ours[1]) == ["□", "中国", "有", "iphone", "x", "书"]
    # places: 7 + 4 of the first; 5 of the second, for the one beside □ does not count
    counted = script.compare(texts, ours, tokenizer.unk_id)
    assert counted["places"] == 16
    assert (counted["precision"], counted["recall"]) == (8 / 8, 8 / 10)
    assert counted["unit_f1"] == 2 * 11 / (13 + 15)
    found = [d for text, begins in zip(texts, ours, strict=True) for d in script.disagreements(text, begins, 20)]
    assert [(d.kind, d.ours, d.theirs) for d in found] == [
        ("ours joins", "北京大学", "北京·大学"),
        ("ours joins", "出版社", "出版·社"),
    ]


def test_their_units_are_masked_completely(written):
    file, tokenizer = written
    vocabulary = vocabulary_of(tokenizer)
    (text,) = script.read_texts(file, tokenizer, 1)
    sequence = script.sequence_of(text, None, vocabulary, tokenizer.is_continuation)
    options = KnowledgeMasking.Options(mix={"all": 1.0}, mask_share=0.01)
    picked = {
        tuple(
            sequence.tokens[KnowledgeMasking(options, vocabulary).label(sequence, np.random.default_rng(s)).positions]
        )
        for s in range(200)
    }
    assert {"".join(tokenizer.tokens[token] for token in unit) for unit in picked} == {
        "北京", "大学", "在", "中国", "。", "出版", "社", "有", "书"
    }  # fmt: skip


@pytest.mark.skipif(not REAL.exists(), reason="the instances of ERNIE 1.0 are not at hand")
def test_our_boundaries_are_those_of_real_instances_and_the_share_masked_is_what_the_rule_implies():
    tokenizer = load_tokenizer(SHARED / "zh" / "vocab" / "ernie1_zh_vocab.txt")
    vocabulary = vocabulary_of(tokenizer)
    texts = list(script.read_texts(REAL, tokenizer, 300))
    sequences = [
        script.sequence_of(text, script.VARIANTS["ours"], vocabulary, tokenizer.is_continuation) for text in texts
    ]
    counted = script.compare(texts, [script.begins_of(sequence) for sequence in sequences], tokenizer.unk_id)
    assert counted["precision"] > 0.97
    assert counted["f1"] > 0.92
    assert counted["unit_f1"] > 0.79
    measured, implied, half = script.share_of_masked(
        KnowledgeMasking(KnowledgeMasking.Options(), vocabulary), sequences, 0
    )
    assert implied == pytest.approx(0.15, abs=0.001)
    assert abs(measured - implied) < 2 * half
