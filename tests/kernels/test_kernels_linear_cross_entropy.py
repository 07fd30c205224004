"""Linear layer and cross entropy in one: equal to float64 with all logits, whatever is ignored, frozen or chunked."""

from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from llmctl_kernels import linear_cross_entropy as module
from llmctl_kernels.linear_cross_entropy import (
    IGNORED,
    chunk_length,
    even_length,
    linear_cross_entropy,
    plain_linear_cross_entropy,
)

BOTH = pytest.mark.parametrize("fused", [False, True], ids=["torch", "triton"])


def problem(device, tokens=37, width=12, vocabulary=53, dtype=torch.float32, ignored=5, seed=0) -> tuple[Any, Any, Any]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, width, generator=generator).to(device, dtype).requires_grad_()
    weight = torch.randn(vocabulary, width, generator=generator).to(device, dtype).requires_grad_()
    labels = torch.randint(0, vocabulary, (tokens,), generator=generator)
    labels[torch.randperm(tokens, generator=generator)[:ignored]] = IGNORED
    return hidden, weight, labels.to(device)


def truth(hidden, weight, labels, z_loss, factor=1.0) -> list[Any]:
    """Losses and gradients in float64."""
    hidden, weight = (tensor.detach().double().requires_grad_() for tensor in (hidden, weight))
    total, z_total = plain_linear_cross_entropy(hidden, weight, labels, z_loss, torch.float64)
    (total * factor).backward()
    return [total.detach(), z_total.detach(), hidden.grad, weight.grad]


def found(hidden, weight, labels, z_loss, fused, kind=torch.float32, factor=1.0) -> list[Any]:
    total, z_total = linear_cross_entropy(hidden, weight, labels, z_loss, kind, fused)
    (total * factor).backward()
    return [total.detach(), z_total, hidden.grad, weight.grad]


def small_chunks(monkeypatch, tokens):
    monkeypatch.setattr(module, "chunk_length", lambda vocabulary, on_gpu, fused: tokens)
    monkeypatch.setattr(module, "LEAST_TOKENS", 1)


def assert_close(ours, theirs, tolerance=2e-5):
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=tolerance, atol=tolerance)


