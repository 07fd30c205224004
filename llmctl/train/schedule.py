"""Learning-rate schedules: a multiplier of the peak rate as a function of the step alone."""

import math
from dataclasses import dataclass
from typing import Self

from llmctl.preflight.plan import warmup_steps
from llmctl.recipe.train_schema import ScheduleKind, TrainTable


@dataclass(frozen=True, slots=True)
class Schedule:
    """`multiplier(step)` of the peak learning rate for step 0 .. steps - 1.

    After `warmup_steps` linear steps from zero:
    - constant: 1;
    - linear: straight to `final_fraction`;
    - cosine: half a cosine to `final_fraction`;
    - wsd: 1, then a straight decay over the last `decay_fraction` of the steps (warmup-stable-decay, arXiv 2404.06395).

    `horizon` is the step at which the decay ends as it was planned: after `steps`, it is cut short; before them, the rate stays
    at its end. From `stretch_from` on, what is left of the plan is stretched or squeezed to end with the last step.
    """

    kind: ScheduleKind
    steps: int
    warmup_steps: int = 0
    final_fraction: float = 0.0
    decay_fraction: float = 0.2
    horizon: int | None = None
    stretch_from: int | None = None

    @classmethod
    def of(cls, table: TrainTable, steps: int) -> Self:
        """That of a stage of so many steps; what the recipe says in tokens is in steps here."""
        marks = (table.schedule_tokens, table.stretch_from)
        planned, stretched = (None if tokens is None else table.steps.within_tokens(tokens) for tokens in marks)
        fractions = (table.final_lr_fraction, table.decay_fraction)
        return cls(table.schedule, steps, warmup_steps(table), *fractions, planned, stretched)

    def multiplier(self, step: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.kind == "constant":
            return 1.0
        horizon = self.horizon or self.steps
        start = self.warmup_steps
        if self.kind == "wsd":
            start = max(start, horizon - round(self.decay_fraction * horizon))
        progress = min(1.0, max(0.0, (self._planned(step, horizon) - start) / max(1, horizon - start)))
        falling = 0.5 * (1.0 + math.cos(math.pi * progress)) if self.kind == "cosine" else 1.0 - progress
        return self.final_fraction + (1.0 - self.final_fraction) * falling

    def _planned(self, step: int, horizon: int) -> float:
        """Where in the plan the step stands."""
        if self.stretch_from is None or step <= self.stretch_from:
            return step
        return self.stretch_from + (step - self.stretch_from) * (horizon - self.stretch_from) / max(
            1, self.steps - self.stretch_from
        )
