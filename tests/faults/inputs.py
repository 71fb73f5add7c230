"""Odd corpora and tables: as many documents and rows are read as there are, or what is wrong is said with its place."""

from __future__ import annotations

import json
import re

import numpy as np

from faults.outcome import Outcome, judge
from faults.workbench import FINETUNE, Workbench, documents, sentences

CORPUS, TABLE = "corpus", "table"
DOCUMENTS = 30


def odd_corpus(bench: Workbench, rng: np.random.Generator) -> Outcome:
    """Prepare thirty documents written in an odd way; thirty must be reported, or the oddity refused by file name."""
    folder = bench.case()
    texts = ["\n".join(one) for one in documents(DOCUMENTS, seed=int(rng.integers(1000)))]
    name, content, what, refused = _corpus(texts, rng)
    (folder / name).write_bytes(content)
    command = ("prepare", "recipe.yaml", f"corpora.words.path={name}", "--workers", 1)
    ended, _, _ = bench.ernie2(folder, *command)
    if (found := judge(CORPUS, what, ended)) is not None:
        return found
    if ended.code not in (0, 2):
        return Outcome(CORPUS, what, "silent", f"exit {ended.code}: {ended.output[-400:]}")
    if ended.code == 2 and (name not in ended.output or (folder / "shards" / "shards.json").exists()):
        return Outcome(CORPUS, what, "silent", f"refused without the file's name: {ended.output[-400:]}")
    if ended.code == 0:
        facts = json.loads((folder / "shards" / "shards.json").read_text())["corpora"]["words"]
        counted = json.dumps(facts) + ended.output
        got = sum(
            int(json.loads(p.read_text())["columns"]["split"]["shape"][0])
            for p in folder.glob("shards/words/*/shard.json")
        )
        if refused or (got != DOCUMENTS and not re.search(r"drop|duplicate|without", counted)):
            return Outcome(CORPUS, what, "silent", f"{got} documents of {DOCUMENTS}: {ended.output[-300:]}")
    return Outcome(CORPUS, what, "passed")


def odd_table(bench: Workbench, rng: np.random.Generator) -> Outcome:
    """Fine-tune on twenty-four rows written in an odd way; rows that are not used must be told, or refused by line."""
    folder = bench.case("shards", "done")
    name, content, what, expected = _table(rng)
    (folder / name).write_bytes(content)
    command = tuple(name if part == "train.tsv" else part for part in FINETUNE)
    ended, _, _ = bench.ernie2(folder, *command)
    if (found := judge(TABLE, what, ended)) is not None:
        return found
    if ended.code not in (0, 2):
        return Outcome(TABLE, what, "silent", f"exit {ended.code}: {ended.output[-400:]}")
    if expected == "refused" and ended.code == 0:
        return Outcome(TABLE, what, "silent", f"accepted: {ended.output[-500:]}")
    if expected == "two classes" and ended.code == 0:
        (config,) = folder.glob("tuned/*/seed-0/model/config.json")
        labels = sorted(json.loads(config.read_text())["id2label"].values())
        if labels != ["no", "yes"]:
            return Outcome(TABLE, what, "silent", f"classes {labels}: {ended.output[-500:]}")
    if ended.code == 2 and name not in ended.output:
        return Outcome(TABLE, what, "silent", f"refused without the file's name: {ended.output[-400:]}")
    return Outcome(TABLE, what, "passed")


