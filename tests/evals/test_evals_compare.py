"""Differences of two models on the same questions, numbers made of several tasks, and what a run's curve tells."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.errors import UserError
from llmctl.evals.compare import Score, aggregated, paired, paired_aggregate, quantile, score_of, sign_test, signal_to_noise
from llmctl.evals.result import TaskResult, standard_error
from llmctl.suites.task import Aggregate, Measure

pairs = st.lists(st.tuples(st.floats(-4, 4), st.floats(-4, 4), st.sampled_from("ab")), min_size=3, max_size=40)


def result(values, groups=None, measure: Measure = "accuracy", **fields) -> TaskResult:
    groups = tuple(groups or [""] * len(values))
    weights = tuple(1 / len(set(groups)) / groups.count(group) for group in groups)
    ids = tuple(f"q{number}" for number in range(len(values)))
    made = TaskResult("t", measure, "byte", 0, tuple(map(float, values)), weights, groups, ids)
    return replace(made, **fields)


def shuffled(one: TaskResult, order) -> TaskResult:
    return replace(one, **{name: tuple(getattr(one, name)[n] for n in order) for name in ("values", "weights", "groups", "ids")})


@given(pairs, st.randoms())
def test_the_paired_error_is_that_of_the_differences_in_whatever_order_the_questions_came(rows, random):
    first, second, groups = zip(*rows, strict=True)
    before, after = result(first, groups), result(second, groups)
    found = paired(before, shuffled(after, random.sample(range(len(rows)), len(rows))))
    differences = [b - a for a, b in zip(first, second, strict=True)]
    expected = standard_error(differences, before.weights, before.groups)
    assert found.difference == pytest.approx(np.dot(differences, before.weights), abs=1e-9)
    assert found.stderr == pytest.approx(expected, nan_ok=True)
    assert found.degrees == len(rows) - len(set(groups))
    assert found.wins + found.losses + found.ties == len(rows)
    assert (found.wins, found.losses) == (sum(d > 0 for d in differences), sum(d < 0 for d in differences))


@given(pairs, st.floats(0.5, 100))
def test_turned_round_and_scaled_the_comparison_says_the_same(rows, scale):
    first, second, groups = zip(*rows, strict=True)
    here = paired(result(first, groups), result(second, groups))
    back = paired(result(second, groups), result(first, groups))
    scaled = paired(result(np.multiply(first, scale), groups), result(np.multiply(second, scale), groups))
    assert back.interval == pytest.approx((-here.interval[1], -here.interval[0]), nan_ok=True, abs=1e-9)
    assert (back.wins, back.losses, back.p_value) == (here.losses, here.wins, here.p_value)
    assert scaled.stderr == pytest.approx(scale * here.stderr, nan_ok=True)
    assert scaled.difference == pytest.approx(scale * here.difference, abs=1e-9)


def test_fewer_bits_per_byte_are_wins():
    found = paired(result([2, 2, 2, 1], measure="bits_per_byte"), result([1, 1, 2, 3], measure="bits_per_byte"))
    assert (found.wins, found.losses, found.ties) == (2, 1, 1)
    assert not found.after.higher_is_better


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"shots": 5}, "shots 0 and 5"),
        ({"measure": "exact_match"}, "measure accuracy and exact_match"),
        ({"normalisation": "token"}, "normalisation byte and token"),
        ({"task": "u"}, "task t and u"),
        ({"ids": ("q0", "q1", "q9")}, "'q[29]' is in one of them alone"),
        ({"groups": ("a", "b", "c")}, "other groups or weights"),
        ({"weights": (0.2, 0.3, 0.5)}, "other groups or weights"),
    ],
)
def test_numbers_that_do_not_belong_together_are_not_subtracted(change, told):
    one = result([1, 0, 1])
    with pytest.raises(UserError, match=told):
        paired(one, replace(one, **change))


def test_an_id_that_two_questions_share_matches_by_place_alone():
    one = replace(result([1, 0, 1]), ids=("a", "a", "b"))
    assert paired(one, one).ties == 3
    with pytest.raises(UserError, match="share an id"):
        paired(one, shuffled(one, [2, 0, 1]))


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_sign_test_is_symmetric_and_counts_all_that_is_no_likelier(wins, losses):
    count = wins + losses
    ways = [math.comb(count, heads) for heads in range(count + 1)]
    assert sign_test(wins, losses) == pytest.approx(sum(way for way in ways if way <= ways[wins]) / 2**count)
    assert sign_test(wins, losses) == sign_test(losses, wins)


def test_the_sign_test_of_many_questions():
    assert sign_test(7000, 6900) == pytest.approx(0.4010734984)


@pytest.mark.parametrize(
    ("degrees", "t"),
    [(1, 12.7062047), (2, 4.3026527), (3, 3.1824463), (7, 2.3646243), (28, 2.0484071), (999, 1.9623415), (5000, 1.959964)],
)
def test_intervals_are_students(degrees, t):
    assert quantile(degrees) == pytest.approx(t, rel=1e-6)


def test_one_pair_says_nothing_of_its_error():
    found = paired(result([0]), result([1]))
    assert found.difference == 1
    assert math.isnan(found.stderr)
    assert all(map(math.isnan, found.interval))


def test_a_95_percent_interval_covers_the_truth_in_95_of_100_cases():
    generator = np.random.default_rng(0)
    hit = 0
    for _ in range(1000):
        hard = generator.normal(size=8)
        low, high = paired(
            result(hard + generator.normal(size=8)), result(hard + 0.5 + generator.normal(scale=2, size=8))
        ).interval
        hit += low <= 0.5 <= high
    assert 935 <= hit <= 965


MEAN, BEST = Aggregate("mean", ("a", "b")), Aggregate("best", ("a", "b"), "best")


@given(pairs, pairs)
def test_the_difference_of_a_mean_is_the_mean_of_the_differences(one, other):
    members = {
        name: paired(result([row[0] for row in rows]), result([row[1] for row in rows]))
        for name, rows in (("a", one), ("b", other))
    }
    found = paired_aggregate(MEAN, members)
    assert found.difference == pytest.approx((members["a"].difference + members["b"].difference) / 2, abs=1e-9)
    assert found.stderr == pytest.approx(math.hypot(members["a"].stderr, members["b"].stderr) / 2)
    assert found.before == aggregated(MEAN, {name: member.before for name, member in members.items()})
    assert min(m.degrees for m in members.values()) <= found.degrees * (1 + 1e-9)
    assert found.degrees <= sum(m.degrees for m in members.values()) * (1 + 1e-9)


def test_the_best_is_the_highest_or_of_bits_the_lowest():
    assert aggregated(BEST, {"a": Score(0.5, 0.1), "b": Score(0.6, 0.3)}) == Score(0.6, 0.3)
    low = {"a": Score(0.5, 0.1, False), "b": Score(0.6, 0.3, False)}
    assert aggregated(BEST, low) == low["a"]


def test_the_best_is_paired_where_the_same_member_is_chosen_before_and_after():
    rise = paired(result([1, 0, 1, 0]), result([1, 1, 1, 0]))
    flat = paired(result([0, 0, 0, 0]), result([0, 0, 0, 1]))
    found = paired_aggregate(BEST, {"a": rise, "b": flat})
    assert (found.difference, found.stderr) == (rise.difference, rise.stderr)
    assert (found.wins, found.losses) == (2, 0)
    crossing = paired(result([0, 0, 1, 0]), result([1, 1, 1, 1]))
    found = paired_aggregate(BEST, {"a": rise, "b": crossing})
    assert found.difference == 1 - 0.5
    assert found.stderr == pytest.approx(math.hypot(rise.before.stderr, crossing.after.stderr))


def test_members_without_a_score_and_of_two_directions_are_told():
    score = score_of(result([1, 0]))
    with pytest.raises(UserError, match="no score of b"):
        aggregated(MEAN, {"a": score})
    with pytest.raises(UserError, match="make no number together"):
        aggregated(MEAN, {"a": score, "b": score_of(result([1, 0], measure="bits_per_byte"))})


@given(st.lists(st.floats(0.1, 1), min_size=4, max_size=30), st.floats(0.1, 100))
def test_signal_and_noise_are_shares_whatever_the_unit(curve, scale):
    here, there = signal_to_noise(curve, 2), signal_to_noise([scale * value for value in curve], 2)
    np.testing.assert_allclose(there[:2], here[:2], atol=1e-9)


def test_a_task_that_rises_has_more_signal_than_one_that_only_trembles():
    trembling = [0.5, 0.52, 0.5, 0.52, 0.5, 0.52]
    rising = [value + 0.1 * step for step, value in enumerate(trembling)]
    assert signal_to_noise(trembling, 2)[2] == pytest.approx(0)
    assert signal_to_noise(rising, 2)[2] > 2
    signal, noise, _ = signal_to_noise([1, 1, 1, 2, 4, 6], 3)
    assert (signal, noise) == (pytest.approx(3 / 2.5), pytest.approx(2 / 4))
    assert all(map(math.isnan, signal_to_noise([1, 2, 3], 2)))
