"""Whether a difference between two models is more than chance: scores paired by question, and numbers made of several."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from llmctl.errors import UserError
from llmctl.evals.result import TaskResult, standard_error
from llmctl.suites.task import LOWER_IS_BETTER, Aggregate

CONFIDENCE = 0.95
NORMAL_FROM = 1000
"""Degrees of freedom above which Student's t is taken as normal: its 97.5 % quantile is 0.12 % longer there."""


@dataclass(frozen=True, slots=True)
class Score:
    """Of a task or an aggregate."""

    value: float
    stderr: float
    higher_is_better: bool = True


@dataclass(frozen=True, slots=True)
class Paired:
    """A task or an aggregate before and after, on the same questions."""

    before: Score
    after: Score
    stderr: float
    """Of the difference, from the pairs; nan where there are fewer than two."""
    degrees: float
    """Of freedom, for Student's t."""
    wins: int
    """Questions, or members of an aggregate, that are better after."""
    losses: int
    ties: int

    @property
    def difference(self) -> float:
        return self.after.value - self.before.value

    @property
    def interval(self) -> tuple[float, float]:
        """Of 95 % confidence around the difference; nan where the error is not known."""
        reach = quantile(self.degrees) * self.stderr
        return self.difference - reach, self.difference + reach

    @property
    def p_value(self) -> float:
        return sign_test(self.wins, self.losses)


def score_of(result: TaskResult) -> Score:
    return Score(result.value, result.stderr, higher_is_better(result))


def higher_is_better(result: TaskResult) -> bool:
    return result.measure not in LOWER_IS_BETTER


def paired(before: TaskResult, after: TaskResult) -> Paired:
    """The error is that of the weighted mean of the differences, stratified by group as the scores' own is. On the same questions
    it is smaller than that of two scores apart, as questions that are hard for one model are hard for the other (Miller 2024,
    "Adding Error Bars to Evals", arXiv 2411.00640, section 4.2).

    Raises:
        UserError: the results are of other questions, or were not scored alike.
    """
    order = _matched(before, after)
    differences = [after.values[place] - value for place, value in zip(order, before.values, strict=True)]
    sizes = [before.groups.count(group) for group in set(before.groups)]
    upward = sum(difference > 0 for difference in differences)
    downward = sum(difference < 0 for difference in differences)
    wins, losses = (upward, downward) if higher_is_better(before) else (downward, upward)
    return Paired(
        score_of(before),
        score_of(after),
        standard_error(differences, before.weights, before.groups),
        sum(size - 1 for size in sizes) + max(0, sizes.count(1) - 1),
        wins,
        losses,
        len(differences) - wins - losses,
    )


def _matched(before: TaskResult, after: TaskResult) -> Sequence[int]:
    """Where in `after` each question of `before` stands."""
    for what in ("task", "measure", "normalisation", "shots"):
        one, other = getattr(before, what), getattr(after, what)
        if one != other:
            raise UserError(f"{before.task}: results of {what} {one} and {other} do not belong together, and are not subtracted")
    places = {name: place for place, name in enumerate(after.ids)}
    if sorted(before.ids) != sorted(after.ids):
        missing = next(iter(set(before.ids).symmetric_difference(after.ids)), None)
        why = "some are asked twice" if missing is None else f"{missing!r} is in one of them alone"
        raise UserError(f"{before.task}: results of different questions are not subtracted: {why}; ask both models the same")
    order = range(len(after.ids)) if before.ids == after.ids else [places[name] for name in before.ids]
    if len(set(order)) != len(order):
        raise UserError(f"{before.task}: questions share an id, and stand in another order; they cannot be matched")
    alike = all(
        before.groups[mine] == after.groups[theirs] and math.isclose(before.weights[mine], after.weights[theirs])
        for mine, theirs in enumerate(order)
    )
    if not alike:
        raise UserError(f"{before.task}: the questions have other groups or weights in one result than in the other")
    return order


def aggregated(aggregate: Aggregate, members: Mapping[str, Score]) -> Score:
    """What is made of the scores of an aggregate's members, by name.

    The error of a mean takes its members as independent: sqrt(sum of squares) / n. Members that share questions are not, and
    the error is too small then. "best" has the error of the member that is chosen; the highest of several noisy scores is biased
    upwards, by up to about half an error for two and more for more.

    Raises:
        UserError: a member has no score, or higher is better in some and worse in others.
    """
    _check_members(aggregate, members)
    found = [members[name] for name in aggregate.members]
    if len({one.higher_is_better for one in found}) > 1:
        raise UserError(
            f"{aggregate.name}: bits per byte, of which fewer are better, and scores of which more are better make no number "
            f"together; its members are {', '.join(aggregate.members)}"
        )
    if aggregate.how == "best":
        return _best(found)
    values, errors = (np.array(column) for column in zip(*((one.value, one.stderr) for one in found), strict=True))
    return Score(float(values.mean()), math.sqrt(float(np.square(errors).sum())) / len(found), found[0].higher_is_better)


