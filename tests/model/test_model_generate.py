"""Text from a model: the same in every batch, from the distribution asked for, and ended where it should be."""

import numpy as np
import pytest
import torch

from llmctl.model import generate as module
from llmctl.model.attention import use_packed_attention
from llmctl.model.build import ModelShape, build_model
from llmctl.model.generate import Draw, generate, generate_samples, noise
from llmctl.suites.task import Sampling

PROMPTS = ["def f(x):\n", "import", "class A:\n    def __init__(self, name):\n        self.name = name\n", "x = 1\ny ="]


@pytest.fixture(scope="module")
def model(tokenizer):
    built = build_model(ModelShape(32, 2, 2, 2, 16, 64, window=16, vocab_size=512, max_length=128), seed=1)
    for weights in built.parameters():
        weights.data *= 3.0  # far from equal logits
    use_packed_attention(built)
    return built.eval()


@pytest.fixture(scope="module")
def encoded(tokenizer):
    return [tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in PROMPTS]


def texts_of(found):
    return [[one.text for one in of_prompt] for of_prompt in found]


def test_greedy_is_what_transformers_writes_one_by_one(model, tokenizer, encoded):
    ours = generate(model, tokenizer, PROMPTS, 12, [tokenizer.eos_token_id])
    model.set_attn_implementation("sdpa")
    try:
        for ids, written in zip(encoded, ours, strict=True):
            out = model.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False, eos_token_id=[tokenizer.eos_token_id])
            new = [token for token in out[0, len(ids) :].tolist() if token != tokenizer.eos_token_id]
            assert (written.text, written.tokens) == (tokenizer.decode(new), len(new))
    finally:
        use_packed_attention(model)


def test_samples_are_the_same_whatever_the_batch(model, tokenizer, encoded):
    sampling = Sampling(12, stop=(), temperature=0.8, top_p=0.9, samples=3)
    stops = [tokenizer.eos_token_id]
    whole = texts_of(generate_samples(model, tokenizer, encoded, sampling, stops, seed=5))
    assert len({text for texts in whole for text in texts}) == 12
    assert texts_of(generate_samples(model, tokenizer, encoded, sampling, stops, seed=5, tokens=1)) == whole
    keys = ["3", "0"]
    some = generate_samples(model, tokenizer, [encoded[3], encoded[0]], sampling, stops, seed=5, keys=keys)
    assert texts_of(some) == [whole[3], whole[0]]
    assert texts_of(generate_samples(model, tokenizer, encoded, sampling, stops, seed=6)) != whole


def test_prompts_samples_and_tokens_are_drawn_apart(model, tokenizer, encoded):
    sampling = Sampling(12, (), temperature=1.0, samples=2)
    found = texts_of(generate_samples(model, tokenizer, [encoded[0]] * 2, sampling, [1]))
    assert len({text for texts in found for text in texts}) == 4
    draws = torch.stack([noise(f"1/{number}/0", sampling) for number in range(400)])
    draw = Draw(draws, 7, sampling)
    first, second = (draw(torch.zeros(400, 7 + step), torch.zeros(400, 2)).argmax(-1) for step in (0, 1))
    assert 150 < int((first == second).sum()) < 250


def test_more_samples_begin_with_the_fewer(model, tokenizer, encoded):
    few, many = (
        texts_of(generate_samples(model, tokenizer, encoded, Sampling(8, (), 1.0, samples=count), [1])) for count in (2, 4)
    )
    assert [texts[:2] for texts in many] == few


def test_a_cold_sample_is_the_greedy_text(model, tokenizer, encoded):
    greedy = texts_of(generate_samples(model, tokenizer, encoded, Sampling(8, (), samples=2), [1]))
    assert [texts[0] for texts in greedy] == [texts[1] for texts in greedy]
    for sampling in (Sampling(8, (), temperature=1e-4), Sampling(8, (), temperature=1.0, top_p=1e-6)):
        assert [texts[0] for texts in texts_of(generate_samples(model, tokenizer, encoded, sampling, [1]))] == [
            texts[0] for texts in greedy
        ]


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (2.0, 0.7)])
def test_draws_have_the_distribution_asked_for(temperature, top_p):
    logits = torch.tensor([0.0, 2.0, -1.0, 1.0, 0.5])
    expected = (logits / temperature).softmax(-1)
    order = expected.argsort(descending=True)
    kept = int((expected[order].cumsum(-1) < top_p - 1e-6).sum()) + 1
    expected[order[kept:]] = 0.0
    expected /= expected.sum()
    sampling = Sampling(1, (), temperature, top_p)
    draws = torch.stack([noise(f"1/{number}/0", sampling) for number in range(4000)])
    scores = Draw(draws, 7, sampling)(torch.zeros(4000, 7), logits.repeat(4000, 1))
    shares = np.bincount(scores.argmax(-1).numpy(), minlength=5) / 4000
    assert np.abs(shares - expected.numpy()).max() < 4 * 0.5 / np.sqrt(4000)
    assert (shares[expected.numpy() == 0] == 0).all()


def test_a_text_ends_before_the_first_stop(model, tokenizer, encoded, monkeypatch):
    """Stops are cut out of what the model writes without them; the batch ends when its last row has one."""
    free = texts_of(generate_samples(model, tokenizer, encoded, Sampling(30, ()), []))
    stops = tuple(dict.fromkeys(texts[0][9:12] for texts in free))
    expected = [min((texts[0].find(stop) for stop in stops if stop in texts[0]), default=None) for texts in free]
    lengths: list[int] = []
    kept = module.generation_of
    monkeypatch.setattr(module, "generation_of", lambda t, new, *rest: lengths.append(len(new)) or kept(t, new, *rest))
    found = generate_samples(model, tokenizer, encoded, Sampling(30, stops), [tokenizer.eos_token_id])
    for (one,), texts, at in zip(found, free, expected, strict=True):
        assert (one.text, one.ended) == (texts[0][:at], True)
    assert max(lengths) < 30
    assert len(set(lengths)) == 1


def test_a_stop_that_is_never_written_changes_nothing(model, tokenizer, encoded):
    free = generate_samples(model, tokenizer, encoded, Sampling(20, ()), [tokenizer.eos_token_id])
    assert generate_samples(model, tokenizer, encoded, Sampling(20, ("no such text",)), [tokenizer.eos_token_id]) == free
    assert all(one.tokens == 20 and not one.ended for (one,) in free)
