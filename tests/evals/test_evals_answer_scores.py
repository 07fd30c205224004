"""Scores of generated answers: as the scripts they come from have them, and as the definitions say."""

from itertools import combinations
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.evals.answer_scores import exact_match, last_match, pass_at_k, token_f1


def test_exact_match_is_blind_to_case_articles_punctuation_and_spaces():
    assert exact_match("  The Blue-Green   lake. ", ["a bluegreen lake"]) == 1
    assert exact_match("lake", ["sea", "Lake!"]) == 1
    assert exact_match("theatre", ["atre"]) == 0
    assert exact_match("12", ["12.0"]) == 0
    assert exact_match("lake", []) == 0


@pytest.mark.parametrize(
    ("written", "accepted"),
    [("1,234", "1234"), ("1234.0", "1,234"), ("$72.", "72"), ("-5", "-5.00"), ("1234567", "1,234,567.0"), ("+3", "3")],
)
def test_numbers_are_compared_as_numbers(written, accepted):
    assert exact_match(f"so it is {written}", [accepted], r"(-?[$+0-9.,]+)") == 1


@pytest.mark.parametrize(
    ("written", "accepted"), [("1,23", "123"), ("12", "-12"), ("1.5", "15"), ("nan", "nan0"), ("7", "seven")]
)
def test_other_numbers_are_others(written, accepted):
    assert exact_match(written, [accepted], r"\S+") == 0


def test_the_last_match_is_the_answer():
    assert last_match("Answer: 3, no. Answer: 4", r"Answer: (\d)") == "4"
    assert last_match("3 then 4", r"\d") == "4"
    assert last_match("x=3 y=4", r"x=(\d)|y=(\d)") == "4"
    assert last_match("none", r"\d") is None
    assert exact_match("none", ["", "none"], r"\d") == 0
    assert exact_match("Answer: The Lake.", ["lake"], r"Answer: (.*)") == 1


def test_f1_counts_shared_words():
    assert token_f1("the blue lake of the north", ["blue lake"]) == pytest.approx(2 * 2 / (4 + 2))
    assert token_f1("blue blue", ["blue"]) == pytest.approx(2 / 3)
    assert token_f1("a sea", ["lake", "the sea"]) == 1
    assert token_f1("lake", ["sea"]) == 0
    assert token_f1("the", ["a"]) == 1
    assert token_f1("", ["sea"]) == 0
    assert token_f1("sea", []) == 0


@pytest.mark.parametrize(("samples", "k"), [(1, 1), (5, 1), (5, 3), (6, 6)])
def test_pass_at_k_is_the_share_of_draws_with_a_pass(samples, k):
    for passed in range(samples + 1):
        draws = list(combinations([True] * passed + [False] * (samples - passed), k))
        assert pass_at_k(samples, passed, k) == pytest.approx(sum(map(any, draws)) / len(draws))


@given(st.integers(1, 3000), st.data())
def test_pass_at_k_of_many_samples(samples, data):
    passed, k = data.draw(st.integers(0, samples)), data.draw(st.integers(1, samples))
    expected = 1 - comb(samples - passed, k) / comb(samples, k)
    assert pass_at_k(samples, passed, k) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("samples", "passed", "k"), [(3, 1, 4), (3, 1, 0), (3, 4, 1), (3, -1, 1)])
def test_no_pass_at_k_of_fewer_samples(samples, passed, k):
    with pytest.raises(ValueError, match="no such number"):
        pass_at_k(samples, passed, k)