def paired_aggregate(aggregate: Aggregate, members: Mapping[str, Paired]) -> Paired:
    """The difference of an aggregate, from its members' own. Degrees of freedom after Welch and Satterthwaite.

    "best" compares the best before with the best after. Where these are different members, their questions are not paired,
    and the error is that of two independent scores.

    Raises:
        UserError: as `aggregated`.
    """
    _check_members(aggregate, members)
    found = [members[name] for name in aggregate.members]
    before = aggregated(aggregate, {name: one.before for name, one in members.items()})
    after = aggregated(aggregate, {name: one.after for name, one in members.items()})
    gains = [one.difference if before.higher_is_better else -one.difference for one in found]
    wins, losses = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    counts = wins, losses, len(gains) - wins - losses
    if aggregate.how == "best":
        same = next((one for one in found if one.before is before and one.after is after), None)
        if same is not None:
            return Paired(before, after, same.stderr, same.degrees, *counts)
        return Paired(before, after, math.hypot(before.stderr, after.stderr), min(one.degrees for one in found), *counts)
    squares = np.square([one.stderr for one in found])
    per_degree = float((np.square(squares) / np.maximum(1, [one.degrees for one in found])).sum())
    degrees = float(squares.sum()) ** 2 / per_degree if per_degree > 0 else sum(one.degrees for one in found)
    return Paired(before, after, math.sqrt(float(squares.sum())) / len(found), degrees, *counts)


def _check_members(aggregate: Aggregate, members: Mapping[str, object]) -> None:
    if missing := [name for name in aggregate.members if name not in members]:
        raise UserError(f"{aggregate.name} is made of {', '.join(aggregate.members)}; there is no score of {', '.join(missing)}")


def _best(members: Sequence[Score]) -> Score:
    return max(members, key=lambda one: one.value if one.higher_is_better else -one.value)


def sign_test(wins: int, losses: int) -> float:
    """The chance that fair coins fall at least so unevenly, to either side: the exact two-sided sign test, ties left out
    (Dixon and Mood 1946; on answers that are right or wrong it is McNemar's exact test)."""
    count, term, tail = wins + losses, 1, 0
    for heads in range(min(wins, losses) + 1):
        tail += term
        term = term * (count - heads) // (heads + 1)
    return min(1.0, 2 * tail / 2**count)


def quantile(degrees: float, confidence: float = CONFIDENCE) -> float:
    """The t that a Student-t variable of so many degrees of freedom stays within, to either side, with the chance `confidence`;
    fractions of a degree are cut off. nan below one degree."""
    if not degrees >= 1:
        return math.nan
    low, high = 0.0, 1e5
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, int(degrees)) < confidence else (low, middle)
    return high


def _within(t: float, degrees: int) -> float:
    """The chance that |T| < t (Abramowitz and Stegun, Handbook of Mathematical Functions, 1964, 26.7.3 and 26.7.4)."""
    if degrees > NORMAL_FROM:
        return math.erf(t / math.sqrt(2))
    angle = math.atan(t / math.sqrt(degrees))
    odd = degrees % 2
    term, total = (math.cos(angle), 0.0) if odd else (1.0, 0.0)
    for power in range(odd, degrees - 1, 2):
        total += term
        term *= math.cos(angle) ** 2 * (power + 1) / (power + 2)
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total


def signal_to_noise(curve: Sequence[float], last: int) -> tuple[float, float, float]:
    """(signal, noise, signal / noise) of a task whose scores at a run's checkpoints are `curve`: whether it can tell them apart.

    After Heineman et al. 2025, "Signal and Noise" (arXiv 2508.13144): the signal is the largest difference between models as a
    share of their mean, the noise the standard deviation over the last checkpoints of one run as a share of theirs. Here there is
    one run. The parts of it of `last` checkpoints each, counted from the end, stand in the place of the models; each is
    taken by its mean, as the paper takes models by the mean of their last five. That what is measured moves during the last part
    as well counts as noise. nan where there are no two such parts, or nothing to take a share of.
    """
    if last < 2 or len(curve) < 2 * last:
        return math.nan, math.nan, math.nan
    parts = np.asarray(curve[len(curve) % last :], dtype=float).reshape(-1, last)
    means, end = parts.mean(axis=1), parts[-1]
    if means.mean() == 0 or end.mean() == 0:
        return math.nan, math.nan, math.nan
    signal = float(np.ptp(means) / abs(means.mean()))
    noise = float(end.std(ddof=1) / abs(end.mean()))
    if noise == 0:
        return signal, noise, math.inf if signal else math.nan
    return signal, noise, signal / noise
