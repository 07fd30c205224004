"""Steps that are left out: a loss or a gradient far above the last ones, or no number at all.

Olmo 3 leaves out a step whose loss or gradient norm lies 6 standard deviations above the mean of the last 128 (OLMo-core,
`optim/skip_step_optimizer.py`): the update of one bad batch can cost thousands of steps. Losses and norms of steps that were
left out count too, so that what stays higher is taken as it is after a while.
"""

import math
import statistics
from dataclasses import dataclass, field

WINDOW = 128  # losses
PATIENCE = 4  # steps in a row without a finite loss before the weights are taken for lost


@dataclass
class StepGuard:
    sigmas: float
    """0: only steps without a finite loss are left out."""
    losses: list[float] = field(default_factory=list)
    """The last finite ones, oldest first."""
    left_out: set[int] = field(default_factory=set)
    """Steps that are not to be made after the weights were lost in them."""
    lost: list[int] = field(default_factory=list)
    """The latest steps, in a row, that had no finite loss or gradient."""

    norms: list[float] = field(default_factory=list)
    """The last finite norms of gradients, oldest first."""

    def why_not(self, step: int, loss: float) -> str | None:
        """Why the update of this step is to be left out; None: it may be made."""
        if step in self.left_out:
            return "the weights were lost in it before"
        if not math.isfinite(loss):
            return f"its loss is {loss}"
        return self._far_above("loss", loss, self.losses)

    @property
    def norm_limit(self) -> float:
        """A gradient that is larger is left out, where its norm is known before the update."""
        return self._limit(self.norms)

    def too_large(self, gradient_norm: float) -> str | None:
        """Why the update was left out by `norm_limit`; None: it was made."""
        return self._far_above("gradient norm", gradient_norm, self.norms)

    def record(self, step: int, loss: float, gradient_norm: float) -> None:
        """After the step; the norm of one that was left out for its loss is 0."""
        if math.isfinite(loss) and math.isfinite(gradient_norm):
            self.lost.clear()
            self.losses = [*self.losses, loss][-WINDOW:]
            self.norms = [*self.norms, gradient_norm][-WINDOW:] if gradient_norm else self.norms
        else:
            self.lost.append(step)

    def _limit(self, values: list[float]) -> float:
        if not self.sigmas or len(values) < WINDOW // 2:
            return math.inf
        return statistics.fmean(values) + self.sigmas * statistics.stdev(values)

    def _far_above(self, what: str, value: float, values: list[float]) -> str | None:
        if not value > self._limit(values):
            return None
        above = (value - statistics.fmean(values)) / max(statistics.stdev(values), 1e-12)
        return f"its {what} {value:.4f} is {above:.1f} standard deviations above the last {len(values)}"

    @property
    def weights_lost(self) -> bool:
        """Whether no step has been possible for so long that the weights must be broken."""
        return len(self.lost) >= PATIENCE
