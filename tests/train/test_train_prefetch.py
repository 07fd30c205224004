"""Steps that are put together ahead are those that would be made in their time."""

from types import SimpleNamespace
from typing import Any

import torch

from llmctl.train.prefetch import Prefetch


class Rows:
    """Notes which steps are made."""

    def __init__(self) -> None:
        self.made: list[int] = []

    def supervised(self, step: int) -> int:
        return 10 * step

    def micro_batches(self, step: int, micro_batch: int, data_rank: int, data_ranks: int):
        self.made.append(step)
        yield SimpleNamespace(step=step, rank=data_rank)


def test_the_next_step_is_made_while_the_present_one_is_computed():
    rows: Any = Rows()
    data = Prefetch(rows, 2, data_rank=1, data_ranks=4, device=torch.device("cpu"), steps=3)
    for step in range(3):
        made = data.step(step)
        assert (made.step, made.supervised) == (step, 10 * step)
        assert [(batch.step, batch.rank) for batch in made.batches] == [(step, 1)]
    assert rows.made == [0, 1, 2]  # each once, and none past the end


def test_training_that_goes_back_gets_the_step_that_it_asks_for():
    rows: Any = Rows()
    data = Prefetch(rows, 1, 0, 1, torch.device("cpu"), steps=9)
    assert [data.step(step).step for step in (4, 5, 2, 3)] == [4, 5, 2, 3]
