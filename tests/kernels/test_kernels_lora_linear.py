"""A linear layer with an adapter: values and gradients are those of two products in float64, by torch's products and by ours."""

import copy
from typing import Any

import pytest
import torch
from engines import SHAPE
from torch.utils.checkpoint import checkpoint

from llmctl.model.build import build_model
from llmctl.model.lora import AdapterSettings, add_adapter, trained_tensors
from llmctl.model.lora_linear import join_products
from llmctl_kernels.lora_linear import lora_linear

SCALE = 0.75
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
BOTH = pytest.mark.parametrize("fused", [False, True])


def inputs(rows, inner, outer, rank, kind, device, adapter_kind=None, bias=True):
    generator = torch.Generator().manual_seed(rows + rank)

    def random(*shape):
        return torch.randn(*shape, generator=generator).to(device)

    x, weight, a, b = (
        random(rows, inner),
        random(outer, inner) * inner**-0.5,
        random(rank, inner) * inner**-0.5,
        random(outer, rank),
    )
    a, b = (t.to(adapter_kind or kind).requires_grad_() for t in (a, b))
    return x.to(kind).requires_grad_(), weight.to(kind), random(outer).to(kind) if bias else None, a, b


def reference(x, weight, bias, a, b, *_):
    return torch.nn.functional.linear(x, weight, bias) + SCALE * (x @ a.T) @ b.T


def results(function, x, weight, bias, a, b, *rest):
    out = function(x, weight, bias, a, b, *rest)
    given = torch.randn(out.T.shape, generator=torch.Generator().manual_seed(9)).to(out).T
    wanted = [t for t in (x, a, b) if t.requires_grad]
    return [out, *torch.autograd.grad(out, wanted, given)]


def compare(tensors, fused, kind=None):
    kind = kind or tensors[0].dtype
    found = results(lora_linear, *tensors, SCALE, kind, fused)
    doubled = [t if t is None else t.detach().double().requires_grad_(t.requires_grad) for t in tensors]
    expected = results(reference, *doubled)
    assert [t.dtype for t in found] == [kind, *(t.dtype for t in tensors if t is not None and t.requires_grad)]
    for given, right in zip(found, expected, strict=True):
        most = max(1.0, float(right.detach().abs().max())) if right.numel() else 1.0
        torch.testing.assert_close(given.double(), right, rtol=0, atol=TOLERANCE[kind] * most)


@BOTH
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("rows", "inner", "outer", "rank"), [(5, 7, 9, 3), (33, 16, 20, 16), (1, 1, 1, 1), (18, 40, 35, 70), (32, 32, 16, 1)]
)
def test_values_and_gradients_are_those_of_float64(rows, inner, outer, rank, bias, fused, device):
    compare(inputs(rows, inner, outer, rank, torch.float32, device, bias=bias), fused)


@BOTH
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("adapter_kind", [None, torch.float32])
def test_half_precision_with_adapters_in_it_or_in_fp32(kind, adapter_kind, fused, device):
    compare(inputs(19, 24, 18, 4, kind, device, adapter_kind), fused)


@BOTH
def test_all_in_fp32_multiplied_in_bfloat16(fused, device):
    compare(inputs(5, 24, 18, 4, torch.float32, device), fused, torch.bfloat16)


def test_gradients_are_right_by_finite_differences():
    x, weight, bias, a, b = inputs(6, 5, 7, 2, torch.float64, "cpu")

    def joined(x, a, b):
        return lora_linear(x.view(2, 3, 5), weight, bias, a, b, SCALE, torch.float64)

    assert torch.autograd.gradcheck(joined, (x, a, b))


@BOTH
def test_an_input_without_gradient_and_frozen_weights_get_none(fused, device):
    x, weight, bias, a, b = inputs(5, 8, 6, 2, torch.float32, device)
    weight.requires_grad_()
    compare((x.detach(), weight.detach(), bias, a, b), fused)
    lora_linear(x.detach(), weight, bias, a, b, SCALE, torch.float32, fused).sum().backward()
    assert weight.grad is None
    assert a.grad is not None


