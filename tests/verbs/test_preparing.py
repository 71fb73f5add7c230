"""What `prepare` says at the end."""

from __future__ import annotations

import json

import ernie2


def test_documents_left_out_and_unknown_tokens_are_said_by_reason_and_number(tmp_path, capsys):
    texts = [
        "rain fell in town.",
        "rain fell in town.",
        "",
        "\u200b",
        "snow fell. rain fell.",
        "it rained in town. it snowed.",
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts * 2))
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "rain", "fell", "in", "town", ".", "snow", "it", "##ed"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    ernie2.prepare(
        {
            "name": "test",
            "run": str(tmp_path / "run"),
            "corpora": {"text": {"path": str(tmp_path / "in.jsonl"), "licence": "test", "language": "en"}},
            "tokenizer": {"file": str(tmp_path / "vocab.txt")},
            "knowledge": {"phrases": None},
            "shards": {"folder": str(tmp_path / "shards"), "heldout": 0, "min_heldout": 1},
            "tasks": {"knowledge_masking": {}},
        },
        workers=1,
    )
    shown = capsys.readouterr().out
    assert "vocab.txt: nothing beside it says do_lower_case; 0 of its 7 tokens with letters have capitals" in shown
    assert "text: 0.00 % of tokens are [UNK]; dropped: 6 duplicate, 2 empty text, 1 no tokens" in shown