@BOTH
@pytest.mark.parametrize("z_loss", [0.0, 0.1])
@pytest.mark.parametrize(("tokens", "vocabulary", "chunk"), [(37, 53, 8), (1, 300, 128), (20, 1, 7), (33, 64, 33)])
def test_losses_and_gradients_equal_float64(monkeypatch, device, fused, z_loss, tokens, vocabulary, chunk):
    small_chunks(monkeypatch, chunk)
    inputs = problem(device, tokens, vocabulary=vocabulary, ignored=tokens // 6)
    assert_close(found(*inputs, z_loss, fused, factor=0.25), truth(*inputs, z_loss, factor=0.25))


@BOTH
def test_a_vocabulary_of_several_blocks_that_ends_inside_one(monkeypatch, device, fused):
    from llmctl_kernels import softmax_gradient

    monkeypatch.setattr(softmax_gradient, "BLOCK", 16)
    inputs = problem(device, vocabulary=53)
    assert_close(found(*inputs, 0.01, fused), truth(*inputs, 0.01))


@BOTH
def test_a_shard_without_labels_costs_nothing_and_is_no_nan(device, fused):
    inputs = problem(device, tokens=9, ignored=9)
    total, z_total, of_hidden, of_weight = found(*inputs, 0.1, fused)
    assert total == z_total == 0
    assert not of_hidden.any()
    assert not of_weight.any()


@BOTH
def test_no_tokens_at_all(device, fused):
    total, _, of_hidden, of_weight = found(*problem(device, tokens=0, ignored=0), 0.1, fused)
    assert total == 0
    assert of_hidden.shape == (0, 12)
    assert not of_weight.any()


@BOTH
@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_what_is_frozen_gets_no_gradient_and_none_is_made(device, fused, frozen):
    hidden, weight, labels = problem(device)
    expected = truth(hidden, weight, labels, 0.1)
    (hidden if frozen == "hidden" else weight).requires_grad_(False)
    ours = found(hidden, weight, labels, 0.1, fused)
    assert ours[2 if frozen == "hidden" else 3] is None
    assert_close(
        [part for part in ours if part is not None], [expected[0], expected[1], expected[3 if frozen == "hidden" else 2]]
    )
    wanted = (frozen == "weight", frozen == "hidden")
    made = module._linear_cross_entropy(hidden, weight, labels, 0.1, torch.float32, fused, *wanted)
    assert made[2 if frozen == "hidden" else 3].numel() == 0


@BOTH
def test_without_gradients_only_the_sums_are_computed(device, fused):
    hidden, weight, labels = problem(device)
    expected = truth(hidden, weight, labels, 0.1)
    with torch.no_grad():
        total, z_total = linear_cross_entropy(hidden, weight, labels, 0.1, torch.float32, fused)
    assert not total.requires_grad
    assert_close([total, z_total], expected[:2])


@BOTH
def test_the_loss_without_z_loss_is_the_difference_of_the_sums(device, fused):
    inputs = problem(device)
    total, z_total, *_ = found(*inputs, 0.1, fused)
    bare, none, *_ = truth(*inputs, 0.0)
    assert none == 0
    torch.testing.assert_close((total - z_total).double(), bare, rtol=1e-5, atol=1e-5)


@BOTH
def test_the_weights_gradient_gathers_many_chunks_in_fp32(monkeypatch, device, fused):
    """Small contributions that bf16 would swallow: the error with 64 chunks is that of one, rounded once."""
    small_chunks(monkeypatch, 4)
    hidden, weight, labels = problem(device, tokens=256, dtype=torch.bfloat16, ignored=0)
    of_weight = found(hidden, weight, labels, 0.0, fused, torch.bfloat16)[3]
    kept = module._linear_cross_entropy(hidden, weight, labels, 0.0, torch.bfloat16, fused, False, True)[3]
    assert kept.dtype == torch.float32
    assert torch.equal(of_weight, kept.to(torch.bfloat16))
    exact = truth(hidden, weight, labels, 0.0)[3]
    plain = plain_gradients(hidden, weight, labels)[1].double()
    assert (of_weight.double() - exact).norm() <= 2 * (plain - exact).norm()


def plain_gradients(hidden, weight, labels) -> list[Any]:
    hidden, weight = (tensor.detach().clone().requires_grad_() for tensor in (hidden, weight))
    plain_linear_cross_entropy(hidden, weight, labels, 0.0, torch.bfloat16)[0].backward()
    return [hidden.grad, weight.grad]


@BOTH
def test_in_bfloat16_the_hidden_states_gradient_is_no_worse_than_twice_torchs(device, fused):
    hidden, weight, labels = problem(device, tokens=64, dtype=torch.bfloat16)
    exact = truth(hidden, weight, labels, 0.0)[2]
    of_hidden = found(hidden, weight, labels, 0.0, fused, torch.bfloat16)[2]
    plain = plain_gradients(hidden, weight, labels)[0].double()
    assert (of_hidden.double() - exact).norm() <= 2 * (plain - exact).norm()


@BOTH
def test_large_logits_do_not_overflow(device, fused):
    hidden, weight, labels = problem(device)
    with torch.no_grad():
        hidden *= 300
    assert_close(found(hidden, weight, labels, 0.0, fused), truth(hidden, weight, labels, 0.0), tolerance=2e-4)


@BOTH
def test_the_same_bits_twice_and_inputs_are_left_alone(monkeypatch, device, fused):
    small_chunks(monkeypatch, 8)
    hidden, weight, labels = problem(device)
    before = [tensor.detach().clone() for tensor in (hidden, weight, labels)]
    first = [tensor.clone() for tensor in found(hidden, weight, labels, 0.1, fused)]
    hidden.grad = weight.grad = None
    assert all(torch.equal(one, other) for one, other in zip(first, found(hidden, weight, labels, 0.1, fused), strict=True))
    assert all(torch.equal(one, other) for one, other in zip(before, (hidden, weight, labels), strict=True))


@BOTH
def test_checkpointing_gives_the_same_gradients(device, fused):
    hidden, weight, labels = problem(device)
    expected = found(hidden, weight, labels, 0.1, fused)
    again = [tensor.detach().clone().requires_grad_() for tensor in (hidden, weight)]
    loss = checkpoint(lambda h, w: linear_cross_entropy(h, w, labels, 0.1, torch.float32, fused)[0], *again, use_reentrant=False)
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    assert torch.equal(again[0].grad, expected[2])
    assert torch.equal(again[1].grad, expected[3])


@BOTH
def test_compiled_graphs_keep_it(device, fused):
    hidden, weight, labels = problem(device)
    expected = found(hidden, weight, labels, 0.1, fused)
    hidden.grad = weight.grad = None
    compiled = torch.compile(linear_cross_entropy, backend="aot_eager", fullgraph=True)
    total, _ = compiled(hidden, weight, labels, 0.1, torch.float32, fused)
    total.backward()
    assert torch.equal(total.detach(), expected[0])
    torch.testing.assert_close(hidden.grad, expected[2])
    torch.testing.assert_close(weight.grad, expected[3])


@BOTH
def test_the_operator_is_registered_as_torch_wants_it(device, fused):
    arguments = (*problem(device, tokens=6), 0.1, torch.float32, fused, True, True)
    torch.library.opcheck(module._linear_cross_entropy, arguments)


def test_chunks_on_a_gpu_are_even_and_hold_whole_tiles():
    most = chunk_length(100_352, True, True)
    assert most % 128 == 0
    assert most * 100_352 <= 2**28
    assert chunk_length(100_352, True) * 100_352 <= 2**26
    assert even_length(8192, 100_352, True, True) == 2048
    assert even_length(100, 100_352, True, True) == most
    assert all(even_length(tokens, 100_352, True, True) <= most for tokens in (2561, 5000, 8192, 65_536))
