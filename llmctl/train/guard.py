"""Steps that are left out: a loss far above the last ones, or none at all.

Olmo 3 leaves out a step whose loss lies 6 standard deviations above the mean of the last 128 (OLMo-core,
`optim/skip_step_optimizer.py`): the update of one bad batch can cost thousands of steps. Losses of steps that were left out
count too, so that a loss that stays higher is taken as it is after a while.
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

    def why_not(self, step: int, loss: float) -> str | None:
        """Why the update of this step is to be left out; None: it may be made."""
        if step in self.left_out:
            return "the weights were lost in it before"
        if not math.isfinite(loss):
            return f"its loss is {loss}"
        if not self.sigmas or len(self.losses) < WINDOW // 2:
            return None
        mean, deviation = statistics.fmean(self.losses), statistics.stdev(self.losses)
        if loss > mean + self.sigmas * deviation:
            above = (loss - mean) / max(deviation, 1e-12)
            return f"its loss {loss:.4f} is {above:.1f} standard deviations above the last {len(self.losses)}"
        return None

    def record(self, step: int, loss: float, gradient_norm: float) -> None:
        """After the step; the norm of one that was left out is 0."""
        if math.isfinite(loss) and math.isfinite(gradient_norm):
            self.lost.clear()
            self.losses = [*self.losses, loss][-WINDOW:]
        else:
            self.lost.append(step)

    @property
    def weights_lost(self) -> bool:
        """Whether no step has been possible for so long that the weights must be broken."""
        return len(self.lost) >= PATIENCE