@BOTH
def test_any_leading_dimensions_and_strides(fused, device):
    x, *rest = inputs(6, 8, 10, 2, torch.float32, device)
    wide = torch.cat([x, torch.full_like(x, torch.nan)], dim=1)[:, :8].unflatten(0, (2, 3))
    given = lora_linear(wide, *rest, SCALE, torch.float32, fused)
    assert given.shape == (2, 3, 10)
    torch.testing.assert_close(given.flatten(0, 1), reference(x, *rest), rtol=1e-5, atol=1e-5)


@BOTH
def test_no_rows(fused, device):
    compare(inputs(0, 8, 6, 2, torch.float32, device), fused)


@BOTH
def test_inputs_are_not_written_to(fused, device):
    tensors: Any = inputs(5, 8, 6, 2, torch.float32, device)
    before = [t.detach().clone() for t in tensors]
    out = lora_linear(*tensors, SCALE, torch.float32, fused)
    given = torch.ones_like(out)
    out.backward(given, retain_graph=True)
    first = tensors[0].grad.clone()
    out.backward(given)
    assert all(torch.equal(t, b) for t, b in zip(tensors, before, strict=True))
    assert (given == 1).all()
    torch.testing.assert_close(tensors[0].grad, 2 * first)


@BOTH
def test_gradients_under_activation_checkpointing(fused, device):
    tensors = inputs(5, 8, 6, 2, torch.float32, device)

    def again(*arguments):
        return checkpoint(lora_linear, *arguments, use_reentrant=False)

    plain = results(lora_linear, *tensors, SCALE, torch.float32, fused)
    for given, right in zip(results(again, *tensors, SCALE, torch.float32, fused), plain, strict=True):
        torch.testing.assert_close(given, right, rtol=0, atol=0)


@BOTH
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_compiled_in_one_graph(fused, kind, device):
    tensors = inputs(5, 8, 6, 2, torch.float32, device)
    compiled = torch.compile(lora_linear, fullgraph=True, backend="aot_eager")
    expected = results(lora_linear, *tensors, SCALE, kind, fused)
    for given, right in zip(results(compiled, *tensors, SCALE, kind, fused), expected, strict=True):
        torch.testing.assert_close(given, right)


@BOTH
def test_operators_are_registered_in_full(fused, device):
    x, weight, bias, a, b = inputs(3, 8, 6, 2, torch.float32, device)
    operators = torch.ops.llmctl_kernels
    torch.library.opcheck(operators.lora_linear.default, (x, weight, bias, a, b, SCALE, fused))
    given, low = torch.ones(3, 6, device=device), torch.ones(3, 2, device=device)
    tensors = [t.detach() for t in (given, x, low, weight, a, b)]
    for of_input in (False, True):
        torch.library.opcheck(operators.lora_linear_backward.default, (*tensors, SCALE, of_input, fused))


def adapted(**settings):
    model = add_adapter(build_model(SHAPE, seed=3), AdapterSettings(rank=4, alpha=8.0, **settings), seed=1)
    with torch.no_grad():
        for name, weight in trained_tensors(model).items():
            if "lora_B" in name:  # zero at the beginning, where nothing of A's gradient would be seen
                weight.normal_(std=0.1, generator=torch.Generator().manual_seed(weight.numel()))
    return model


def step_of(model, device):
    """Logits, and gradients by name."""
    tokens = torch.arange(6, device=device)[None]
    logits = model(input_ids=tokens).logits
    logits.square().mean().backward()
    return logits, {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("again", ["", "checkpoint", "compile"])
def test_a_model_with_joined_layers_is_that_of_peft(again, device):
    model = adapted(targets=["q_proj", "down_proj"]).to(device)
    joined = copy.deepcopy(model)
    join_products(joined, fused=True)
    if again == "checkpoint":
        joined.train().gradient_checkpointing_enable({"use_reentrant": False})
        joined.enable_input_require_grads()
    for layer in joined.get_base_model().model.layers:
        if again == "compile":
            layer.compile(backend="aot_eager", fullgraph=True)
    (logits, expected), (found, given) = step_of(model, device), step_of(joined, device)
    torch.testing.assert_close(found, logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("settings", [{"dora": True}, {"dropout": 0.5}])
def test_layers_that_are_not_plain_stay_as_they_are(settings):
    model = adapted(**settings)
    join_products(model, fused=True)
    assert not any("forward" in vars(layer) for layer in model.modules())
