"""Norm and rotation of queries and keys: values and gradients are those of the plain form in float64."""

from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from llmctl_kernels.qk_norm_rope import plain_qk_norm_rope, qk_norm_rope

EPS = 1e-5
TOLERANCE = {torch.float32: (1e-5, 1e-5), torch.bfloat16: (2e-2, 3e-2), torch.float16: (3e-3, 4e-3)}


def inputs(rows, heads, kv_heads, size, rotated, norm, kind=torch.float32, device="cpu", weight_kind=None):
    """Query, key, their weights, cosine and sine whose halves differ and whose squares do not sum up to 1."""
    generator = torch.Generator().manual_seed(rows + heads)

    def random(*shape):
        return torch.randn(*shape, generator=generator).to(device)

    weights = {"none": (None, None), "head": (size, size), "whole": (heads * size, kv_heads * size)}[norm]
    weights = [None if w is None else (1 + 0.3 * random(w)).to(weight_kind or kind).requires_grad_() for w in weights]
    query, key = (random(rows, h * size).to(kind).requires_grad_() for h in (heads, kv_heads))
    return query, key, *weights, 1.3 * random(rows, rotated), random(rows, rotated)


def results(function, query, key, query_weight, key_weight, cos, sin, size, cast_first=False):
    """Outputs and gradients of all inputs that want one; those that come in lie as attention leaves them, heads first."""
    out = function(query, key, query_weight, key_weight, cos, sin, EPS, size, cast_first)
    generator = torch.Generator().manual_seed(9)
    given = [torch.randn(o.transpose(0, 1).shape, generator=generator).to(o).transpose(0, 1) for o in out]
    wanted = [x for x in (query, key, query_weight, key_weight) if x is not None and x.requires_grad]
    return [*out, *torch.autograd.grad(out, wanted, given)]


def doubled(tensors):
    return [None if t is None else t.detach().double().requires_grad_(t.requires_grad) for t in tensors]


def compare(tensors, size, cast_first=False):
    kind = tensors[0].dtype
    found = results(qk_norm_rope, *tensors, size, cast_first)
    expected = results(plain_qk_norm_rope, *doubled(tensors), size)
    wanted = [x for x in tensors[:4] if x is not None and x.requires_grad]
    assert [g.dtype for g in found] == [kind, kind, *(x.dtype for x in wanted)]
    rtol, atol = TOLERANCE[kind]
    for given, right in zip(found, expected, strict=True):
        torch.testing.assert_close(given.double(), right, rtol=rtol, atol=atol * max(1.0, float(right.detach().abs().max())))


@pytest.mark.parametrize("norm", ["none", "head", "whole"])
@pytest.mark.parametrize(
    ("rows", "heads", "kv_heads", "size", "rotated"), [(5, 3, 1, 8, 8), (3, 4, 2, 12, 12), (4, 5, 5, 10, 6), (1, 1, 1, 2, 2)]
)
def test_values_and_gradients_are_those_of_float64(rows, heads, kv_heads, size, rotated, norm, device):
    compare(inputs(rows, heads, kv_heads, size, rotated, norm, device=device), size)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("norm", ["none", "head", "whole"])
@pytest.mark.parametrize("cast_first", [False, True])
def test_half_precision_is_rounded_no_worse_than_its_type(kind, norm, cast_first, device):
    compare(inputs(4, 3, 2, 8, 8, norm, kind, device), 8, cast_first)


@pytest.mark.parametrize("cast_first", [False, True])
@pytest.mark.parametrize("norm", ["head", "whole"])
def test_half_precision_rounds_where_the_plain_form_does(cast_first, norm, device):
    """In fp16: Triton's interpreter (3.9) does not round to nearest when it casts to bf16."""
    tensors = inputs(6, 3, 2, 8, 8, norm, torch.float16, device)
    given, right, other = (
        torch.cat([t.flatten() for t in function(*tensors, EPS, 8, first)])
        for function, first in (
            (qk_norm_rope, cast_first),
            (plain_qk_norm_rope, cast_first),
            (plain_qk_norm_rope, not cast_first),
        )
    )
    assert (given != right).float().mean() < 0.02  # a fused product and sum may turn a tie
    assert (given != other).float().mean() > 0.2


def test_weights_in_fp32_beside_activations_in_bfloat16_get_gradients_in_fp32(device):
    compare(inputs(4, 3, 2, 8, 8, "whole", torch.bfloat16, device, weight_kind=torch.float32), 8)


def test_weight_gradients_are_summed_in_fp32(device):
    """256 + 1 is 256 in bf16."""
    rows, size = 41, 2
    x = torch.ones(rows, size, device=device, dtype=torch.bfloat16)
    weight = torch.ones(size, device=device, dtype=torch.bfloat16, requires_grad=True)
    cos, sin = torch.ones(rows, size, device=device), torch.zeros(rows, size, device=device)
    query, _ = qk_norm_rope(x, x, weight, None, cos, sin, 0.0, size)
    query.backward(
        torch.tensor([256.0] + [1.0] * (rows - 1), device=device, dtype=torch.bfloat16)[:, None, None].expand(-1, 1, 2)
    )
    assert weight.grad.tolist() == [296, 296]


