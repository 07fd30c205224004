"""RMSNorm and the additions beside it: the kernels against float64, and the plain forms against the models' own modules, bit for
bit. Triton's interpreter (3.9) cuts fp32 off to bf16, which a GPU rounds: where single roundings count, kernels are tested in
fp16."""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor

from llmctl_kernels import rms_norm as module
from llmctl_kernels.rms_norm import add_rms_norm, plain_add_rms_norm, plain_rms_norm, plain_rms_norm_add, rms_norm, rms_norm_add

EPS = 1e-5
FORMS = {"rms_norm": rms_norm, "add_rms_norm": add_rms_norm, "rms_norm_add": rms_norm_add}
PLAIN = {"rms_norm": plain_rms_norm, "add_rms_norm": plain_add_rms_norm, "rms_norm_add": plain_rms_norm_add}


def normal(*shape: int, device: torch.device, seed: int = 0, kind: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device, kind)


def reference(name: str, x: Tensor, residual: Tensor, weight: Tensor, offset: float) -> tuple[Tensor, ...]:
    """In the type of its inputs."""
    value = x + residual if name == "add_rms_norm" else x
    normed = value * (value.pow(2).mean(-1, keepdim=True) + EPS).rsqrt() * (weight + offset)
    return {"rms_norm": (normed,), "add_rms_norm": (value, normed), "rms_norm_add": (residual + normed,)}[name]


