"""Cost of a checkpoint by encoder size: seconds the training loop waits, seconds a thread writes, and bytes.

python benchmarks/checkpoint_cost.py [--layers 12 --hidden 768 --vocab 30522] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from comparisons.script import count, reported_errors
from ernie2.config.settings import EncoderSettings, TrainSettings
from ernie2.model.heads import HeadSpec
from ernie2.model.multitask import MultiTaskModel
from ernie2.training import checkpoints
from ernie2.training.distributed import ProcessGroup
from ernie2.training.full_state import gather
from ernie2.training.optimizers import build_optimizer


@reported_errors()
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--vocab", type=int, default=30_522)
    parser.add_argument("--times", type=count, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="folder on the disk to measure; default: TMPDIR")
    given = parser.parse_args()
    settings = EncoderSettings(layers=given.layers, hidden=given.hidden, heads=given.hidden // 64)
    specs = [HeadSpec("knowledge_masking", "token", None), HeadSpec("sentence_reordering", "sentence", 33)]
    group = ProcessGroup()
    model = MultiTaskModel(settings, given.vocab, specs, seed=0).to(group.device)
    optimizer = build_optimizer(model, TrainSettings())
    waited, written, size = [], [], 0
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        for step in range(given.times):
            began = time.perf_counter()
            full = gather(model, optimizer, group)
            assert full is not None
            waited.append(time.perf_counter() - began)
            began = time.perf_counter()
            checkpoint = checkpoints.write(Path(folder), step, full, {})
            written.append(time.perf_counter() - began)
            size = sum(file.stat().st_size for file in checkpoint.iterdir())
            checkpoints.prune(Path(folder), 1)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"{parameters / 1e6:.1f} M parameters, {size / 1e6:.0f} MB: the loop waits {statistics.median(waited):.2f} s, "
        f"a thread writes {statistics.median(written):.2f} s (medians of {given.times}; {group.device})"
    )


if __name__ == "__main__":
    main()