def _corpus(texts: list[str], rng: np.random.Generator) -> tuple[str, bytes, str, bool]:
    """(file name, bytes, what is odd, whether it has to be refused)."""
    import zstandard

    txt = ("\n\n".join(texts) + "\n").encode()
    jsonl = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    at = int(rng.integers(len(txt)))
    line = int(rng.integers(DOCUMENTS))
    lines = jsonl.split(b"\n")
    odd = {
        "CRLF": ("odd.txt", txt.replace(b"\n", b"\r\n"), False),
        "CR alone": ("odd.txt", txt.replace(b"\n", b"\r"), False),
        "a mark": ("odd.txt", b"\xef\xbb\xbf" + txt, False),
        "UTF-16 with a mark": ("odd.txt", txt.decode().encode("utf-16"), True),
        "UTF-16 without a mark": ("odd.txt", txt.decode().encode("utf-16-le"), True),
        "latin-1": ("odd.txt", txt[:at] + "é".encode("latin-1") + txt[at:], True),
        "NULs": ("odd.txt", txt[:at] + bytes(20) + txt[at:], False),
        "no end of line": ("odd.txt", txt.rstrip(b"\n"), False),
        "blank lines": ("odd.txt", b"\n\n\n" + txt.replace(b"\n\n", b"\n \t\n\n\n"), False),
        "a long window": (
            "odd.txt.zst",
            zstandard.ZstdCompressor(compression_params=zstandard.ZstdCompressionParameters(window_log=27)).compress(
                txt
            ),
            False,
        ),
        "cut short": ("odd.txt.zst", zstandard.compress(txt)[: int(rng.integers(1, 200))], True),
        "two frames": (
            "odd.jsonl.zst",
            zstandard.compress(jsonl[: len(jsonl) // 2]) + zstandard.compress(jsonl[len(jsonl) // 2 :]),
            False,
        ),
        "half a surrogate": (
            "odd.jsonl",
            b"\n".join([*lines[:line], lines[line].replace(b'": "', b'": "\\ud800'), *lines[line + 1 :]]),
            True,
        ),
        "a broken line": ("odd.jsonl", b"\n".join([*lines[:line], lines[line][:-5], *lines[line + 1 :]]), True),
        "a null": ("odd.jsonl", b"\n".join([*lines[:line], b'{"text": null}', *lines[line + 1 :]]), True),
        "a number": ("odd.jsonl", b"\n".join([*lines[:line], b'{"text": 5}', *lines[line + 1 :]]), True),
        "deep JSON": ("odd.jsonl", b"\n".join([*lines[:line], b"[" * 100_000, *lines[line + 1 :]]), True),
        "another key": ("odd.jsonl", jsonl.replace(b'"text"', b'"Text"'), True),
        "a mark before JSON": ("odd.jsonl", b"\xef\xbb\xbf" + jsonl, False),
        "not gzip": ("odd.txt.gz", txt, True),
        "twice the same": ("odd.txt", txt + b"\n" + texts[line].encode() + b"\n", False),
        "nothing": ("odd.txt", b"", True),
        "a JSON array": ("odd.jsonl", json.dumps([{"text": text} for text in texts]).encode(), True),
    }
    what = sorted(odd)[int(rng.integers(len(odd)))]
    return (*odd[what][:2], what, odd[what][2])


def _table(rng: np.random.Generator) -> tuple[str, bytes, str, str]:
    """(file name, bytes, what is odd, "refused", "two classes" or "any")."""
    rows = [(text, ("no", "yes")[at % 2]) for at, text in enumerate(sentences(rng, 24))]
    at = int(rng.integers(24))
    tsv = "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows)
    csv = "text,label\n" + "".join(f"{text},{label}\n" for text, label in rows)
    objects = [{"text": text, "label": label} for text, label in rows]
    changed = [one | {} for one in objects]

    def jsonl(**values: object) -> bytes:
        changed[at] |= values
        return "".join(json.dumps(one) + "\n" for one in changed).encode()

    csv_lines = csv.splitlines()
    open_quote = "\n".join([*csv_lines[: at + 1], '"' + csv_lines[at + 1], *csv_lines[at + 2 :]]) + "\n"
    odd = {
        "an open quote": ("odd.csv", open_quote.encode(), "refused"),
        "NaN label": ("odd.jsonl", jsonl(label=float("nan")), "two classes"),
        "null label": ("odd.jsonl", jsonl(label=None), "two classes"),
        "NaN text": ("odd.jsonl", jsonl(text=float("nan")), "any"),
        "list text": ("odd.jsonl", jsonl(text=["a", "b"]), "any"),
        "label with a space": ("odd.tsv", tsv.replace("\tyes\n", "\tyes \n", 1).encode(), "two classes"),
        "a dash": ("odd.jsonl", jsonl(label="-"), "two classes"),
        "a cell too many": ("odd.tsv", tsv.replace("\tyes\n", "\tyes\textra\n", 1).encode(), "refused"),
        "a cell too few": ("odd.tsv", tsv.replace("\tyes\n", "\n", 1).encode(), "refused"),
        "CR alone": ("odd.tsv", tsv.replace("\n", "\r").encode(), "two classes"),
        "CRLF": ("odd.csv", csv.replace("\n", "\r\n").encode(), "two classes"),
        "a mark": ("odd.csv", b"\xef\xbb\xbf" + csv.encode(), "two classes"),
        "UTF-16": ("odd.tsv", tsv.encode("utf-16"), "any"),
        "latin-1": ("odd.tsv", tsv.encode()[:40] + b"\xe9" + tsv.encode()[40:], "refused"),
        "half a surrogate": ("odd.jsonl", jsonl(text="").replace(b'"text": ""', b'"text": "\\ud800"'), "refused"),
        "a header without the column": ("odd.tsv", tsv.replace("label", "class", 1).encode(), "refused"),
        "one class only": ("odd.tsv", tsv.replace("\tyes", "\tno").encode(), "any"),
        "nothing": ("odd.tsv", b"", "refused"),
        "a header alone": ("odd.tsv", b"text\tlabel\n", "refused"),
        "deep JSON": ("odd.jsonl", jsonl(text="x") + b"[" * 100_000 + b"\n", "refused"),
        "escape sequences": ("odd.jsonl", jsonl(label="no\x1b[31m"), "any"),
    }
    what = sorted(odd)[int(rng.integers(len(odd)))]
    return (*odd[what][:2], what, odd[what][2])  # type: ignore[return-value]
