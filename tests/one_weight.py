"""A model of one weight that goes through the real loop: what every step does to it is known."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from llmctl.recipe.execution_schema import CheckpointTable
from llmctl.recipe.steps import Steps
from llmctl.train.loop import LoopSettings
from llmctl.train.schedule import Schedule


class Rows:
    """Eight numbers a step; the gradient is the mean of what is not among `bad`."""

    steps = Steps(seq_len=8, rows=1)

    def supervised(self, step: int) -> int:
        return 1

    def micro_batches(self, step: int, micro_batch: int, data_rank: int, data_ranks: int):
        yield SimpleNamespace(step=step, to=lambda device: SimpleNamespace(step=step))


ROWS: Any = Rows()


class Engine:
    """One weight, of which every step's gradient is known."""

    rank, world_size, data_rank, data_ranks, device = 0, 1, 0, 1, torch.device("cpu")
    norm_in_time = True

    def __init__(self, breaking: dict[int, float], norms: dict[int, float] | None = None) -> None:
        self.norms = norms or {}
        self.weight, self.gradient, self.breaking = 0.0, 0.0, breaking
        self.made: list[int] = []
        self.at = 0

    def accumulate(self, batch, global_count: int, last: bool):
        self.at = batch.step
        loss = 1.0 + 0.01 * (batch.step % 3) + self.weight * 0
        return torch.tensor(loss), torch.tensor(0.0)

    def step(self, multiplier: float, norm_limit: float = math.inf) -> float:
        norm = self.norms.get(self.at, 1.0 + 0.01 * (self.at % 3))
        if norm <= norm_limit:
            self.weight += self.breaking.get(self.at, 1.0)
            self.made.append(self.at)
        return norm

    def discard(self) -> None:
        pass

    def named_state(self):
        yield "w", {"weight": torch.tensor([self.weight])}

    def load_state(self, read, optimizer_step: int) -> None:
        self.weight = float(read("w")["weight"][0])


def settings(folder: Path, **keys) -> LoopSettings:
    table = CheckpointTable(every_steps=5, keep=4)
    made = LoopSettings(40, 1, Schedule("constant", 40), 1.0, 1, folder / "checkpoints", table)
    return replace(made, **keys)
