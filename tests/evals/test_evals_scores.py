"""Scores from a model: the same however sequences are packed, and right where the answer is known."""

import math

import numpy as np
import pytest
import torch

from llmctl.evals.bits import bits_per_byte
from llmctl.evals.continuations import Fork, NotFinite, continuation_log_probabilities
from llmctl.evals.positions import by_range, curve_edges, long_enough, position_losses
from llmctl.evals.score import token_log_probabilities
from llmctl.model.attention import use_packed_attention
from llmctl.model.build import ModelShape, build_model


@pytest.fixture(scope="module")
def model(tokenizer):
    shape = ModelShape(32, 2, 2, 2, 16, 64, window=16, vocab_size=512, max_length=128)
    built = build_model(shape, seed=1)
    use_packed_attention(built)
    return built.eval()


def test_scores_are_those_of_transformers_on_each_sequence_alone(model):
    generator = np.random.default_rng(0)
    sequences = [generator.integers(0, 512, size).tolist() for size in (2, 40, 7, 100, 3)]
    ours = token_log_probabilities(model, sequences, tokens_per_pass=64)
    model.set_attn_implementation("sdpa")
    try:
        for sequence, scores in zip(sequences, ours, strict=True):
            with torch.no_grad():
                logits = model(torch.tensor([sequence])).logits[0, :-1].double().log_softmax(-1)
            expected = logits.gather(1, torch.tensor(sequence[1:])[:, None])[:, 0].numpy()
            np.testing.assert_allclose(scores, expected, atol=1e-4)
    finally:
        use_packed_attention(model)


def test_bits_per_byte_of_a_model_that_knows_nothing(model, tokenizer):
    """Equal logits cost log2(V) bits a token."""
    blank = build_model(ModelShape(32, 2, 2, 2, 16, 64, window=16, vocab_size=512, max_length=128), seed=1)
    torch.nn.init.zeros_(blank.lm_head.weight)
    use_packed_attention(blank)
    texts = ["def über(x):\n    return x\n" * 9, "y = 1\n"]
    result = bits_per_byte(blank, tokenizer, texts, 32)
    tokens = sum(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)
    assert result.tokens == tokens
    assert result.bytes == sum(len(text.encode()) for text in texts)
    assert result.bits_per_byte == pytest.approx(tokens * 9 / result.bytes, rel=1e-5)


def test_loss_by_position_splits_the_mean(model, tokenizer, texts):
    sequences = long_enough(tokenizer, ["too short", *texts], 96, limit=3)
    assert [len(ids) for ids in sequences] == [97] * 3
    losses = position_losses(model, sequences)
    whole, _ = by_range(losses, [0, 96])[0, 96]
    parts = by_range(losses, [0, 32, 96])
    assert whole == pytest.approx((parts[0, 32][0] * 32 + parts[32, 96][0] * 64) / 96, rel=1e-5)
    means = losses[:, 32:].mean(axis=1)
    assert parts[32, 96][1] == pytest.approx(np.sqrt(((means - means.mean()) ** 2).sum() / 2 / 3))


@pytest.mark.parametrize("length", [8, 17, 512, 65536])
def test_a_curve_covers_all_positions_in_ranges_that_grow(length):
    edges = curve_edges(length)
    assert (edges[0], edges[-1]) == (0, length)
    sizes = np.diff(edges)
    assert (sizes > 0).all()
    assert len(sizes) <= 32


@pytest.mark.parametrize("prefix", [0, 1, 30])
def test_continuations_of_one_prefix_score_as_whole_sequences(model, prefix):
    """The window of 16 is shorter than the prefix: what the cache drops is what no token may see."""
    generator = np.random.default_rng(0)
    first = generator.integers(0, 512, prefix).tolist()
    sizes = [(9, (4, 2)), (1, (17, 3, 1)), (40, (9,)), (2, (20, 20))] + ([(0, (5, 1))] if prefix else [])
    forks = [
        Fork(generator.integers(0, 512, trunk).tolist(), [generator.integers(0, 512, size).tolist() for size in choices])
        for trunk, choices in sizes
    ]
    ours = continuation_log_probabilities(model, first, forks, tokens_per_pass=150)
    for fork, scores in zip(forks, ours, strict=True):
        whole = token_log_probabilities(model, [first + fork.trunk + choice for choice in fork.branches])
        for mine, theirs, choice in zip(scores, whole, fork.branches, strict=True):
            np.testing.assert_allclose(mine, theirs[-len(choice) :], atol=1e-4)


def test_branches_may_begin_with_tokens_that_are_not_scored(model):
    """As where a blank is filled in the prompt itself: each branch has a prompt of its own."""
    generator = np.random.default_rng(1)
    first, trunk = generator.integers(0, 512, 20).tolist(), generator.integers(0, 512, 3).tolist()
    branches = [generator.integers(0, 512, size).tolist() for size in (6, 4, 5)]
    for prefix in ([], first):
        (ours,) = continuation_log_probabilities(model, prefix, [Fork(trunk, branches, (2, 3, 0))])
        whole = token_log_probabilities(model, [prefix + trunk + branch for branch in branches])
        for mine, theirs, count in zip(ours, whole, (4, 1, 5), strict=True):
            np.testing.assert_allclose(mine, theirs[-count:], atol=1e-4)


@pytest.mark.parametrize("trunk", [[], [7, 3]])
def test_single_tokens_need_no_token_of_their_own_to_be_read(model, trunk):
    fork = Fork(trunk, [[5], [9], [5]])
    assert fork.size == len(trunk)
    (ours,) = continuation_log_probabilities(model, [1, 2, 3], [fork])
    whole = token_log_probabilities(model, [[1, 2, 3, *trunk, token] for token in (5, 9, 5)])
    np.testing.assert_allclose([one[0] for one in ours], [one[-1] for one in whole], atol=1e-4)


def test_logits_that_are_no_numbers_are_named(model):
    broken = build_model(ModelShape(32, 2, 2, 2, 16, 64, window=16, vocab_size=512, max_length=128), seed=1)
    with torch.no_grad():
        broken.get_input_embeddings().weight[77] = math.nan
    use_packed_attention(broken)
    with pytest.raises(NotFinite) as caught:
        continuation_log_probabilities(broken.eval(), [1, 2], [Fork([3], [[4, 5]]), Fork([77], [[4, 5]])])
    assert caught.value.fork == 1
