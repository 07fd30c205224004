"""What a model made of a task, and how questions are put."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from llmctl.errors import StageFailed
from llmctl.suites.task import Measure, Normalisation


def not_finite(where: str) -> StageFailed:
    """What is raised where a model's logits are no numbers; `where` names the question."""
    return StageFailed(
        f"{where}: the model's logits are no numbers (NaN or infinite), and nothing is scored. "
        "Its weights are broken, or its precision is too low: try --precision fp32"
    )


@dataclass(frozen=True, slots=True)
class Asking:
    """How questions are put to a model: the same for all that are compared."""

    seed: int = 1
    shots: int | None = None
    """Examples before each question; None: as many as the task comes with, and none where they are drawn."""
    chat: bool = False
    """Whether prompts go through the model's chat template, as one message of a user."""
    limit: int | None = None
    """Tokens of a prompt with its choice at most; None: the model's context."""
    allow_code: bool = False
    """Whether programs that a model writes are run."""
    show: int = 0
    """Prompts that are kept to be read, of the first questions."""


@dataclass(frozen=True, slots=True)
class TaskResult:
    """Scores of [n] questions."""

    task: str
    measure: Measure
    normalisation: Normalisation
    shots: int
    values: tuple[float, ...]
    """Of each question, in the task's measure: 0 or 1, bits per byte, a share."""
    weights: tuple[float, ...]
    """What each counts in the mean; they sum to 1."""
    groups: tuple[str, ...]
    """Of each question, as in `Question.group`."""
    ids: tuple[str, ...]
    also: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """Values in other measures: the accuracy under each normalisation ("accuracy/byte"), "bits_per_byte" of the right choice; of
    generated answers the share that "ended" before their longest, "exact_match" beside f1, "pass@1" beside pass@k, and the share
    of programs that "timed_out"."""
    fewer: tuple[str, ...] = ()
    """Questions (ids) that were asked with fewer examples, for want of room in the context."""
    cut: tuple[str, ...] = ()
    """Questions whose own beginning did not fit, either."""
    prompts: tuple[str, ...] = ()
    """The first questions' prompts as the model read them, with the right choice, or the first answer and what became of it."""
    log_likelihoods: tuple[tuple[float, ...], ...] = ()
    """Of each question's choices, nats."""
    answers: tuple[tuple[str, ...], ...] = ()
    """What the model wrote to each question, sample by sample."""

    @property
    def value(self) -> float:
        return float(np.dot(self.values, self.weights)) if self.values else math.nan

    @property
    def stderr(self) -> float:
        return standard_error(self.values, self.weights, self.groups)

    def mean_of(self, measure: str) -> float:
        """The mean in one of the `also` measures."""
        return float(np.dot(self.also[measure], self.weights))


def standard_error(values: Sequence[float], weights: Sequence[float], groups: Sequence[str]) -> float:
    """Of the weighted mean of independent values: the variance is estimated inside each group (stratified sampling: Cochran,
    Sampling Techniques, 1977, section 5.4), n / (n - 1) * sum w_i^2 (x_i - mean)^2. Groups of one value are taken together, as
    collapsed strata (section 5A.12), which rather overstates it; nan where there is one value in all."""
    found, shares = np.asarray(values, dtype=float), np.asarray(weights, dtype=float)
    members: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        members.setdefault(group, []).append(place)
    alone = [places[0] for places in members.values() if len(places) == 1]
    strata = [places for places in members.values() if len(places) > 1]
    if len(alone) == 1 and strata:
        strata[0] = strata[0] + alone
    elif alone:
        strata.append(alone)
    if not strata or any(len(places) < 2 for places in strata):
        return math.nan
    return math.sqrt(sum(_variance(found[places], shares[places]) for places in strata))


def _variance(values: np.ndarray, weights: np.ndarray) -> float:
    """Of the sum of `weights` times independent `values` [n], n > 1, of one stratum."""
    mean = float(np.dot(values, weights) / weights.sum())
    return len(values) / (len(values) - 1) * float(np.square(weights * (values - mean)).sum())
