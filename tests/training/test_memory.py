import pytest
import torch

from ernie2.config.settings import EncoderSettings
from ernie2.errors import ConfigError
from ernie2.training import memory
from ernie2.training.memory import check_memory, estimate, peak_bytes

BASE = EncoderSettings()  # 12 layers, 768 wide, 3,072 in the feed-forward layer


def test_parameters_gradients_and_two_moments_take_four_bytes_each():
    memory = estimate(BASE, 110_000_000, 512, "fp32", recompute=False)
    assert (memory.parameters, memory.gradients, memory.moments) == (440_000_000, 440_000_000, 880_000_000)
    assert memory.total == 1_760_000_000 + memory.activations


def test_a_token_keeps_34_bytes_times_hidden_in_every_layer_and_four_more_for_norms_in_fp32():
    # per element of width 768: norms 4 x 2, six halves of matrices 12, feed-forward 2 x 4 x 2 = 16, masks 2 -> 38
    assert estimate(BASE, 0, 1, "bf16", recompute=False).activations == 12 * 38 * 768
    # in fp32: 8 + 24 + 32 + 2 = 66
    assert estimate(BASE, 0, 1, "fp32", recompute=False).activations == 12 * 66 * 768


def test_attention_weights_take_two_bytes_a_head_and_pair_of_tokens_in_bf16_where_they_are_kept():
    without, kept = (estimate(BASE, 0, 512, "bf16", False, longest).activations for longest in (0, 512))
    assert kept - without == 12 * 12 * 512 * 512 * 2  # layers, heads, pairs of one sequence of 512


def test_computing_layers_again_keeps_their_inputs_and_one_layer():
    assert estimate(BASE, 0, 10, "bf16", recompute=True).activations == 10 * (12 * 4 * 768 + 38 * 768)


def test_a_recurrent_layer_keeps_its_gates():
    recurrent = EncoderSettings(kind="lstm", layers=2, hidden=64)
    assert estimate(recurrent, 0, 1, "bf16", recompute=False).activations == 2 * 4 * 8 * 64


def test_the_peak_of_this_process_is_at_least_what_was_just_used():
    pytest.importorskip("resource")
    held = torch.ones(40_000_000)
    assert (peak_bytes(torch.device("cpu")) or 0) > held.numel() * 4


def test_a_model_larger_than_the_machine_is_refused_before_it_is_built(monkeypatch):
    # 12 layers of 12 x 768 x 768, 532 rows of positions, segments and task ids and 30,000 words of 768: 108 million
    assert BASE.parameters + 30_000 * 768 == 12 * 12 * 768 * 768 + 30_532 * 768 == 108_383_232
    monkeypatch.setattr(memory, "machine_memory", lambda: 2 * 2**30)
    check_memory(BASE, 30_000, torch.device("cpu"))
    monkeypatch.setattr(memory, "machine_memory", lambda: 2**30)
    with pytest.raises(
        ConfigError, match=r"about 0\.1 billion parameters need 2 GiB of memory, and this machine has 1"
    ):
        check_memory(BASE, 30_000, torch.device("cpu"))
    check_memory(BASE, 30_000, torch.device("cuda"))
