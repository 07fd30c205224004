"""The micro-batches of the next step, put together by a thread while the present one is computed."""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch

from llmctl.tokens.batch import Batch
from llmctl.train.data import TrainingRows


@dataclass(frozen=True, slots=True)
class StepData:
    step: int
    supervised: int
    """Tokens of the whole step that something is learnt from, over all ranks: what its loss is divided by."""
    batches: list[Batch]
    """This rank's micro-batches."""


class Prefetch:
    """Steps in any order; the one after the last that was asked for is there soonest. On a GPU its tensors are in pinned
    memory, so that their copies wait for nothing."""

    def __init__(
        self, rows: TrainingRows, micro_batch: int, data_rank: int, data_ranks: int, device: torch.device, steps: int
    ) -> None:
        self.rows, self.steps, self.pinned = rows, steps, device.type == "cuda"
        self.split = (micro_batch, data_rank, data_ranks)
        self._thread = ThreadPoolExecutor(1, "prefetch")
        self._next: Future[StepData] | None = None

    def step(self, step: int) -> StepData:
        ahead, self._next = self._next, None
        data = ahead.result() if ahead is not None else None
        if data is None or data.step != step:  # the first one, or training went back
            data = self._made(step)
        if step + 1 < self.steps:
            self._next = self._thread.submit(self._made, step + 1)
        return data

    def _made(self, step: int) -> StepData:
        batches = list(self.rows.micro_batches(step, *self.split))
        return StepData(step, self.rows.supervised(step), [batch.pin() for batch in batches] if self.pinned else batches)
