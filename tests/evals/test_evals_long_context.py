"""Scores over a long context: what reading it once gives is what reading all of it each time gives."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from llmctl.evals.continuations import Fork, continuation_scores
from llmctl.evals.long_context import Answered, answer, scores_by
from llmctl.evals.plots import plot_curves, plot_needles
from llmctl.evals.score import token_log_probabilities
from llmctl.model.attention import attention_implementation, use_packed_attention
from llmctl.model.build import ModelShape, build_model
from llmctl.suites.haystack import Haystack
from llmctl.suites.long_tasks import long_question
from llmctl.suites.task import Question


@pytest.fixture(scope="module")
def model():
    built = build_model(ModelShape(32, 2, 2, 2, 16, 64, window=16, vocab_size=512, max_length=1024), seed=3)
    torch.nn.init.normal_(built.lm_head.weight, std=0.3)
    use_packed_attention(built)
    return built.eval()


@pytest.fixture(scope="module")
def haystack(tokenizer, texts):
    return Haystack(tokenizer, texts[:3], 2000)


@pytest.mark.parametrize("task", ["needle", "variables"])
def test_answers_are_those_of_whole_sequences_without_a_cache(model, tokenizer, haystack, task):
    for number in range(4):
        question = long_question(task, 700, number, 1, tokenizer, haystack)
        assert question is not None
        before, chosen = list(question.context), 0
        for blank in question.blanks:
            before += blank.lead
            whole = token_log_probabilities(model, [before + choice for choice in blank.choices])
            scored = zip(whole, blank.choices, blank.text.choices, strict=True)
            per_byte = [scores[-len(ids) :].sum() / len(text.encode()) for scores, ids, text in scored]
            chosen += int(np.argmax(per_byte)) == blank.text.answer
            before += blank.choices[blank.text.answer]
        found = answer(model, question)
        assert found.chosen == chosen / len(question.blanks)
        assert (found.task, found.length, found.depth, found.chance) == (task, 700, question.depth, 0.25)


def greedy(model, context: list[int]) -> list[int]:
    """Four tokens that `transformers` writes."""
    with torch.no_grad(), attention_implementation(model, "sdpa"):
        out = model.generate(input_ids=torch.tensor([context]), max_new_tokens=4, do_sample=False, use_cache=True, pad_token_id=1)
    return out[0, len(context) :].tolist()


def test_exact_match_is_what_greedy_decoding_writes(model, tokenizer, haystack):
    """The right text is put where greedy decoding would write it, or something else would."""
    question = long_question("needle", 600, 0, 1, tokenizer, haystack)
    assert question is not None
    (blank,) = question.blanks
    context = question.context + blank.lead
    ids = greedy(model, context)
    right = replace(blank, lead=[], text=Question("", ("what it writes", " 12345."), 0), choices=[ids, blank.choices[0]])
    asked = replace(question, context=context, blanks=[right])
    assert answer(model, asked).exact == 1.0
    other = replace(right, text=replace(right.text, answer=1))
    assert answer(model, replace(asked, blanks=[other])).exact == 0.0
    # Of several blanks those count that come before the first mistake.
    assert answer(model, replace(asked, blanks=[right, other])).exact == 0.5
    after = replace(right, choices=[greedy(model, context + blank.choices[0]), blank.choices[0]])
    assert answer(model, replace(asked, blanks=[other, after])).exact == 0.0


def test_the_likeliest_tokens_are_those_of_the_logits(model):
    generator = np.random.default_rng(0)
    prefix, trunk, choice = (generator.integers(0, 512, size).tolist() for size in (50, 5, 30))
    expected = []
    for place in range(len(choice)):
        with torch.no_grad(), attention_implementation(model, "sdpa"):
            best = int(model(torch.tensor([prefix + trunk + choice[:place]])).logits[0, -1].argmax())
        expected.append(place % 2 == 0)
        choice[place] = best if place % 2 == 0 else (best + 1) % 512
    ((score,),) = continuation_scores(model, prefix, [Fork(trunk, [choice])])
    assert score.likeliest.tolist() == expected


class Largest(TorchFunctionMode):
    """The most elements of any tensor that a function of torch gives."""

    elements = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.elements = max(self.elements, out.numel())
        return out


def test_a_long_prefix_makes_no_square_mask(model):
    prefix = np.random.default_rng(0).integers(0, 512, 8192).tolist()
    with Largest() as largest:
        continuation_scores(model, prefix, [Fork([1], [[2], [3, 4]])])
    assert 8192 * 32 <= largest.elements < 8192 * 8192 / 16


def test_scores_are_means_with_their_errors():
    answers = [Answered("needle", 512, 0.0, chosen, exact, 0.25) for chosen, exact in ((1, 0), (0, 0), (1, 1), (1, 0))]
    answers.append(Answered("needle", 1024, 0.5, 1, 1, 0.25))
    found = scores_by(answers, lambda one: one.length)
    assert (found[512].chosen, found[512].exact, found[512].questions) == (0.75, 0.25, 4)
    assert found[512].chosen_error == pytest.approx(math.sqrt(0.75 * 0.25 * 4 / 3 / 4))
    assert math.isnan(found[1024].chosen_error)


def test_pictures_are_drawn(tmp_path):
    curve = [(0, 16, 5.0, 0.1), (16, 64, 4.0, 0.05), (64, 512, 3.5, math.nan)]
    plot_curves({"before": curve, "after": curve}, {"after": curve}, 64, 3, tmp_path / "curve.png")
    answers = [Answered("needle", n, d, 1, 0, 0.25) for n in (512, 4096) for d in (0.0, 0.5, 1.0) for _ in range(2)]
    plot_needles({"a": scores_by(answers, lambda one: (one.depth or 0.0, one.length))}, tmp_path / "needle.png")
    for name in ("curve", "needle"):
        data = (tmp_path / f"{name}.png").read_bytes()
        assert data.startswith(b"\x89PNG")
        assert len(data) > 5000
