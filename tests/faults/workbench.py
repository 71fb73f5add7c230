"""What the cases start from: small corpora, shards, runs and a fine-tuned model, made once and copied for each case."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from faults.children import Ended, command, run
from faults.injection import Control, Fault

TIMES = {"seconds", "tokens_per_second", "sequences_per_second", "created", "finished", "sha256", "digest", "checksum"}
"""Keys of records that differ between two equal runs."""
NONE = Fault(0)


class Workbench:
    """A folder of templates, and the control block of the injected faults.

    `words.txt`, `recipe.yaml`: a corpus and a recipe for it; `shards`; `stopped`: a run with two checkpoints that was
    killed in the middle; `done`: the same run, finished; `tuned`: a model fine-tuned from it.
    """

    def __init__(self, folder: Path, control: Control) -> None:
        self.folder, self.control = folder, control
        self.templates, self.place = folder / "templates", folder / "case"

    def prepare_templates(self) -> None:
        """Make everything the cases start from. Raises `RuntimeError` where a command fails without a fault."""
        self.templates.mkdir(parents=True, exist_ok=True)
        write_corpus(self.templates / "words.txt")
        write_labelled(self.templates / "train.tsv", 24, seed=1)
        write_labelled(self.templates / "dev.tsv", 16, seed=2)
        write_recipe(self.templates)
        self._keep("shards", "shards", "prepare", "recipe.yaml", "--workers", 1)
        self._keep("run", "done", "pretrain", "recipe.yaml", needs=("shards",))
        self._keep("tuned", "tuned", *FINETUNE, needs=("shards", "done"))
        self._stop_in_the_middle()

    def case(self, *needed: str) -> Path:
        """A new folder with the corpus, the recipe, and copies of the templates `needed`, runs as `run`.

        It has the same path for every case, since shards and runs know where they lie.
        """
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir()
        for name in ("words.txt", "recipe.yaml", "train.tsv", "dev.tsv", *needed):
            source = self.templates / name
            target = self.place / {"stopped": "run", "done": "run"}.get(name, name)
            shutil.copytree(source, target, symlinks=True) if source.is_dir() else shutil.copy2(source, target)
        return self.place

    def ernie2(self, folder: Path, *arguments: object, fault: Fault = NONE) -> tuple[Ended, int, bool]:
        """Run a command in `folder`; (how it ended, file operations, whether the fault happened)."""
        log = folder.with_suffix(".log")
        log.unlink(missing_ok=True)
        self.control.arm(folder, fault)
        try:
            ended = run(inside(folder, command(*arguments)), log)
        finally:
            count, fired = self.control.disarm()
        return ended, count, fired

    def _keep(self, made: str, name: str, *arguments: object, needs: Iterable[str] = ()) -> None:
        """Run a command in a new case and keep the folder `made` of it as the template `name`."""
        ended, _, _ = self.ernie2(self.case(*needs), *arguments)
        if ended.code:
            raise RuntimeError(f"without any fault, `ernie2 {' '.join(map(str, arguments))}` failed:\n{ended.output}")
        shutil.move(self.place / made, self.templates / name)

    def _stop_in_the_middle(self) -> None:
        _, count, _ = self.ernie2(self.case("shards"), "pretrain", "recipe.yaml")
        for share in (0.6, 0.5, 0.7, 0.4):
            self.ernie2(self.case("shards"), "pretrain", "recipe.yaml", fault=Fault(int(count * share)))
            if len(list((self.place / "run" / "checkpoints").glob("step_????????"))) >= 2:
                shutil.move(self.place / "run", self.templates / "stopped")
                return
        raise RuntimeError("no stopped run with two checkpoints could be made")


FINETUNE = (
    *("finetune", "run", "--train", "train.tsv", "--dev", "dev.tsv", "--text", "text", "--label", "label"),
    *("--out", "tuned", "epochs=1", "batch_size=8", "precision=fp32"),
)


def inside(folder: Path, body: Callable[[], int | None]) -> Callable[[], int | None]:
    """`body` in `folder` as the working directory."""

    def moved() -> int | None:
        import os

        os.chdir(folder)
        return body()

    return moved


def words(count: int = 120) -> list[str]:
    """Made-up words, always the same."""
    rng = np.random.default_rng(3)
    return ["".join(rng.choice(list("abdeiklmnorstu"), size=rng.integers(2, 7))) for _ in range(count)]


def sentences(rng: np.random.Generator, count: int) -> list[str]:
    """Sentences of made-up words, a tenth of them capitalised."""
    known = words()

    def sentence() -> str:
        first, *rest = (known[i] for i in rng.integers(len(known), size=int(rng.integers(4, 12))))
        return " ".join([first.title(), *(w.title() if rng.random() < 0.1 else w for w in rest)]) + "."

    return [sentence() for _ in range(count)]


def documents(count: int, seed: int = 5) -> list[list[str]]:
    """Documents as lists of paragraphs."""
    rng = np.random.default_rng(seed)
    return [[" ".join(sentences(rng, 4)) for _ in range(int(rng.integers(2, 5)))] for _ in range(count)]


def write_corpus(file: Path) -> None:
    """Thirty documents: a paragraph a line, a blank line between documents."""
    file.write_text("\n\n".join("\n".join(one) for one in documents(30)) + "\n", encoding="utf-8")


def write_labelled(file: Path, count: int, seed: int) -> None:
    """A table of texts of two classes."""
    rng = np.random.default_rng(seed)
    rows = [f"{text}\t{('no', 'yes')[at % 2]}" for at, text in enumerate(sentences(rng, count))]
    file.write_text("text\tlabel\n" + "\n".join(rows) + "\n", encoding="utf-8")


def recipe() -> dict[str, Any]:
    """The recipe of all cases: two tasks in two stages, a checkpoint every third step."""
    return {
        "name": "faults",
        "run": "run",
        "corpora": {"words": {"path": "words.txt"}},
        "tokenizer": {"train": 300},
        "shards": {"folder": "shards", "shard_tokens": 2000, "sentence_tokens": 58, "min_heldout": 6},
        "tasks": {"knowledge_masking": {}, "sentence_reordering": {}},
        "stages": {"steps": 6},
        "batch": {"batch_tokens": 256, "pack_tokens": 128, "sequence_tokens": 64},
        "encoder": {"layers": 1, "hidden": 16, "heads": 2, "position_rows": 64},
        "train": {"peak_lr": 1e-3, "heldout_instances": 4, "checkpoint_every": 3, "log_every": 2, "precision": "fp32"},
    }


def write_recipe(folder: Path) -> None:
    """`recipe()` as recipe.yaml."""
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe(), sort_keys=False), encoding="utf-8")


def digest(folder: Path, names: Iterable[str] = ("**/*",), ignore: Iterable[str] = ()) -> dict[str, str]:
    """Relative path → digest of every file below `folder`, times left out of records."""
    ignored = {path for pattern in ignore for path in folder.glob(pattern)}
    files = sorted({path for pattern in names for path in folder.glob(pattern) if path.is_file()} - ignored)
    return {str(path.relative_to(folder)): hashlib.sha256(_content(path)).hexdigest()[:16] for path in files}


def _content(path: Path) -> bytes:
    """The bytes of a file, JSON without times."""
    if path.suffix in (".json", ".jsonl"):
        lines = [path.read_text()] if path.suffix == ".json" else path.read_text().splitlines()
        return "\n".join(json.dumps(_timeless(json.loads(line)), sort_keys=True) for line in lines).encode()
    return path.read_bytes()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(one) for key, one in value.items() if key not in TIMES}
    return [_timeless(one) for one in value] if isinstance(value, list) else value


def warm_up() -> None:
    """Import what the commands need, once, so that a forked case begins at once."""
    from importlib import import_module

    import ernie2

    sys.modules["__main__"].__dict__.pop("__file__", None)  # children of a case must not import the campaign
    for name in ernie2.__all__[1:]:
        getattr(ernie2, name)
    for module in ("safetensors.torch", "ernie2.cli.training", "ernie2.finetuning.jobs", "transformers.utils"):
        import_module(module)
