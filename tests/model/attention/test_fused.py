"""FlashAttention-3 and -4 are activated if installed and correct, reported otherwise, and not used with dropout."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import pytest
import torch
from torch.backends.cuda import flash_sdp_enabled, mem_efficient_sdp_enabled
from torch.nn import attention
from torch.nn.attention import _registry

from ernie2.console import log_warning
from ernie2.model.attention import fused

CARD = torch.device("cuda")


def attend(query, key, value, starts, key_starts, longest, key_longest, power=1.0):
    """The packed kernel, computed on a CPU."""
    asking = torch.bucketize(torch.arange(len(query)), starts[1:].long(), right=True)
    owner = torch.bucketize(torch.arange(len(key)), key_starts[1:].long(), right=True)
    scores = power * torch.einsum("tnd,und->ntu", query, key) / query.shape[-1] ** 0.5
    odds = scores.masked_fill(asking[:, None] != owner, -torch.inf).softmax(-1)
    return torch.einsum("ntu,und->tnd", odds, value)


def activate(device, head_width):
    return fused.activate_newest_flash(device, head_width, log_warning)


@pytest.fixture
def card(monkeypatch, capsys):
    """A card of capability 9.0 and an empty registry; `install(name, raised)` puts an implementation into it."""
    removed = []
    found = SimpleNamespace(capability=(9, 0), removed=removed, tried=[])

    def install(name, raised=None):
        def register():
            if raised is not None:
                raise raised
            return SimpleNamespace(remove=lambda: removed.append(name))

        attention.register_flash_attention_impl(name, register_fn=register)

    found.install = install
    monkeypatch.setattr(_registry, "_FLASH_ATTENTION_IMPLS", {})
    monkeypatch.setattr(_registry, "_FLASH_ATTENTION_ACTIVE", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: found.capability)
    monkeypatch.setattr(fused, "check_packed_kernel", lambda *given: found.tried.append(given))
    fused.activate_newest_flash.cache_clear()
    yield found
    fused.activate_newest_flash.cache_clear()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("capability", "installed", "taken"),
    [
        ((9, 0), ("FA3", "FA4"), "FA4"),
        ((9, 0), ("FA3",), "FA3"),
        ((10, 3), ("FA3", "FA4"), "FA4"),
        ((10, 0), ("FA3",), None),
        ((8, 0), ("FA3", "FA4"), None),
        ((9, 0), (), None),
    ],
)
def test_the_newest_installed_version_that_supports_the_gpu_is_activated(card, capsys, capability, installed, taken):
    card.capability = capability
    for name in installed:
        card.install(name)
    assert activate(CARD, 64) == taken == fused.active_flash()
    assert card.tried == ([(CARD, 64)] if taken else [])
    assert capsys.readouterr().err == ""


def test_a_second_model_of_the_process_keeps_what_is_active(card):
    card.install("FA3")
    assert [activate(CARD, width) for width in (64, 64, 128)] == ["FA3"] * 3
    assert card.tried == [(CARD, 64), (CARD, 128)]
    assert not card.removed


@pytest.mark.parametrize("module", ["flash_attn", "flash_attn.cute", "flash_attn.cute.interface"])
def test_what_is_not_installed_is_passed_over_in_silence(card, capsys, module):
    card.install("FA4", ModuleNotFoundError(f"No module named {module!r}", name=module))
    card.install("FA3")
    assert activate(CARD, 64) == "FA3"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'cutlass'", name="cutlass"),
        ImportError("undefined symbol"),
        RuntimeError("does not expose FA4 kernels"),
        ValueError("made up"),
    ],
)
def test_a_failed_activation_is_one_line_and_flash_attention_2_stays_active(card, capsys, error):
    card.install("FA4", error)
    assert activate(CARD, 64) is None
    assert activate(CARD, 64) is None
    said = capsys.readouterr().err
    assert said == f"Note: FA4 is installed but not used ({type(error).__name__}: {error}).\n"


def test_one_that_fails_when_tried_makes_room_for_the_next(card, monkeypatch, capsys):
    def check(device, head_width):
        if fused.active_flash() == "FA4":
            raise TypeError("unexpected argument\nmore")

    monkeypatch.setattr(fused, "check_packed_kernel", check)
    card.install("FA4")
    card.install("FA3")
    assert activate(CARD, 64) == "FA3" == fused.active_flash()
    assert card.removed == ["FA4"]
    assert capsys.readouterr().err == "Note: FA4 is installed but not used (TypeError: unexpected argument).\n"


def test_what_the_user_activated_stays(card):
    card.install("FA4")
    card.install("theirs")
    attention.activate_flash_attention_impl("theirs")
    assert activate(CARD, 64) == "theirs" == fused.active_flash()


def test_nothing_happens_on_a_cpu(card):
    card.install("FA4")
    assert activate(torch.device("cpu"), 64) is None
    assert fused.active_flash() is None


def test_a_kernel_is_tried_forward_and_backward_and_a_wrong_one_is_noticed(monkeypatch):
    state = torch.get_rng_state()
    monkeypatch.setattr(fused, "packed_kernel", lambda: attend)
    fused.check_packed_kernel(torch.device("cpu"), 16)
    assert torch.equal(torch.get_rng_state(), state)
    monkeypatch.setattr(fused, "packed_kernel", lambda: lambda *given: attend(*given, power=1.1))
    with pytest.raises(RuntimeError, match="its results differ from plain attention"):
        fused.check_packed_kernel(torch.device("cpu"), 16)

    def without_a_gradient(query, key, value, *given):
        return attend(query, key, value.detach(), *given) + 0 * value.sum()

    monkeypatch.setattr(fused, "packed_kernel", lambda: without_a_gradient)
    with pytest.raises(RuntimeError, match="its results differ from plain attention"):
        fused.check_packed_kernel(torch.device("cpu"), 16)


@pytest.mark.parametrize("cudnn_first", [True, False])
def test_kernels_without_dropout_are_excluded_with_dropout(card, cudnn_first):
    card.install("FA3")
    with fused.sdpa_kernels(CARD, 0.1, cudnn_first):
        assert flash_sdp_enabled()
    activate(CARD, 64)
    with fused.sdpa_kernels(CARD, 0.1, cudnn_first):
        assert not flash_sdp_enabled()
        assert mem_efficient_sdp_enabled()
    with fused.sdpa_kernels(CARD, 0.0, cudnn_first):
        assert flash_sdp_enabled()


def test_this_torch_has_a_packed_kernel_that_can_be_called_as_we_call_it():
    from torch.nn.attention.varlen import varlen_attn

    names = list(inspect.signature(varlen_attn).parameters)
    assert names[:7] == ["query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"]
    assert fused.packed_kernel() is not None
