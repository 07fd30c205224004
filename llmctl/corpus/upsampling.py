"""Quality-aware upsampling: how often a document is taken, by the percentile of its score.

f(x) = C (x - a)^p e^(l (x - a)) on [a, 1] and 0 below, with integral Z / X (wanted over available size) and a mean of at most M
over the best twentieth: of 20 powers p in [0.01, 2] the largest that M allows, and then the largest l in [0, 2]. Olmo 3 (arXiv
2512.13961, appendix A.2.4) drops a = 0.40 and repeats M = 7 times at most.
"""

from dataclasses import dataclass

import numpy as np

from llmctl.errors import UserError

POWERS = np.linspace(0.01, 2.0, 20)
LARGEST_RATE = 2.0
BUCKETS = 20
POINTS = 20_000  # of the midpoint rule


@dataclass(frozen=True, slots=True)
class Curve:
    start: float
    power: float
    rate: float
    scale: float

    def __call__(self, percentiles: np.ndarray) -> np.ndarray:
        """How often documents at these percentiles in [0, 1] are taken."""
        above = np.maximum(0.0, np.asarray(percentiles) - self.start)
        return np.where(above > 0, self.scale * above**self.power * np.exp(self.rate * above), 0.0)

    def mean(self, low: float, high: float) -> float:
        places = low + (high - low) * (np.arange(POINTS) + 0.5) / POINTS
        return float(self(places).mean())

    @property
    def buckets(self) -> list[float]:
        """Mean of each twentieth, the lowest first."""
        return [self.mean(place / BUCKETS, (place + 1) / BUCKETS) for place in range(BUCKETS)]


def solve(ratio: float, start: float, most: float) -> Curve:
    """The curve that makes `ratio` times the size of what there is.

    Raises:
        UserError: no curve does, for what may be repeated.
    """

    def curve(power: float, rate: float) -> Curve:
        shape = Curve(start, power, rate, 1.0)
        return Curve(start, power, rate, ratio / shape.mean(0.0, 1.0))

    def best(power: float, rate: float) -> float:
        return curve(power, rate).mean(1 - 1 / BUCKETS, 1.0)

    allowed = [power for power in POWERS if best(power, 0.0) <= most]
    if not allowed:
        raise UserError(
            f"upsampling to {ratio:.2f} times the size, without the lowest {start:.0%}, takes the best twentieth more than "
            f"{most:g} times; a smaller size, a larger `most` or a smaller `drop_lowest` would do"
        )
    power = float(allowed[-1])
    low, high = 0.0, LARGEST_RATE
    if best(power, high) <= most:
        return curve(power, high)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if best(power, middle) <= most else (low, middle)
    return curve(power, low)