def outputs_and_gradients(compute: Callable[..., Any], tensors: list[Tensor]) -> list[Tensor]:
    """What `compute` makes of the tensors, and the gradients, where wanted, of a sum of it with fixed weights."""
    leaves = [tensor.detach().requires_grad_(tensor.is_floating_point()) for tensor in tensors]
    outputs = compute(*leaves)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    total = sum((out * normal(*out.shape, device=out.device, seed=9 + n).to(out)).sum() for n, out in enumerate(outputs))
    total.backward()
    return [*(out.detach() for out in outputs), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def tensors_of(name: str, shape: tuple[int, ...], device: torch.device, kind: torch.dtype = torch.float32) -> list[Tensor]:
    x, residual = (normal(*shape, device=device, seed=seed, kind=kind) for seed in range(2))
    weight = 1 + normal(shape[-1], device=device, seed=2, kind=kind) / 4
    return [x, weight] if name == "rms_norm" else [x, residual, weight]


def expected_of(name: str, tensors: list[Tensor], offset: float = 0.0) -> list[Tensor]:
    def compute(x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        return reference(name, x, rest[0] if len(rest) == 2 else x, rest[-1], offset)

    return outputs_and_gradients(compute, [tensor.double() for tensor in tensors])


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("shape", [(5, 1), (1500, 7), (2, 3, 100), (1, 1), (130, 128), (3, 129), (2, 768), (1, 32768)], ids=str)
def test_outputs_and_gradients_are_those_of_float64(name: str, shape: tuple[int, ...], device: torch.device) -> None:
    tensors = tensors_of(name, shape, device)
    found = outputs_and_gradients(partial(FORMS[name], eps=EPS), tensors)
    for one, other in zip(found, expected_of(name, tensors), strict=True):
        torch.testing.assert_close(one.double(), other, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16], ids=str)
def test_two_byte_types_are_off_by_their_rounding(name: str, kind: torch.dtype, device: torch.device) -> None:
    tensors = tensors_of(name, (33, 100), device, kind)
    found = outputs_and_gradients(partial(FORMS[name], eps=EPS), tensors)
    assert {tensor.dtype for tensor in found} == {kind}
    for one, other in zip(found, expected_of(name, tensors), strict=True):
        assert (one.double() - other).norm() < 2 * torch.finfo(kind).eps * other.norm()


def test_the_gradient_of_the_weight_is_summed_in_fp32(device: torch.device) -> None:
    """Of 3000 equal rows: a sum in bf16 would stand still at 256."""
    x = torch.ones(3000, 7, dtype=torch.bfloat16, device=device)
    weight = torch.ones(7, dtype=torch.bfloat16, device=device, requires_grad=True)
    rms_norm(x, weight, EPS).sum().backward()
    torch.testing.assert_close(weight.grad, torch.full_like(weight, 3000), rtol=2**-7, atol=0)


@pytest.mark.parametrize("name", FORMS)
def test_nothing_that_comes_in_is_written_to(name: str, device: torch.device) -> None:
    tensors = [tensor.requires_grad_() for tensor in tensors_of(name, (6, 12), device)]
    kept = [tensor.detach().clone() for tensor in tensors]
    outputs = FORMS[name](*tensors, eps=EPS)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    incoming = [normal(6, 12, device=device, seed=4 + n) for n in range(len(outputs))]
    before = [tensor.clone() for tensor in (*outputs, *incoming)]
    first = torch.autograd.grad(outputs, tensors, incoming, retain_graph=True)
    second = torch.autograd.grad(outputs, tensors, incoming)
    for one, other in zip([*tensors, *outputs, *incoming, *first], [*kept, *before, *second], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", FORMS)
def test_no_rows(name: str, device: torch.device) -> None:
    tensors = tensors_of(name, (0, 12), device)
    found = outputs_and_gradients(partial(FORMS[name], eps=EPS), tensors)
    assert [tuple(tensor.shape) for tensor in found[:-1]] == [(0, 12)] * (len(found) - 1)
    assert torch.equal(found[-1], torch.zeros(12, device=device))


def test_rows_of_zeros_give_zeros_and_finite_gradients(device: torch.device) -> None:
    x = torch.zeros(3, 12, device=device)
    out, of_x, of_weight = outputs_and_gradients(partial(rms_norm, eps=EPS), [x, torch.ones(12, device=device)])
    assert not out.any()
    assert not of_weight.any()
    assert of_x.isfinite().all()
    assert of_x.any()


@pytest.mark.parametrize("name", FORMS)
def test_transposed_inputs_and_gradients(name: str, device: torch.device) -> None:
    tensors = tensors_of(name, (4, 5, 12), device)

    def transposed(compute: Callable[..., Any], *tensors: Tensor) -> Any:
        outputs = compute(*(t.transpose(0, 1) for t in tensors[:-1]), tensors[-1], eps=EPS)
        return tuple(t.transpose(0, 1) for t in outputs) if isinstance(outputs, tuple) else outputs.transpose(0, 1)

    found, expected = (outputs_and_gradients(partial(transposed, form[name]), tensors) for form in (FORMS, PLAIN))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", FORMS)
def test_a_frozen_weight_gets_no_gradient(name: str, device: torch.device) -> None:
    *streams, weight = tensors_of(name, (6, 12), device)
    frozen = outputs_and_gradients(lambda *given: FORMS[name](*given, weight, eps=EPS), streams)
    trained = outputs_and_gradients(partial(FORMS[name], eps=EPS), [*streams, weight])
    assert len(frozen) == len(trained) - 1
    assert all(map(torch.equal, frozen, trained))


@pytest.mark.parametrize("used", [0, 1])
def test_one_of_two_outputs_may_go_unused(used: int, device: torch.device) -> None:
    def one(compute: Callable[..., Any], *tensors: Tensor) -> Tensor:
        return compute(*tensors, eps=EPS)[used]

    tensors = tensors_of("add_rms_norm", (6, 12), device)
    found, expected = (outputs_and_gradients(partial(one, compute), tensors) for compute in (add_rms_norm, plain_add_rms_norm))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


MODELS = {
    "llama": ("LlamaRMSNorm", {"cast_first": True}),
    "qwen3": ("Qwen3RMSNorm", {"cast_first": True}),
    "olmo3": ("Olmo3RMSNorm", {}),
    "gemma3": ("Gemma3RMSNorm", {"offset": 1.0}),
}


def of_model(name: str, x: Tensor, weight: Tensor) -> Tensor:
    norm = getattr(import_module(f"transformers.models.{name}.modeling_{name}"), MODELS[name][0])(x.shape[-1], eps=EPS)
    norm.weight = torch.nn.Parameter(weight)
    return norm(x).detach()


@pytest.mark.parametrize(
    ("kind", "weight_kind"),
    [
        (torch.float32, torch.float32),
        (torch.float32, torch.bfloat16),
        (torch.float16, torch.float16),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.bfloat16),
        (torch.bfloat16, torch.float32),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", MODELS)
def test_the_order_of_rounding_is_the_models(
    name: str, kind: torch.dtype, weight_kind: torch.dtype, device: torch.device
) -> None:
    x = normal(40, 100, device=device, kind=kind)
    weight = normal(100, device=device, seed=1, kind=weight_kind)
    expected, settings = of_model(name, x, weight), MODELS[name][1]
    assert torch.equal(plain_rms_norm(x, weight, EPS, **settings), expected)
    found = rms_norm(x, weight, EPS, **settings)
    assert found.dtype == expected.dtype
    if kind == torch.float16:  # a mean summed in another order moves few values over a border of rounding
        assert (found == expected).float().mean() > 0.98
    assert (found - expected).float().norm() < 2 * torch.finfo(kind).eps * expected.float().norm()


def test_orders_of_rounding_differ(device: torch.device) -> None:
    x, weight = normal(40, 100, device=device, kind=torch.float16), normal(100, device=device, seed=1, kind=torch.float16)
    first, after = (rms_norm(x, weight, EPS, cast_first) for cast_first in (True, False))
    assert (first != after).float().mean() > 0.1


@pytest.mark.parametrize("cast_first", [True, False])
@pytest.mark.parametrize("name", ["add_rms_norm", "rms_norm_add"])
def test_mixed_types_as_under_autocast(name: str, cast_first: bool, device: torch.device) -> None:
    """The residual stream and the weight in fp32, the sublayer's output in two bytes: gradients in each tensor's type."""
    tensors = tensors_of(name, (9, 100), device)
    tensors[0] = tensors[0].half()
    found, expected = (
        outputs_and_gradients(partial(form[name], eps=EPS, cast_first=cast_first), tensors) for form in (FORMS, PLAIN)
    )
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, atol=2e-3, rtol=2**-9)


def test_the_offset_of_the_weight(device: torch.device) -> None:
    tensors = tensors_of("rms_norm_add", (9, 12), device)
    found = outputs_and_gradients(partial(rms_norm_add, eps=EPS, offset=1.0), tensors)
    for one, other in zip(found, expected_of("rms_norm_add", tensors, offset=1.0), strict=True):
        torch.testing.assert_close(one.double(), other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", FORMS)
def test_compiled_in_one_graph(name: str, device: torch.device) -> None:
    tensors = tensors_of(name, (6, 12), device)
    compute = partial(FORMS[name], eps=EPS)
    compiled = torch.compile(lambda *given: compute(*given), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(outputs_and_gradients(compiled, tensors), outputs_and_gradients(compute, tensors))


@pytest.mark.parametrize("name", FORMS)
def test_the_operator_keeps_its_contract(name: str, device: torch.device) -> None:
    tensors = [tensor.requires_grad_() for tensor in tensors_of(name, (3, 12), device)]
    torch.library.opcheck(getattr(module, f"_{name}"), (*tensors, EPS, True, 0.0))


def test_shapes_that_do_not_belong_together(device: torch.device) -> None:
    x = torch.ones(3, 12, device=device)
    with pytest.raises(ValueError, match="weight"):
        rms_norm(x, x[0, :6], EPS)
    with pytest.raises(ValueError, match="residual"):
        add_rms_norm(x, x[:1], x[0], EPS)
    with pytest.raises(ValueError, match="at most 32768"):
        rms_norm(torch.ones(1, 32769, device=device), torch.ones(32769, device=device), EPS)


def test_without_triton_the_plain_form_serves(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = tensors_of("rms_norm", (3, 12), device)
    monkeypatch.setattr(module.runtime, "missing", lambda _: "triton is not installed")
    assert torch.equal(rms_norm(*tensors, EPS), plain_rms_norm(*tensors, EPS))
