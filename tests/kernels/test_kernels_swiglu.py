"""silu(gate) * up: the kernel against float64, and against what the models compute, rounding by rounding. Triton's interpreter
(3.9) cuts fp32 off to bf16, which a GPU rounds: single roundings are tested in fp16."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from llmctl_kernels import swiglu as module
from llmctl_kernels.swiglu import plain_swiglu, swiglu


def normal(*shape: int, device: torch.device, seed: int = 0, kind: torch.dtype = torch.float32) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device, kind)


def pair(*shape: int, device: torch.device, kind: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    gate, up = (normal(*shape, device=device, seed=seed, kind=kind).requires_grad_() for seed in range(2))
    return gate, up


@pytest.mark.parametrize("shape", [(1,), (3, 7), (2, 3, 100), (5, 1031), (0, 8)], ids=str)
def test_outputs_and_gradients_are_those_of_float64(shape: tuple[int, ...], device: torch.device) -> None:
    gate, up = pair(*shape, device=device)
    incoming = normal(*shape, device=device, seed=2)
    out = swiglu(gate, up)
    expected = F.silu(gate.double()) * up.double()
    torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=1e-5)
    found = torch.autograd.grad(out, (gate, up), incoming)
    torch.testing.assert_close(found, torch.autograd.grad(expected, (gate, up), incoming.double()), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16], ids=str)
def test_two_byte_types_are_off_by_their_rounding(kind: torch.dtype, device: torch.device) -> None:
    gate, up = pair(40, 100, device=device, kind=kind)
    expected = F.silu(gate.double()) * up.double()
    found = [swiglu(gate, up), *torch.autograd.grad(swiglu(gate, up).float().sum(), (gate, up))]
    for one, other in zip(found, [expected, *torch.autograd.grad(expected.sum(), (gate, up))], strict=True):
        assert one.dtype == kind
        assert (one.double() - other).norm() < 2 * torch.finfo(kind).eps * other.norm()


def test_the_activation_is_rounded_before_the_product_as_in_the_models(device: torch.device) -> None:
    gate, up = pair(100, 100, device=device, kind=torch.float16)
    found, rounded_once = swiglu(gate, up), (F.silu(gate.float()) * up).half()
    assert (found == F.silu(gate) * up).float().mean() > 0.99
    assert (found != rounded_once).float().mean() > 0.1


def test_mixed_types_are_promoted(device: torch.device) -> None:
    gate, up = normal(9, 20, device=device, kind=torch.float16), normal(9, 20, device=device, seed=1)
    out = swiglu(gate.requires_grad_(), up.requires_grad_())
    torch.testing.assert_close(out, plain_swiglu(gate, up), rtol=2**-9, atol=1e-3)
    assert out.dtype == torch.float32
    out.sum().backward()
    assert (gate.grad.dtype, up.grad.dtype) == (torch.float16, torch.float32)


def test_values_far_from_zero_stay_finite(device: torch.device) -> None:
    gate = torch.tensor([-1e4, -100.0, 0.0, 100.0, 1e4], device=device, requires_grad=True)
    out = swiglu(gate, torch.ones_like(gate))
    (gradient,) = torch.autograd.grad(out.sum(), gate)
    torch.testing.assert_close(out, F.silu(gate))
    torch.testing.assert_close(gradient, torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0], device=device))


def test_nothing_that_comes_in_is_written_to_and_activation_checkpoints_give_the_same_gradients(device: torch.device) -> None:
    gate, up = pair(6, 20, device=device)
    incoming = normal(6, 20, device=device, seed=2)
    kept = [tensor.detach().clone() for tensor in (gate, up, incoming)]
    plain = torch.autograd.grad(swiglu(gate, up), (gate, up), incoming)
    again = torch.autograd.grad(checkpoint(swiglu, gate, up, use_reentrant=False), (gate, up), incoming)
    assert all(map(torch.equal, plain, again))
    assert all(map(torch.equal, (gate, up, incoming), kept))


def test_transposed_inputs_and_gradients(device: torch.device) -> None:
    gate, up = pair(4, 5, 12, device=device)
    incoming = normal(12, 4, 5, device=device, seed=2).permute(2, 1, 0)  # [5, 4, 12]
    found, expected = (
        torch.autograd.grad(compute(gate.transpose(0, 1), up.transpose(0, 1)), (gate, up), incoming)
        for compute in (swiglu, plain_swiglu)
    )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_compiled_in_one_graph(device: torch.device) -> None:
    gate, up = pair(6, 20, device=device)
    compiled = torch.compile(lambda *given: swiglu(*given), fullgraph=True, backend="aot_eager")
    for compute in (compiled, swiglu):
        found = torch.autograd.grad(compute(gate, up).square().sum(), (gate, up))
        torch.testing.assert_close(found, torch.autograd.grad(plain_swiglu(gate, up).square().sum(), (gate, up)))


def test_the_operator_keeps_its_contract(device: torch.device) -> None:
    torch.library.opcheck(module._swiglu, pair(3, 12, device=device))


def test_shapes_that_do_not_belong_together(device: torch.device) -> None:
    with pytest.raises(ValueError, match="same"):
        swiglu(torch.ones(3, 12, device=device), torch.ones(3, 1, device=device))


def test_without_triton_the_plain_form_serves(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, up = pair(6, 20, device=device)
    monkeypatch.setattr(module.runtime, "missing", lambda _: "triton is not installed")
    assert torch.equal(swiglu(gate, up), plain_swiglu(gate, up))
