"""Batches of changing size, and the running mean of the weights, on every engine."""

from pathlib import Path
from typing import Any

import pytest
import torch
from engines import State, compare, deepspeed_engine, rows_of_step, state_of, supervised, table, torch_engine

from llmctl.recipe.schema import PretrainTable
from llmctl.tokens.batch import collate
from llmctl.train import checkpoint
from llmctl.train.checkpoint import Position, SavedState

SIZES = (2, 2, 4, 8, 4)  # rows of each step, also one that is smaller again: of one micro-batch, of two, of four


def grow(engine: Any, sizes: tuple[int, ...] = SIZES, first: int = 0) -> State:
    for step, size in enumerate(sizes, start=first):
        rows = rows_of_step(step)[:size]
        stride = 2 if engine.world_size == 1 else engine.world_size
        share = stride // engine.world_size
        for at in range(engine.rank * share, size, stride):
            engine.accumulate(collate(rows[at : at + share]), supervised(rows), last=at + stride >= size)
        engine.step(1.0)
    return state_of(engine)


def grow_on_ranks(options: PretrainTable) -> State:
    return grow(deepspeed_engine(options, 1))


@pytest.mark.parametrize(
    ("zero_stage", "offload"), [(0, False), (1, False), (2, False), (3, False), (1, True), (2, True), (3, True)]
)
def test_a_batch_that_grows_is_that_of_plain_torch(one_rank, zero_stage, offload):
    options = table(zero_stage=zero_stage, offload_optimizer=offload, lr=1e-3)
    compare(grow(deepspeed_engine(options, 2)), grow(torch_engine(table(lr=1e-3))))


@pytest.mark.parametrize("zero_stage", [1, 3])
def test_two_ranks_grow_as_one(two_ranks, zero_stage):
    expected = grow(torch_engine(table(lr=1e-3)))
    for state in two_ranks.run(grow_on_ranks, table(zero_stage=zero_stage, lr=1e-3)):
        compare(state, expected)


def means_by_hand(options: PretrainTable, steps: int) -> dict[str, torch.Tensor]:
    """The running mean from the weights that every number of steps leaves."""
    decay, means = options.ema_decay, {}
    assert decay is not None
    for count in range(1, steps + 1):
        for name, state in grow(torch_engine(options), SIZES[:count]).items():
            weight = state["weight"]
            means[name] = weight if name not in means else decay * means[name] + (1 - decay) * weight
    return means


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_mean_follows_the_weights(optimizer):
    options = table(ema_decay=0.7, optimizer=optimizer, lr=1e-3)
    state, means = grow(torch_engine(options)), means_by_hand(options, len(SIZES))
    for name, mean in means.items():
        torch.testing.assert_close(state[name]["ema"], mean, rtol=1e-5, atol=1e-6)
        assert not state[name]["ema"].equal(state[name]["weight"])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_every_stage_keeps_the_mean_and_goes_on_with_it(one_rank, tmp_path, zero_stage, precision):
    options = table(ema_decay=0.7, zero_stage=zero_stage, precision=precision, lr=1e-3)
    engine = deepspeed_engine(options, 2)
    grow(engine, SIZES[:3])
    checkpoint.save(engine, Path(tmp_path / "state"), Position(3, 0, 3))
    straight = grow(engine, SIZES[3:], first=3)
    resumed = deepspeed_engine(options, 2)
    resumed.load_state(SavedState(tmp_path / "state").read, 3)
    compare(grow(resumed, SIZES[3:], first=3), straight, tolerance=0.0)
    if precision == "fp32":
        compare(straight, grow(torch_engine(options)))
