"""Attention of a part of a row is that part of the attention of the whole row, wherever documents and parts are cut."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.model import sequence
from llmctl.model.attention import packed_attention
from llmctl.model.sequence import attention_of_part, documents_inside, end_of_document
from llmctl_kernels.attention import best


def boundaries(lengths: list[int], device: str = "cpu") -> torch.Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).int().to(device)


@pytest.mark.parametrize("block", [3, 256])
@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    cuts=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    window=st.sampled_from([None, 1, 3, 8, 16, 64]),
    heads=st.sampled_from([(2, 2), (4, 2), (4, 1)]),
)
def test_it_is_the_slice_of_the_whole_with_its_gradients(block, lengths, cuts, window, heads):
    torch.manual_seed(0)
    total = sum(lengths)
    start = round(min(cuts) * (total - 1))
    end = max(start + 1, round(max(cuts) * total))
    inputs = [torch.randn(1, count, total, 8, requires_grad=True) for count in (heads[0], heads[1], heads[1])]
    shared = (tuple(lengths), boundaries(lengths), max(lengths), window, 8**-0.5, "per_document")
    direction = torch.randn(1, end - start, heads[0], 8)
    expected = packed_attention(*inputs, *shared)[:, start:end]
    gradients = torch.autograd.grad((expected * direction).sum(), inputs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequence, "BLOCK", block)
        out = attention_of_part(inputs[0][:, :, start:end], inputs[1], inputs[2], start, *shared)
        found = torch.autograd.grad((out * direction).sum(), inputs)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-4)
    for mine, theirs in zip(found, gradients, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-3)


def test_what_is_inside_of_a_part():
    assert documents_inside((10, 5, 9), 0, 8) == (0, (8,))
    assert documents_inside((10, 5, 9), 8, 8) == (8, (2, 5, 1))
    assert documents_inside((10, 5, 9), 16, 8) == (1, (8,))
    assert documents_inside((8, 8), 8, 8) == (0, (8,))


@pytest.mark.parametrize("window", [None, 512])
def test_no_mask_has_a_row_for_every_query(window, monkeypatch):
    """A block's queries, and the keys that they see: a fixed number of rows, and with a window of columns too."""
    largest = 0
    original = torch.nn.functional.scaled_dot_product_attention

    def watched(q, k, v, attn_mask=None, **named):
        nonlocal largest
        largest = max(largest, attn_mask.untyped_storage().nbytes() // attn_mask.element_size())
        return original(q, k, v, attn_mask=attn_mask, **named)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    end_of_document(torch.randn(1, 1, 2048, 8), *torch.randn(2, 1, 1, 4096, 8), window, 1.0)
    assert largest == sequence.BLOCK * (4096 if window is None else sequence.BLOCK + 511)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("window", [None, 16])
@pytest.mark.parametrize("start", [0, 40, 100, 130])
def test_on_a_gpu_the_kernel_makes_the_same_of_it(window, start):
    torch.manual_seed(0)
    lengths = [100, 7, 90, 1, 58]
    inputs = [torch.randn(1, count, 256, 64, device="cuda").bfloat16().requires_grad_() for count in (4, 2, 2)]
    shared = (tuple(lengths), boundaries(lengths, "cuda"), max(lengths), window, 0.125, best("cuda", 64))
    part = slice(start, start + 64)
    direction = torch.randn(1, 64, 4, 64, device="cuda")
    expected = packed_attention(*inputs, *shared)[:, part]
    out = attention_of_part(inputs[0][:, :, part], inputs[1], inputs[2], start, *shared)
    torch.testing.assert_close(out, expected, atol=1e-2, rtol=1e-2)
    theirs = torch.autograd.grad((expected.float() * direction).sum(), inputs)
    mine = torch.autograd.grad((out.float() * direction).sum(), inputs)
    for found, wanted in zip(mine, theirs, strict=True):
        torch.testing.assert_close(found, wanted, atol=2e-2, rtol=2e-2)
