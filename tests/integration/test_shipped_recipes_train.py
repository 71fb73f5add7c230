"""Every shipped recipe trains for 20 steps or more with 2 layers, on small synthetic corpora."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import pytest

import ernie2
from ernie2.config.recipe import shipped_recipes
from ernie2.runs.recipes import load_recipe
from ernie2.training.records import Records

SMALL = [
    "encoder.layers=2",
    "encoder.hidden=64",
    "encoder.heads=2",
    "encoder.position_rows=128",
    "batch.sequence_tokens=64",
    "batch.pack_tokens=128",
    "batch.batch_tokens=256",
    "shards.sentence_tokens=58",
    "shards.min_heldout=8",
    "stages.steps=8",
    "stages.max_epochs=1000",  # a few hundred tokens
    "tokenizer.train=400",
    "tokenizer.max_unknown=1",  # 400 tokens are too few for Chinese
    "train.warmup=null",
    "train.heldout_instances=8",
    "train.evaluate_every=0",
    "train.log_every=1",
    "train.precision=fp32",
    "knowledge.phrases.min_count=3",
]
WORDS = {
    "en": (("The miller", "Anna", "A fox", "Old Rome", "The tide"), ("saw", "left", "built", "sold"), "the {} {}", " "),
    "zh": (("磨坊主", "安娜", "狐狸", "罗马城", "潮水"), ("看见", "离开", "建造", "卖掉"), "{}{}", ""),
}
THINGS = {
    "en": ("red mill", "boat", "long road", "letter", "north gate"),
    "zh": ("红磨坊", "小船", "长路", "信件", "北门"),
}
ENDS = {"en": ".", "zh": "。"}


def sentence(language: str, number: int) -> str:
    """One of 500 different short sentences."""
    who, did, what, space = WORDS[language]
    thing = what.format(number // 100 + 1, THINGS[language][number % 5])
    parts = (who[number // 5 % 5], did[number // 25 % 4], thing)
    return space.join(parts) + ENDS[language]


def write_documents(file: Path, language: str, first: int, count: int = 60) -> None:
    """`count` documents of three paragraphs of four sentences; other numbers, from `first` on, give other documents."""
    rows = []
    for document in range(first, first + count):
        sentences = [sentence(language, (document * 37 + i * 13) % 500) for i in range(12)]
        paragraphs = [WORDS[language][3].join(sentences[at : at + 4]) for at in (0, 4, 8)]
        rows.append(json.dumps({"id": f"d{document}", "text": "\n\n".join(paragraphs)}, ensure_ascii=False))
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")


def write_pairs(file: Path, language: str, columns: Sequence[str], labels: Sequence[str], count: int = 200) -> None:
    """`count` labelled pairs, four of each group."""
    with file.open("w", encoding="utf-8", newline="") as out:
        table = csv.writer(out, delimiter="\t", lineterminator="\n")
        table.writerow([*columns, "label", "group"])
        for number, label in zip(range(count), cycle(labels), strict=False):
            a, b = sentence(language, number % 500), sentence(language, (number * 7 + 3) % 500)
            table.writerow([a, b, label, f"g{number // 4}"])


def on_small_corpora(name: str, folder: Path) -> list[str]:
    """Overrides that give recipe `name` corpora of our own; a shipped corpus stays."""
    overrides = [f"run={folder / 'run'}", f"shards.folder={folder / 'shards'}"]
    for number, (corpus, settings) in enumerate(load_recipe(name).corpora.items()):
        if settings.paths[0].startswith("package:"):
            continue
        if settings.pairs is None:
            file = folder / f"{corpus}.jsonl"
            write_documents(file, settings.language, 100 * number)
        else:
            file = folder / f"{corpus}.tsv"
            labels = ("0", "1", "2") if corpus == "relevance" else ("however", "so", "[no-conn]")
            write_pairs(file, settings.language, (settings.pairs.a, settings.pairs.b), labels)
        overrides.append(f"corpora.{corpus}.path={file}")
    return overrides


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_a_shipped_recipe_trains_20_steps_and_more_at_2_layers(name: str, tmp_path: Path) -> None:
    run = ernie2.pretrain(name, [*on_small_corpora(name, tmp_path), *SMALL], workers=1)
    lines = list(Records(run).read())
    steps = [line for line in lines if line["kind"] == "step"]
    assert steps[-1]["step"] >= 20
    tasks = set(load_recipe(name).tasks)
    assert set().union(*(line["loss"] for line in steps)) == tasks
    assert set([line for line in lines if line["kind"] == "heldout"][-1]["tasks"]) == tasks
    assert (run / "hf" / "config.json").is_file()
