"""The order of an epoch and packs without padding."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ernie2.datasets.examples import Example
from ernie2.finetuning.encoded import ExampleEncoder
from ernie2.finetuning.packs import batches_of, packs_of
from ernie2.shards.wordpieces import load_wordpieces
from tiny_finetuning import VOCABULARY, settings


def test_the_order_is_a_pure_function_of_seed_and_epoch_and_shows_everything_once() -> None:
    orders = {key: np.concatenate(list(batches_of(10, 4, *key))).tolist() for key in [(0, 0), (0, 1), (1, 0)]}
    assert all(sorted(order) == list(range(10)) for order in orders.values())
    assert len({tuple(order) for order in orders.values()}) == 3
    assert np.concatenate(list(batches_of(10, 4, 0, 0))).tolist() == orders[0, 0]
    assert [len(batch) for batch in batches_of(10, 4, 0, 0)] == [4, 4, 2]


def test_packs_hold_their_cap_and_positions_count_from_the_start_of_the_pack(tmp_path: Path) -> None:
    file = tmp_path / "vocab.txt"
    file.write_text("\n".join(VOCABULARY) + "\n")
    encoder = ExampleEncoder(load_wordpieces(file), "tagging", ("A",), settings())
    some = [Example(str(i), "", label=("A",) * i, tokens=("w1",) * i) for i in (2, 3, 4)]
    sequences = encoder.encode(some, labelled=True).sequences  # 4, 5 and 6 tokens
    first, second = packs_of(sequences, settings(pack_tokens=10), 3, 0)
    assert first.starts.tolist() == [0, 4, 9]
    assert first.targets["finetuning"].positions.tolist() == [1, 2, 5, 6, 7]
    assert len(first.tokens) == first.real_tokens == 9  # nothing is padded
    assert second.starts.tolist() == [0, 6]
    assert set(first.task_ids.tolist()) == {3}