def test_rows_may_be_slices_of_a_wider_tensor(device):
    query, key, *rest = inputs(5, 3, 2, 8, 8, "whole", device=device)
    wide = torch.cat([query, key, torch.full_like(key, torch.nan)], dim=1).detach().requires_grad_()
    slices = wide[:, :24], wide[:, 24:40]
    given = results(qk_norm_rope, *slices, *rest, 8)
    for found, right in zip(given, results(qk_norm_rope, query, key, *rest, 8), strict=True):
        torch.testing.assert_close(found, right, rtol=0, atol=0)


def test_cosine_and_sine_may_be_slices_in_bfloat16(device):
    query, key, *weights, cos, sin = inputs(5, 3, 2, 8, 8, "head", device=device)
    both = torch.cat([cos, sin], dim=1).bfloat16()
    given = qk_norm_rope(query, key, *weights, both[:, :8], both[:, 8:], EPS, 8)
    right = plain_qk_norm_rope(query, key, *weights, both[:, :8].float(), both[:, 8:].float(), EPS, 8)
    torch.testing.assert_close(given, right, rtol=1e-5, atol=1e-5)


def test_frozen_weights_get_no_gradient(device):
    query, key, query_weight, key_weight, cos, sin = inputs(3, 2, 2, 4, 4, "whole", device=device)
    compare((query, key, query_weight.detach(), key_weight, cos, sin), 4)
    compare((query, key, query_weight.detach(), key_weight.detach(), cos, sin), 4)


def test_one_weight_alone(device):
    query, key, query_weight, _, cos, sin = inputs(3, 2, 2, 4, 4, "head", device=device)
    compare((query, key, query_weight, None, cos, sin), 4)


def test_no_rows(device):
    tensors = inputs(0, 2, 1, 4, 4, "whole", device=device)
    query, key, *gradients = results(qk_norm_rope, *tensors, 4)
    assert (query.shape, key.shape) == ((0, 2, 4), (0, 1, 4))
    assert [g.abs().sum().item() for g in gradients] == [0, 0, 0, 0]


@pytest.mark.parametrize("heads", [2, 3])
def test_inputs_and_gradients_are_not_written_to(heads, device):
    tensors: Any = inputs(4, heads, 1, 8, 4, "whole", device=device)
    before = [t.detach().clone() for t in tensors]
    out = qk_norm_rope(*tensors, EPS, 8)
    given = [torch.ones_like(o) for o in out]
    torch.autograd.grad(out, tensors[:4], given)
    assert all(torch.equal(t, b) for t, b in zip(tensors, before, strict=True))
    assert all((g == 1).all() for g in given)


def test_gradients_under_activation_checkpointing(device):
    query, key, query_weight, key_weight, cos, sin = inputs(4, 3, 2, 8, 8, "whole", device=device)

    def again(*arguments):
        return checkpoint(qk_norm_rope, *arguments, use_reentrant=False)

    plain = results(qk_norm_rope, query, key, query_weight, key_weight, cos, sin, 8)
    for given, right in zip(results(again, query, key, query_weight, key_weight, cos, sin, 8), plain, strict=True):
        torch.testing.assert_close(given, right, rtol=0, atol=0)


@pytest.mark.parametrize("norm", ["none", "whole"])
def test_compiled_in_one_graph(norm, device):
    tensors = inputs(4, 3, 2, 8, 8, norm, device=device)
    compiled = torch.compile(qk_norm_rope, fullgraph=True, backend="aot_eager")
    for given, right in zip(results(compiled, *tensors, 8), results(qk_norm_rope, *tensors, 8), strict=True):
        torch.testing.assert_close(given, right)


@pytest.mark.parametrize("norm", ["none", "whole"])
def test_operator_is_registered_in_full(norm, device):
    tensors = inputs(3, 2, 1, 4, 4, norm, device=device)
    torch.library.opcheck(torch.ops.llmctl_kernels.qk_norm_rope.default, (*tensors, EPS, 4, True))
    given = [torch.ones(3, heads, 4, device=device) for heads in (2, 1)]
    asked = (norm == "whole", False)
    rows = [t if t is None else t.detach() for t in tensors]
    torch.library.opcheck(torch.ops.llmctl_kernels.qk_norm_rope_backward.default, (*given, *rows, EPS, 4, *asked))


@pytest.mark.parametrize(
    ("sizes", "rotated", "message"),
    [
        ({"key": (3, 6)}, 4, "key"),
        ({"key": (2, 8)}, 4, "for 3 queries"),
        ({"weight": (5,)}, 4, "weight of query"),
        ({}, 3, "3 rotated"),
        ({}, 6, "6 rotated"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, rotated, message):
    query, key = torch.zeros(3, 8), torch.zeros(sizes.get("key", (3, 8)))
    cos = torch.zeros(3, rotated)
    with pytest.raises(ValueError, match=message):
        qk_norm_rope(query, key, torch.ones(sizes.get("weight", (4,))), None, cos, cos, EPS, 4)
