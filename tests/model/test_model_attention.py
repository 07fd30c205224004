"""Packed attention: documents are isolated, and equal to `transformers`' own attention on each alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.model.attention import use_packed_attention
from llmctl.model.build import ModelShape, build_model
from llmctl.model.loss import causal_lm_loss, hidden_states, use_linear_cross_entropy
from llmctl.tokens.batch import collate, of_sequences
from llmctl.tokens.rows import IGNORED, Row
from llmctl_kernels.attention.documents import causal_attention, per_document

SHAPE = ModelShape(32, 4, 4, 2, 8, 64, 16, 300, 128)


def packed_model():
    model = build_model(SHAPE, seed=1).eval()
    use_packed_attention(model)
    use_linear_cross_entropy(model)
    return model


def logits(model, sequences):
    with torch.no_grad():
        return model.lm_head(hidden_states(model, of_sequences(sequences)))[0]


def some_tokens(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(0, 300, (length,), generator=generator).tolist() for length in lengths]


def dense(query, key, value, window, scale):
    """Reference with a [T, T] mask in float64."""
    length = query.shape[2]
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1).double(), value.repeat_interleave(groups, 1).double()
    place = torch.arange(length)
    distance = place[:, None] - place[None]
    seen = (distance >= 0) & (distance < (window or length))
    scores = (query.double() @ key.transpose(-1, -2) * scale).masked_fill(~seen, float("-inf"))
    return scores.softmax(-1) @ value


@pytest.mark.parametrize("length", [1, 15, 16, 17, 40, 100])
def test_model_equals_transformers_eager_attention(length):
    (tokens,) = some_tokens(length)
    reference = build_model(SHAPE, seed=1).eval()
    reference.set_attn_implementation("eager")
    with torch.no_grad():
        expected = reference(torch.tensor([tokens])).logits[0]
    torch.testing.assert_close(logits(packed_model(), [tokens]), expected, atol=2e-5, rtol=1e-4)


def test_packed_documents_equal_each_alone():
    model, sequences = packed_model(), some_tokens(40, 1, 70, 16, 17)
    alone = torch.cat([logits(model, [sequence]) for sequence in sequences])
    torch.testing.assert_close(logits(model, sequences), alone, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("lengths", [(30, 50), (40, 40)])  # of different lengths, and batched together
def test_changing_one_document_moves_no_logit_of_another(lengths):
    model = packed_model()
    first, second = some_tokens(*lengths)
    changed = [(token + 1) % 300 for token in first]
    before, after = logits(model, [first, second]), logits(model, [changed, second])
    assert torch.equal(before[lengths[0] :], after[lengths[0] :])
    assert not torch.allclose(before[: lengths[0]], after[: lengths[0]])


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    window=st.sampled_from([None, 1, 3, 8, 16, 64]),
    heads=st.sampled_from([(2, 2), (4, 2), (4, 1)]),
)
def test_forward_and_gradients_equal_a_dense_mask(lengths, window, heads):
    torch.manual_seed(0)
    total = sum(lengths)
    inputs = [torch.randn(1, count, total, 8, requires_grad=True) for count in (heads[0], heads[1], heads[1])]
    doubles = [t.detach().double().requires_grad_() for t in inputs]
    out = per_document(*inputs, tuple(lengths), window, 8**-0.5)
    pieces, at = [], 0
    for length in lengths:
        pieces.append(dense(*(t[:, :, at : at + length] for t in doubles), window, 8**-0.5))
        at += length
    expected = torch.cat(pieces, 2)
    torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=1e-4)
    direction = torch.randn_like(expected)
    (out.double() * direction).sum().backward()
    (expected * direction).sum().backward()
    for mine, reference in zip(inputs, doubles, strict=True):
        assert mine.grad is not None
        torch.testing.assert_close(mine.grad.double(), reference.grad, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("window", [None, 16])
@pytest.mark.parametrize("lengths", [(48, 48), (7, 61, 33)])
def test_in_bfloat16_it_stays_near_float64(lengths, window):
    torch.manual_seed(0)
    total = sum(lengths)
    inputs = [torch.randn(1, count, total, 16).bfloat16().requires_grad_() for count in (4, 2, 2)]
    doubles = [t.detach().double().requires_grad_() for t in inputs]
    out = per_document(*inputs, lengths, window, 0.25)
    pieces = [dense(*parts, window, 0.25) for parts in zip(*(t.split(lengths, 2) for t in doubles), strict=True)]
    expected = torch.cat(pieces, 2)
    direction = torch.randn_like(expected)
    (out.double() * direction).sum().backward()
    (expected * direction).sum().backward()
    assert (out.double() - expected).norm() < 8e-3 * expected.norm()
    for mine, reference in zip(inputs, doubles, strict=True):
        assert mine.grad is not None
        assert reference.grad is not None
        assert (mine.grad.double() - reference.grad).norm() < 1.2e-2 * reference.grad.norm()


def test_a_window_costs_less_than_a_dense_mask():
    """Blocks of the window, never [T, T]: the memory of 16 times the length grows by 16, not by 256."""
    query = torch.randn(1, 1, 4096, 8)
    largest = 0
    original = torch.nn.functional.scaled_dot_product_attention

    def watched(q, k, v, attn_mask=None, **named):
        nonlocal largest
        largest = max(largest, 0 if attn_mask is None else attn_mask.numel())
        return original(q, k, v, attn_mask=attn_mask, **named)

    torch.nn.functional.scaled_dot_product_attention = watched
    try:
        causal_attention(query, query, query, 256, 1.0)
    finally:
        torch.nn.functional.scaled_dot_product_attention = original
    assert 0 < largest <= 2 * 256 * 256


SMALL = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2,
         "pad_token_id": None, "bos_token_id": None, "eos_token_id": None}  # fmt: skip
WINDOW = {"sliding_window": 8}
ARCHITECTURES = {
    "olmo3": SMALL | WINDOW | {"num_hidden_layers": 4},
    "llama": SMALL | {"num_hidden_layers": 2},
    "qwen3": SMALL | {"num_hidden_layers": 2, "head_dim": 16},
    "mistral": SMALL | WINDOW | {"num_hidden_layers": 2},
    "gemma": SMALL | {"num_hidden_layers": 2, "head_dim": 16},
    "gemma3_text": SMALL | WINDOW | {"num_hidden_layers": 6, "head_dim": 16, "query_pre_attn_scalar": 16},
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_other_architectures_are_what_transformers_makes_of_them(architecture):
    """Logits and gradients, packed and alone, beside `transformers`' eager attention on each document."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture, **ARCHITECTURES[architecture])
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    sequences = some_tokens(20, 1, 33)
    labels = [torch.tensor([sequence]) for sequence in sequences]
    outs = [model(tokens, use_cache=False).logits[0] for tokens in labels]
    losses = [torch.nn.functional.cross_entropy(o[:-1], t[0, 1:], reduction="sum") for o, t in zip(outs, labels, strict=True)]
    sum(losses[::2]).backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    use_packed_attention(model)
    use_linear_cross_entropy(model)
    torch.testing.assert_close(logits(model, sequences), torch.cat(outs).detach(), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(logits(model, sequences[2:]), outs[2].detach(), atol=2e-5, rtol=1e-4)
    rows = [Row(np.array(s), np.array([*s[1:], IGNORED]), [len(s)]) for s in sequences]
    total, _ = causal_lm_loss(model, collate(rows))
    torch.testing.assert_close(total, sum(losses[::2]).detach(), atol=1e-3, rtol=1e-5)
    total.backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, expected[name], atol=1e-3, rtol=1e-3, msg=name)
