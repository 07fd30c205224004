"""Tasks of choices: scored as whole sequences would be, with the examples that fit, and said where they do not."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.errors import StageFailed, UserError
from llmctl.evals.fewshot import evaluate
from llmctl.evals.prompts import encode, encode_pairs
from llmctl.evals.result import Asking
from llmctl.evals.score import token_log_probabilities
from llmctl.evals.shared import common, fork_of, groups_of
from llmctl.model.attention import use_packed_attention
from llmctl.model.build import ModelShape, build_model
from llmctl.suites.task import Question, Task
from llmctl.tokens.template import ensure_template

SHAPE = ModelShape(32, 2, 2, 2, 16, 64, window=16, vocab_size=512, max_length=128)
CHOICES = (" raise\n", " yield\n", " return\n")


@pytest.fixture(scope="module")
def model():
    built = build_model(SHAPE, seed=1)
    use_packed_attention(built)
    return built.eval()


def task_of(count: int = 12, answer: int = 0, **changes: Any) -> Task:
    questions = tuple(Question(f"# {n}:", (f" x = {n}\n", *CHOICES), answer, id=f"q{n}") for n in range(count))
    return replace(Task("own", 1, "", questions, questions[:3]), **changes)


def log_likelihood(model, tokenizer, context: str, choice: str) -> float:
    ((head, tail),) = encode_pairs(tokenizer, [(context, choice)])
    (scores,) = token_log_probabilities(model, [head + tail])
    return float(scores[-len(tail) :].sum())


@pytest.mark.parametrize(
    ("normalisation", "size"),
    [("none", lambda c: 1), ("character", len), ("byte", lambda c: len(c.encode()))],
)
@pytest.mark.parametrize("shots", [0, 3])
def test_the_likeliest_choice_under_each_normalisation(model, tokenizer, normalisation, size, shots):
    task = task_of(normalisation=normalisation)
    result = evaluate(model, tokenizer, task, Asking(seed=1, shots=shots))
    examples = "".join(evaluate(model, tokenizer, task, Asking(1, shots, show=1)).prompts[0].partition("# 0:⟦")[0])
    assert examples.count("# ") == shots
    for question, mine, value in zip(task.questions, result.log_likelihoods, result.values, strict=True):
        whole = [log_likelihood(model, tokenizer, examples + question.context, choice) for choice in question.choices]
        np.testing.assert_allclose(mine, whole, atol=1e-3)
        best = int(np.argmax([score / size(choice) for score, choice in zip(whole, question.choices, strict=True)]))
        assert value == (best == question.answer)
    assert result.also[f"accuracy/{normalisation}"] == result.values
    # The same questions with another choice declared right: one of four is, whatever the model.
    others = [evaluate(model, tokenizer, task_of(answer=n, normalisation=normalisation), Asking(1, 0)).value for n in range(4)]
    assert sum(others) == pytest.approx(1.0)


def test_unconditional_takes_off_what_a_choice_is_likely_without_the_question(model, tokenizer):
    task = task_of(normalisation="unconditional")
    task = replace(task, questions=tuple(replace(q, unconditional="Answer:") for q in task.questions))
    result = evaluate(model, tokenizer, task, Asking())
    for question, value in zip(task.questions, result.values, strict=True):
        surplus = [
            log_likelihood(model, tokenizer, question.context, c) - log_likelihood(model, tokenizer, "Answer:", c)
            for c in question.choices
        ]
        assert value == (int(np.argmax(surplus)) == question.answer)


def test_bits_per_byte_of_the_right_choice(model, tokenizer):
    task = task_of(measure="bits_per_byte", pool=())
    result = evaluate(model, tokenizer, task, Asking())
    question = task.questions[5]
    expected = -log_likelihood(model, tokenizer, question.context, question.choices[0]) / math.log(2) / len(question.choices[0])
    assert result.values[5] == pytest.approx(expected, rel=1e-4)


def test_a_blank_filled_in_the_prompt(model, tokenizer):
    question = Question("", (" is large\n",) * 2, 1, contexts=("So the box", "So the very heavy ball"))
    result = evaluate(model, tokenizer, Task("blank", 1, "", (question,), normalisation="none"), Asking())
    expected = [log_likelihood(model, tokenizer, context, " is large\n") for context in question.contexts]
    np.testing.assert_allclose(result.log_likelihoods[0], expected, atol=1e-3)


def test_groups_count_alike(model, tokenizer):
    task = task_of(9)
    task = replace(task, questions=tuple(replace(q, group="small" if n < 2 else "large") for n, q in enumerate(task.questions)))
    result = evaluate(model, tokenizer, task, Asking())
    assert sum(result.weights) == pytest.approx(1)
    assert result.value == pytest.approx((np.mean(result.values[:2]) + np.mean(result.values[2:])) / 2)
    assert task.chance == pytest.approx(0.25)


def test_examples_that_do_not_fit_are_left_out_and_the_questions_named(model, tokenizer):
    long = Question("# " + "word " * 25 + ":", (" a\n", " b\n"), 0)
    task = task_of(4, pool=(long, long, long))
    result = evaluate(model, tokenizer, task, Asking(1, 3, show=1))
    assert result.fewer == ("q0", "q1", "q2", "q3")
    assert result.cut == ()
    assert 0 < result.prompts[0].count("word") < 75
    assert result.shots == 3
    whole = evaluate(model, tokenizer, task_of(4), Asking(1, 3))
    assert whole.fewer == ()


def test_a_question_longer_than_the_context_keeps_its_end_and_is_named(model, tokenizer):
    question = Question("word " * 300 + "so:", (" yes", " no"), 0, id="endless")
    result = evaluate(model, tokenizer, Task("long", 1, "", (question,)), Asking(show=1))
    assert result.cut == ("endless",)
    assert len(result.prompts[0]) < len(question.context)
    assert "so:⟦ yes⟧" in result.prompts[0]


def test_of_a_choice_longer_than_the_context_what_is_scored_is_what_it_is_divided_by(model, tokenizer):
    long = " word" * 400
    task = Task("long", 1, "", (Question("say:", (long,), 0, id="endless"),), measure="bits_per_byte")
    result = evaluate(model, tokenizer, task, Asking())
    assert result.cut == ("endless",)
    ((_, choice),) = encode_pairs(tokenizer, [("say:", long)])
    read = tokenizer.decode(choice[:128])
    assert len(read) < len(long)
    assert result.values[0] == pytest.approx(-result.log_likelihoods[0][0] / math.log(2) / len(read.encode()))


def test_a_choice_without_tokens_is_named(model, tokenizer):
    task = Task("empty", 1, "", (Question("a", ("b", ""), 0, id="third"),))
    with pytest.raises(UserError, match="third: the choice ''"):
        evaluate(model, tokenizer, task, Asking())


def test_more_examples_than_there_are(model, tokenizer):
    question = Question("a", ("b", "c"), 0, examples=("one\n", "two\n"))
    task = Task("few", 1, "", (question,))
    assert evaluate(model, tokenizer, task, Asking()).shots == 2
    assert evaluate(model, tokenizer, task, Asking(shots=1)).shots == 1
    with pytest.raises(UserError, match="5 examples were asked for, and it comes with 2"):
        evaluate(model, tokenizer, task, Asking(shots=5))


def test_broken_weights_are_named_and_not_scored(tokenizer):
    broken = build_model(SHAPE, seed=1)
    with torch.no_grad():
        broken.lm_head.weight.fill_(math.nan)
    use_packed_attention(broken)
    with pytest.raises(StageFailed, match="own, question q0: the model's logits are no numbers"):
        evaluate(broken.eval(), tokenizer, task_of(1), Asking())


def test_chat_prompts_are_one_message_of_a_user(model, tokenizer):
    with pytest.raises(UserError, match="no chat template"):
        evaluate(model, without_template(tokenizer), task_of(1), Asking(chat=True))
    chatty = without_template(tokenizer)
    ensure_template(chatty)
    shown = evaluate(model, chatty, task_of(2), Asking(1, 1, chat=True, show=1)).prompts[0]
    assert shown.count("user") == 1
    assert shown.index("user") < shown.index("# 0") < shown.index("assistant") < shown.index("x = 0")


def without_template(tokenizer):
    import copy

    found = copy.deepcopy(tokenizer)
    found.chat_template = None
    return found


def test_the_tokens_are_those_of_the_whole_text(tokenizer):
    """White space at the prompt's end goes to the choice, and what a tokenizer puts first stands first."""
    ((head, tail),) = encode_pairs(tokenizer, [("def f(x):\n    return ", "x + 1\n")])
    assert head == encode(tokenizer, "def f(x):\n    return")
    assert tokenizer.decode(head + tail) == "def f(x):\n    return x + 1\n"
    ((head, tail),) = encode_pairs(tokenizer, [("", "x + 1\n")])
    assert head == [tokenizer.eos_token_id]
    assert tokenizer.decode(tail) == "x + 1\n"


