"""Products in bfloat16, masters in fp32: every ZeRO stage moves where fp32 moves.

At a rate of 1e-3. At ten times that, the signs of the smallest gradients, of which AdamW makes whole steps, lead elsewhere.
"""

from functools import lru_cache

import numpy as np
import pytest
import torch
from engines import ROWS, State, deepspeed, deepspeed_engine, objective, state_of, steps, table, torch_engine

pytestmark = pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])


@lru_cache
def in_fp32(model: str) -> tuple[np.ndarray, State]:
    engine = torch_engine(table(lr=1e-3), model)
    return steps(engine, ROWS), state_of(engine)


def path(state: State, model: str) -> torch.Tensor:
    """What all weights together have moved by."""
    start = dict(objective(table(), model).model.named_parameters())
    return torch.cat([(tensors["weight"] - start[name].detach()).flatten() for name, tensors in state.items()])


def stays_near_fp32(made: np.ndarray, state: State, model: str) -> None:
    true_made, true_state = in_fp32(model)
    np.testing.assert_allclose(made[:, 0], true_made[:, 0], atol=2e-3)
    np.testing.assert_allclose(made[:, 1], true_made[:, 1], rtol=2e-2)
    mine, theirs = path(state, model), path(true_state, model)
    assert torch.nn.functional.cosine_similarity(mine, theirs, dim=0) > 0.99
    assert mine.norm() == pytest.approx(float(theirs.norm()), rel=0.01)


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("model", ["plain", "tied"])
def test_one_rank_stays_near_fp32(one_rank, zero_stage, model, accumulation):
    engine = deepspeed_engine(table(zero_stage=zero_stage, precision="bf16", lr=1e-3), ROWS // accumulation, model)
    stays_near_fp32(steps(engine, ROWS // accumulation), state_of(engine), model)


def test_two_ranks_stay_near_fp32(two_ranks, zero_stage):
    for made, state in two_ranks.run(deepspeed, table(zero_stage=zero_stage, precision="bf16", lr=1e-3), 2):
        stays_near_fp32(made, state, "plain")


def test_masters_and_rotary_frequencies_are_not_rounded(one_rank, zero_stage):
    engine = deepspeed_engine(table(zero_stage=zero_stage, precision="bf16"), ROWS)
    start = objective(table())
    masters = dict(start.model.named_parameters())
    for name, state in engine.named_state():
        assert torch.equal(state["weight"], masters[name]), name
    buffers = dict(start.named_buffers())
    for name, buffer in engine.objective.named_buffers():
        assert torch.equal(buffer, buffers[name]), name
