"""A card's peak is its data sheet's; anything else is tried out, and said to be."""

from __future__ import annotations

import pytest
import torch

from ernie2.benchmarking.flops import known_peak, measured_peak


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
def test_known_cards_have_the_peak_of_their_data_sheet(name: str, precision: str, teraflops: float) -> None:
    peak = known_peak(name, precision)
    assert peak is not None
    assert peak.flops_per_second == pytest.approx(teraflops * 1e12)
    assert "data sheet" in peak.source


def test_a_card_nobody_entered_has_none() -> None:
    assert known_peak("NVIDIA GeForce GTX 1080", "bf16") is None


def test_the_peak_of_a_cpu_is_measured_and_says_so() -> None:
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
def test_a_measured_peak_of_a_card_stays_below_its_data_sheet() -> None:
    device = torch.device("cuda")
    known = known_peak(torch.cuda.get_device_name(device), "bf16")
    if known is None:
        pytest.skip("the data sheet of this card is not in our table")
    assert 0.3 < measured_peak(device, "bf16", 8_192).flops_per_second / known.flops_per_second < 1
