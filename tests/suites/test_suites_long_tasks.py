"""Questions over a long context: of the length that is asked for, and with answers that follow from the text."""

import random
import re
from collections import Counter
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmctl.recipe.long_schema import LongTask
from llmctl.suites.haystack import Haystack
from llmctl.suites.long_tasks import GOODS, MAKERS, long_question

TASKS = get_args(LongTask)
LONGEST = 6000


@pytest.fixture(scope="module")
def haystack(tokenizer, texts):
    return Haystack(tokenizer, texts[:6], 2 * LONGEST)


def tokens_of(question) -> int:
    return len(question.context) + sum(len(b.lead) + max(map(len, b.choices)) for b in question.blanks)


def rights(question) -> list[str]:
    """The right texts of the blanks, without what ends them."""
    return [blank.text.choices[blank.text.answer].strip(" .,") for blank in question.blanks]


def test_every_task_of_the_recipe_is_made():
    assert tuple(MAKERS) == TASKS


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(task=st.sampled_from(TASKS), length=st.integers(600, LONGEST), number=st.integers(0, 50), seed=st.integers(0, 5))
def test_questions_have_their_length_and_true_answers(tokenizer, haystack, task, length, number, seed):
    question = long_question(task, length, number, seed, tokenizer, haystack)
    assert question is not None
    assert 0.99 * length <= tokens_of(question) <= length
    assert question.context[0] == tokenizer.eos_token_id
    assert question == long_question(task, length, number, seed, tokenizer, haystack)
    text = tokenizer.decode(question.context[1:])
    asked = tokenizer.decode(question.blanks[0].lead)
    for blank in question.blanks:
        assert len(set(blank.text.choices)) == 4
        assert [tokenizer.decode(choice) for choice in blank.choices] == list(blank.text.choices)
    assert rights(question) == expected(task, text, asked)
    wrong = [c.strip(" .,") for b in question.blanks for n, c in enumerate(b.text.choices) if n != b.text.answer]
    assert not set(wrong) & (set(rights(question)) if task != "aggregation" else set())
    if task not in ("needle", "aggregation"):
        assert all(re.search(rf"\b{other}\b", text) for other in wrong)


def expected(task: str, text: str, asked: str) -> list[str]:
    """The answers, worked out anew from the text that the model reads."""
    if task.startswith("needle"):
        (key,) = re.findall(r"numbers? of (\w+ \w+)", asked)
        return re.findall(rf"The number of {key} is (\d+)\.", text)
    if task == "variables":
        held = dict(re.findall(r"VAR (\w+) = (\w+);", text))
        (value,) = re.findall(r"hold (\d+)", asked)

        def number(name: str) -> str:
            return number(held[name]) if name in held else name

        return [name for name in held if number(name) == value]
    if task in ("common_words", "frequent_words"):
        (listed,) = re.findall(r"\nList: (.*)$", text)
        (first, one), (second, two), (third, three), (_, four) = Counter(listed.split()).most_common(4)
        assert one > two > three > four
        return [first, second, third]
    (kind,) = [good for good in GOODS if good in asked]
    amounts = [int(amount) for amount in re.findall(rf"Entry: (\d+) crates of {kind}\.", text)]
    measure = {"number": len, "largest": max, "together": sum}
    return [str(found(amounts)) for word, found in measure.items() if word in asked]


@pytest.mark.parametrize("length", [600, 16_384])
@pytest.mark.parametrize("turn", range(3))
def test_the_size_of_a_number_does_not_tell_that_it_is_right(turn, length):
    """Of each kind of aggregation, every rank of the right choice among the four is as frequent as any other."""
    ranks = Counter()
    for number in range(turn, 1800, 3):
        (blank,) = MAKERS["aggregation"](random.Random(number), number, length, 0, None).blanks
        choices = [int(choice.strip(" .")) for choice in blank.choices]
        ranks[sorted(choices).index(choices[blank.answer])] += 1
    assert all(0.15 < ranks[rank] / ranks.total() < 0.35 for rank in range(4)), ranks


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(length=st.integers(600, LONGEST), depth=st.floats(0, 1))
def test_the_needle_is_where_it_is_said_to_be(tokenizer, haystack, length, depth):
    question = long_question("needle", length, 3, 1, tokenizer, haystack, depth)
    assert question.depth == depth
    before = tokenizer.decode(question.context[1:]).split("\nThe number of")[0]
    needle = 30  # tokens, at most
    place = len(tokenizer(before)["input_ids"])
    assert abs(place - depth * (length - needle)) <= max(32, length / 50) + 2 * needle


def test_other_numbers_and_seeds_are_other_questions(tokenizer, haystack):
    made = [long_question("needle", 700, n, seed, tokenizer, haystack) for n in range(4) for seed in (1, 2)]
    assert len({tuple(q.context) for q in made}) == 8
    assert len({q.depth for q in made}) == 8


def test_where_it_does_not_fit_there_is_no_question(tokenizer, haystack):
    assert all(long_question(task, 20, 0, 1, tokenizer, haystack) is None for task in TASKS)


def test_without_text_sentences_are_made(tokenizer):
    haystack = Haystack(tokenizer, ["", " \n"], 2000)
    assert haystack.generated
    question = long_question("needle", 900, 0, 1, tokenizer, haystack)
    assert tokens_of(question) == 900
    assert re.search(r"\nThe \w+ \w+ \w+ the \w+ \w+ in the \w+\.", tokenizer.decode(question.context))


def test_the_filler_goes_round_a_short_text(tokenizer):
    haystack = Haystack(tokenizer, ["one line\nanother line\n"], 4000)
    assert not haystack.generated
    assert tokens_of(long_question("variables", 1500, 0, 1, tokenizer, haystack)) == 1500