TOKENS = st.lists(st.integers(0, 3), min_size=1, max_size=9)


@given(st.lists(TOKENS, min_size=1, max_size=14))
@settings(max_examples=200, deadline=None)
def test_groups_hold_every_question_once_with_a_true_prefix(trunks):
    groups = groups_of(trunks)
    assert sorted(n for group in groups for n in group.members) == list(range(len(trunks)))
    for group in groups:
        beginnings = {tuple(trunks[n][: group.prefix]) for n in group.members}
        assert len(beginnings) == 1
        assert len(next(iter(beginnings))) == group.prefix
        assert group.prefix == 0 or len(group.members) > 1


def test_questions_of_other_examples_are_read_apart():
    first, second = list(range(300)), list(range(1000, 1300))
    trunks = [[7, *(first if n % 2 else second), n, n] for n in range(10)]
    groups = groups_of(trunks)
    assert sorted(len(group.members) for group in groups) == [5, 5]
    assert {group.prefix for group in groups} == {301}
    assert len(groups_of([[7, n] for n in range(10)])) == 1  # parting them would save nothing


@given(st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=5))
@settings(max_examples=200, deadline=None)
def test_a_fork_reads_what_every_pair_is(pairs):
    fork = fork_of(pairs)
    for number, (context, choice) in enumerate(pairs):
        whole = fork.trunk + fork.branches[number]
        assert whole == context + choice
        assert fork.branches[number][fork.first_scored(number) :] == choice
    assert common(fork.trunk, fork.trunk, 99) == len(fork.trunk)
