"""Operations are those of a pencil, and those torch counts in the plain padded form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ernie2.batches.batch import PackedBatch, Targets, pack_sequences
from ernie2.benchmarking.flops import encoder_flops, known_peak, measured_peak, step_flops
from ernie2.config.settings import EncoderSettings
from ernie2.model.heads import HeadSpec
from ernie2.model.hf import hf_config
from ernie2.model.inputs import Inputs
from ernie2.model.multitask import MultiTaskModel

TINY = EncoderSettings(layers=2, hidden=8, heads=2, ffn=16, position_rows=16)
SPECS = {
    "masking": HeadSpec("masking", "token", None),
    "capital": HeadSpec("capital", "token", 2),
    "order": HeadSpec("order", "sentence", 3),
}
VOCABULARY = 64


def pack_of(lengths: list[int], scored: dict[str, int], room: int = 40) -> PackedBatch:
    """Sequences of these lengths; each task scores the first so many tokens."""
    made = [np.arange(5, 5 + length) for length in lengths]
    zeros = [np.zeros(length) for length in lengths]
    targets = {name: Targets(np.arange(count), np.ones(count, np.int64), count) for name, count in scored.items()}
    return pack_sequences(made, zeros, [0] * len(lengths), targets, size=room, longest=16, pad=0)


def test_the_count_is_the_one_worked_out_by_hand() -> None:
    # a token and layer: 6 · (4 · 8 · 8 + 2 · 8 · 16) = 3,072; attention 12 · 8 · (9 + 25) = 3,264 a layer
    assert encoder_flops(TINY, [3, 5]) == 2 * (8 * 3_072 + 3_264) == 55_680
    pack = pack_of([3, 5], {"masking": 2, "capital": 4, "order": 1})
    # 6 · (2 · (64 + 8 · 64) + 4 · 8 · 2 + (64 + 8 · 3))
    assert step_flops(TINY, VOCABULARY, SPECS, [pack], all_rows=True) == 55_680 + 6 * (1_152 + 64 + 88)
    assert step_flops(TINY, VOCABULARY, SPECS, [pack, pack]) == 2 * step_flops(TINY, VOCABULARY, SPECS, [pack])


def test_the_last_layer_counts_queries_and_what_follows_at_scored_rows_only() -> None:
    # keys and values of 8 tokens, all else of 3 rows; attention 12 · 8 · (9 + 25), then 12 · 8 · (1 · 3 + 2 · 5)
    first, last = 8 * 3_072 + 3_264, 6 * (8 * 128 + 3 * (128 + 256)) + 1_248
    assert encoder_flops(TINY, [3, 5], [1, 2]) == first + last == 42_144


def test_padding_counts_nothing() -> None:
    short, long = ([pack_of([3, 5], {}, room)] for room in (8, 40))
    assert step_flops(TINY, 64, SPECS, short) == step_flops(TINY, 64, SPECS, long)


@pytest.mark.parametrize(("kind", "gates"), [("lstm", 4), ("gru", 3)])
def test_a_recurrent_layer_counts_its_gates_both_ways(kind: str, gates: int) -> None:
    settings = EncoderSettings(kind=kind, layers=1, hidden=8)  # type: ignore[arg-type]
    recurrence = MultiTaskModel(settings, 64, [], 0).encoder.layers[0].recurrence
    matrices = sum(p.numel() for p in recurrence.parameters() if p.ndim == 2)
    assert encoder_flops(settings, [3, 5]) == 6 * 8 * matrices == 6 * 8 * gates * 96


def test_a_padded_transformers_model_of_full_rows_counts_the_same() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ErnieConfig(**hf_config(TINY, VOCABULARY, {}), attn_implementation="eager")
    model = transformers.ErnieForMaskedLM(config).train()
    ids = torch.randint(5, VOCABULARY, (3, 7))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss.backward()
    pack = pack_of([7, 7, 7], {"masking": 21})  # that model scores every position
    assert counter.get_total_flops() == step_flops(TINY, VOCABULARY, SPECS, [pack], all_rows=True)


@pytest.mark.parametrize(
    "scored", [{"masking": [1, 3, 8, 10, 15, 17], "order": [0, 7, 14]}, {"order": [0, 7, 14]}, {"masking": range(14)}]
)
def test_the_count_equals_that_of_torch_for_equal_lengths(scored: dict[str, list[int]]) -> None:
    model = MultiTaskModel(TINY, VOCABULARY, [SPECS["masking"], SPECS["order"]], 0).train()
    pack = pack_of([7, 7, 7], {name: len(positions) for name, positions in scored.items()})
    for name, positions in scored.items():
        pack.targets[name].positions[:] = positions
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        made = model(Inputs.from_batch(pack, "cpu", static=False))
        torch.stack([task.sum for task in made.values()]).sum().backward()
    assert counter.get_total_flops() == step_flops(TINY, VOCABULARY, SPECS, [pack])


@pytest.mark.parametrize(
    ("name", "precision", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16", 989.4),
        ("NVIDIA H100 PCIe", "bf16", 756.0),
        ("NVIDIA H200", "fp16", 989.4),
        ("NVIDIA H200 NVL", "bf16", 835.5),
        ("NVIDIA A100-SXM4-80GB", "bf16", 312.0),
        ("NVIDIA A100-SXM4-80GB", "fp32", 19.5),
    ],
)
def test_known_gpus_have_the_peak_of_their_data_sheet(name: str, precision: str, teraflops: float) -> None:
    peak = known_peak(name, precision)
    assert peak is not None
    assert peak.flops_per_second == pytest.approx(teraflops * 1e12)
    assert "data sheet" in peak.source


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA GeForce GTX 1080",
        "NVIDIA RTX A1000 Laptop GPU",
        "NVIDIA GH200 480GB",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "GRID A100-10C",
    ],
)
def test_unknown_gpus_and_partitions_have_no_known_peak(name: str) -> None:
    assert known_peak(name, "bf16") is None


def test_the_peak_of_a_cpu_is_measured_and_its_source_says_so() -> None:
    peak = measured_peak(torch.device("cpu"), "fp32", 64)
    assert peak.source.startswith("measured here")
    assert "64² matrices in fp32" in peak.source
    assert 1e6 < peak.flops_per_second < 1e14


def test_the_best_product_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    # begin; then three products of 4, 2 and 8 seconds, each between two looks at the clock and one at the limit
    clock = iter([0.0, 0.0, 4.0, 4.0, 6.0, 6.0, 14.0, 14.0])
    monkeypatch.setattr("ernie2.benchmarking.flops.time.perf_counter", lambda: next(clock))
    assert measured_peak(torch.device("cpu"), "fp32", 10).flops_per_second == pytest.approx(2 * 10**3 / 2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_measured_peak_of_a_gpu_stays_below_its_data_sheet() -> None:
    device = torch.device("cuda")
    known = known_peak(torch.cuda.get_device_name(device), "bf16")
    if known is None:
        pytest.skip("the data sheet of this card is not in our table")
    assert 0.3 < measured_peak(device, "bf16", 8_192).flops_per_second / known.flops_per_second < 1
