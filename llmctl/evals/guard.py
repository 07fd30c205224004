"""Whether a model has become worse than it may: paired comparison with its parent, and what the noise allows to say."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

INTERVAL = 1.96  # standard errors on either side of a difference: 95 % of the normal distribution

Verdict = Literal["kept", "within the error", "worse"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A measure of a model before and after, on the same documents or questions."""

    measure: str
    before: float
    after: float
    error: float
    """Standard error of the difference, from the pairs; nan where there are fewer than two."""
    allowed: float
    """How much worse it may be, in the measure's own unit."""
    higher_is_better: bool

    @property
    def difference(self) -> float:
        return self.after - self.before

    @property
    def verdict(self) -> Verdict:
        """kept: no worse than allowed; within the error: worse, but the 95 % interval of the difference reaches what is allowed;
        worse: even its favourable end is worse than allowed. A difference without an error proves nothing."""
        worse = -self.difference if self.higher_is_better else self.difference
        if worse <= self.allowed:
            return "kept"
        return "worse" if worse - INTERVAL * self.error > self.allowed else "within the error"


def ratio_difference(before: np.ndarray, after: np.ndarray, sizes: np.ndarray) -> tuple[float, float]:
    """(total after - total before) / total size over [n] documents, and its standard error.

    The documents' own differences are paired, and their sizes are random as well: the ratio estimator's variance,
    n / (n - 1) * sum (d_i - D s_i)^2 / (sum s_i)^2 (Cochran, Sampling Techniques, 1977, section 6.4).
    """
    differences, count, total = after - before, len(sizes), float(sizes.sum())
    ratio = float(differences.sum()) / total
    if count < 2:
        return ratio, math.nan
    residuals = differences - ratio * sizes
    return ratio, math.sqrt(count / (count - 1) * float(np.square(residuals).sum())) / total


def bits_comparison(before: np.ndarray, after: np.ndarray, sizes: np.ndarray, allowed_share: float) -> Comparison:
    """Bits per byte from the bits and bytes of each of [n] documents; `allowed_share` is of the total before."""
    _, error = ratio_difference(before, after, sizes)
    first, second = float(before.sum() / sizes.sum()), float(after.sum() / sizes.sum())
    return Comparison("bits per byte", first, second, error, allowed_share * first, higher_is_better=False)
