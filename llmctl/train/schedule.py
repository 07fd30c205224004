"""Learning-rate schedules: a multiplier of the peak rate as a function of the step alone."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Schedule:
    """`multiplier(step)` of the peak learning rate for step 0 .. steps - 1.

    After `warmup_steps` linear steps from zero:
    - constant: 1;
    - linear: straight to `final_fraction`;
    - cosine: half a cosine to `final_fraction`;
    - wsd: 1, then a straight decay over the last `decay_fraction` of the steps (warmup-stable-decay, arXiv 2404.06395).

    `horizon` is the step at which the decay ends; larger than `steps` when a schedule is planned for a longer run.
    """

    kind: Literal["constant", "linear", "cosine", "wsd"]
    steps: int
    warmup_steps: int = 0
    final_fraction: float = 0.0
    decay_fraction: float = 0.2
    horizon: int | None = None

    def multiplier(self, step: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        horizon = self.horizon or self.steps
        if self.kind == "constant":
            return 1.0
        start = self.warmup_steps
        if self.kind == "wsd":
            start = max(start, horizon - round(self.decay_fraction * horizon))
        progress = min(1.0, max(0.0, (step - start) / max(1, horizon - start)))
        falling = 0.5 * (1.0 + math.cos(math.pi * progress)) if self.kind == "cosine" else 1.0 - progress
        return self.final_fraction + (1.0 - self.final_fraction) * falling
