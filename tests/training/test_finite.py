import pytest
import torch

from ernie2.training.finite import Finite


@pytest.mark.parametrize(
    ("losses", "norm", "finite"),
    [
        ({"a": 1.0, "b": 2.0}, 3.0, True),
        ({}, 3.0, True),
        ({"a": 1.0, "b": float("nan")}, 3.0, False),
        ({"a": float("inf")}, 3.0, False),
        ({"a": 1.0}, float("nan"), False),
        ({"a": 1.0}, float("inf"), False),
    ],
)
def test_a_step_is_finite_where_every_loss_and_the_gradient_are(losses, norm, finite):
    verdict = Finite({name: torch.tensor(loss) for name, loss in losses.items()}, torch.tensor(norm))
    assert bool(verdict) is finite
    assert verdict.bad.item() == (0.0 if finite else 1.0)
    assert verdict.known


def test_the_fused_optimiser_changes_nothing_where_the_verdict_is_bad():
    """What CUDA relies on: the kernel itself heeds the verdict, and takes Adam's step count back."""
    torch.manual_seed(0)
    parameter = torch.nn.Parameter(torch.randn(5))
    optimizer = torch.optim.AdamW([parameter], lr=0.1, fused=True)
    parameter.grad = torch.ones(5)
    optimizer.step()
    before = parameter.detach().clone()
    state = {key: value.clone() for key, value in optimizer.state[parameter].items()}
    parameter.grad = torch.full((5,), float("nan"))
    optimizer.found_inf = Finite({}, parameter.grad.norm()).bad
    optimizer.step()
    del optimizer.found_inf
    assert torch.equal(parameter, before)
    assert all(torch.equal(value, optimizer.state[parameter][key]) for key, value in state.items())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_the_verdict_arrives_behind_the_work():
    verdict = Finite({"a": torch.tensor(float("nan"), device="cuda")}, torch.tensor(1.0, device="cuda"))
    assert not verdict
    assert verdict.known
