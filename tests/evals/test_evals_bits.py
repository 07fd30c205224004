"""Bits per byte of documents that are longer than the context."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmctl.evals.bits import bits_per_byte, document_losses, first_token, loss_by_range, windows
from llmctl.evals.positions import by_range
from llmctl.model.attention import use_packed_attention
from llmctl.model.build import ModelShape, build_model


@pytest.fixture(scope="module")
def model() -> Any:
    built = build_model(ModelShape(32, 2, 2, 2, 16, 64, window=128, vocab_size=512, max_length=128), seed=1)
    torch.nn.init.normal_(built.lm_head.weight, std=0.5)  # so that what a token sees matters
    use_packed_attention(built)
    return built.eval()


@given(st.integers(1, 200), st.integers(1, 40), st.integers(1, 60))
def test_windows_score_every_token_once_with_enough_before_it(size, seq_len, stride):
    ids, at = list(range(size)), 1
    for window, count in windows(ids, seq_len, stride):
        assert 1 <= count < len(window) <= seq_len + 1
        scored = window[-count:]
        assert scored == ids[at : at + count]
        assert len(window) - count >= min(at, seq_len - min(stride, seq_len) + 1)
        at += count
    assert at == size


def test_sliding_windows_score_as_each_window_alone_does(model, tokenizer, texts):
    text, seq_len, stride = texts[0][:700], 64, 16
    ids = [tokenizer.eos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
    (found,) = document_losses(model, tokenizer, [text], seq_len, stride)
    assert len(found) == len(ids) - 1 > 2 * seq_len
    model.set_attn_implementation("sdpa")
    try:
        for at in range(1, len(ids)):
            start = 0 if at <= seq_len else math.ceil((at - seq_len) / stride) * stride
            with torch.no_grad():
                logits = model(torch.tensor([ids[start:at]])).logits[0, -1].double()
            assert found[at - 1] == pytest.approx(-float(logits.log_softmax(-1)[ids[at]]), abs=1e-4)
    finally:
        use_packed_attention(model)


def test_without_a_stride_windows_are_disjoint_and_short_texts_are_the_same_with_any(model, tokenizer, texts):
    long, short = texts[0][:700], "x = 1\n"
    apart = bits_per_byte(model, tokenizer, [long, short], 64)
    assert bits_per_byte(model, tokenizer, [long, short], 64, 64) == apart
    sliding = bits_per_byte(model, tokenizer, [long, short], 64, 16)
    assert (sliding.tokens, sliding.bytes) == (apart.tokens, apart.bytes)
    assert sliding.bits_per_byte != apart.bits_per_byte
    assert bits_per_byte(model, tokenizer, [short], 64, 16) == bits_per_byte(model, tokenizer, [short], 64)


def test_a_document_begins_with_what_the_tokenizer_puts_there_or_with_the_end_of_text(tokenizer):
    def prefixing(text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [2] * add_special_tokens + [ord(sign) for sign in text]}

    class Own(SimpleNamespace):
        __call__ = staticmethod(prefixing)

    assert first_token(Own(eos_token_id=1)) == 2
    assert first_token(tokenizer) == tokenizer.eos_token_id


def test_loss_by_range_counts_each_token_and_equals_that_of_documents_of_one_length():
    generator = np.random.default_rng(0)
    even = [generator.random(40) for _ in range(5)]
    found, expected = loss_by_range(even, [0, 8, 40]), by_range(np.stack(even), [0, 8, 40])
    for place, (mean, error) in expected.items():
        assert found[place] == (pytest.approx(mean), pytest.approx(error), 5)
    ragged = [np.array([1.0, 1.0, 4.0]), np.array([3.0])]
    assert loss_by_range(ragged, [0, 2, 4, 8]) == {
        (0, 2): (pytest.approx(5 / 3), pytest.approx(math.sqrt(2 * 2 * (4 / 3) ** 2) / 3), 2),
        (2, 4): (4.0, pytest.approx(math.nan, nan_ok=True), 1),
    }
