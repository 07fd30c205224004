"""The guard: what has become worse is caught, what is equal or noise is not."""

import math

import numpy as np
import pytest
import torch

from llmctl.evals.bits import bits_per_byte, document_bits
from llmctl.evals.guard import Comparison, bits_comparison, ratio_difference
from llmctl.model.attention import use_packed_attention
from llmctl.model.build import ModelShape, build_model


def test_the_difference_of_totals_and_its_error_by_hand():
    before, after, sizes = np.array([10.0, 30.0, 20.0]), np.array([12.0, 33.0, 21.0]), np.array([5.0, 20.0, 15.0])
    difference, error = ratio_difference(before, after, sizes)
    assert difference == pytest.approx(6 / 40)
    # residuals 2 - 0.75, 3 - 3, 1 - 2.25
    assert error == pytest.approx(math.sqrt(3 / 2 * (1.25**2 + 0 + 1.25**2)) / 40)
    assert math.isnan(ratio_difference(before[:1], after[:1], sizes[:1])[1])


def test_the_error_is_that_of_drawing_documents_again():
    chance = np.random.default_rng(0)
    sizes = chance.uniform(100, 2000, 400)
    before = sizes * chance.normal(1.6, 0.3, 400)
    after = before + sizes * chance.normal(0.02, 0.1, 400)
    _, error = ratio_difference(before, after, sizes)
    again = [ratio_difference(before[pick], after[pick], sizes[pick])[0] for pick in chance.integers(0, 400, (2000, 400))]
    assert error == pytest.approx(np.std(again), rel=0.1)


@pytest.mark.parametrize(
    ("after", "error", "better", "verdict"),
    [
        (0.50, 0.01, True, "kept"),
        (0.48, 0.00, True, "kept"),  # 0.02 worse, 0.03 allowed
        (0.46, 0.01, True, "within the error"),  # 0.04 worse, and may be 0.0204
        (0.44, 0.01, True, "worse"),
        (0.44, math.nan, True, "within the error"),
        (0.60, 0.01, True, "kept"),
        (0.60, 0.01, False, "worse"),
        (0.40, 0.01, False, "kept"),
    ],
)
def test_verdicts(after, error, better, verdict):
    assert Comparison("it", 0.5, after, error, 0.03, better).verdict == verdict


def test_a_spoilt_model_is_caught_and_the_same_model_is_not(tokenizer, texts):
    """Bits of the same documents: a little noise in the weights is within what is allowed, much is worse."""
    texts = [text[:3000] for text in texts[:12]]
    sizes = np.array([len(text.encode()) for text in texts], dtype=float)

    def bits(noise: float) -> np.ndarray:
        model = build_model(ModelShape(32, 2, 2, 2, 16, 64, window=16, vocab_size=512, max_length=128), seed=1)
        use_packed_attention(model)
        with torch.no_grad():
            model.lm_head.weight.add_(noise * torch.randn(512, 32, generator=torch.Generator().manual_seed(0)))
        found, _ = document_bits(model.eval(), tokenizer, texts, 64)
        assert found.sum() / sizes.sum() == pytest.approx(bits_per_byte(model, tokenizer, texts, 64).bits_per_byte)
        return found

    clean = bits(0.0)
    assert bits_comparison(clean, bits(0.0), sizes, 0.02).verdict == "kept"
    assert bits_comparison(clean, bits(0.001), sizes, 0.02).verdict == "kept"
    assert bits_comparison(clean, bits(0.5), sizes, 0.02).verdict == "worse"


def test_noise_alone_does_not_fail():
    """Of 400 pairs of equally good models, with 20 % of noise on each of 30 documents and nothing allowed, few are failed."""
    chance = np.random.default_rng(0)
    failed = 0
    for _ in range(400):
        sizes = chance.uniform(500, 1500, 30)
        before, after = (sizes * chance.normal(1.6, 0.3, 30) for _ in range(2))
        failed += bits_comparison(before, after, sizes, 0.0).verdict == "worse"
    assert failed < 0.06 * 400
