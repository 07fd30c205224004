"""Optimizer states in the host's memory: what is learnt, saved and left out is what it is without."""

from pathlib import Path

import numpy as np
import pytest
import torch
from engines import (
    LENGTH,
    ROWS,
    State,
    compare,
    deepspeed,
    deepspeed_engine,
    reference,
    state_of,
    steps,
    table,
    torch_engine,
)

from llmctl.recipe.schema import PretrainTable
from llmctl.train import checkpoint
from llmctl.train.checkpoint import Position, SavedState

pytestmark = pytest.mark.parametrize("zero_stage", [1, 2, 3])


def offloaded(zero_stage: int, precision: str = "fp32", **keys) -> PretrainTable:
    return table(offload_optimizer=True, zero_stage=zero_stage, precision=precision, **keys)


def steps_and_saved_state(options: PretrainTable, folder: str) -> State:
    engine = deepspeed_engine(options, 2)
    steps(engine, 2, 0, 2)
    checkpoint.save(engine, Path(folder), Position(2, 2 * ROWS * LENGTH, 2))
    return state_of(engine)


def loaded_state_and_third_step(options: PretrainTable, folder: str) -> tuple[State, State]:
    engine, saved = deepspeed_engine(options, 2), SavedState(Path(folder))
    engine.load_state(saved.read, saved.position.optimizer_step)
    loaded = state_of(engine)
    steps(engine, 2, 2, 3)
    return loaded, state_of(engine)


@pytest.mark.parametrize(("model", "accumulation"), [("plain", 1), ("plain", 2), ("tied", 2), ("lora", 2)])
def test_four_steps_are_those_of_plain_torch(one_rank, zero_stage, model, accumulation):
    engines = [torch_engine(table(), model), deepspeed_engine(offloaded(zero_stage), ROWS // accumulation, model)]
    made = [steps(engine, ROWS // accumulation, 0, 4) for engine in engines]
    np.testing.assert_allclose(made[1], made[0], rtol=1e-4)
    compare(state_of(engines[1]), state_of(engines[0]))


def test_two_ranks_equal_one(two_ranks, zero_stage):
    made, state = reference()
    for others, other in two_ranks.run(deepspeed, offloaded(zero_stage), 2):
        np.testing.assert_allclose(others, made, rtol=1e-4)
        compare(other, state)


def test_in_bfloat16_nothing_is_rounded_on_the_way(one_rank, zero_stage):
    """Gradients of several micro-batches add up in fp32, as they do without."""
    tables = [options(zero_stage=zero_stage, precision="bf16", lr=1e-3) for options in (table, offloaded)]
    engines = [deepspeed_engine(options, 4) for options in tables]
    made = [steps(engine, 4) for engine in engines]
    np.testing.assert_allclose(made[1], made[0], rtol=1e-5)
    compare(state_of(engines[1]), state_of(engines[0]))


def test_a_step_that_is_left_out_leaves_no_trace(one_rank, zero_stage):
    engines = [deepspeed_engine(offloaded(zero_stage, "bf16"), 2) for _ in range(2)]
    steps(engines[0], 2, 0, 3, left_out=1)
    steps(engines[1], 2, 0, 1)
    steps(engines[1], 2, 2, 3)
    compare(state_of(engines[0]), state_of(engines[1]), tolerance=0.0)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_loaded_and_resumed_are_the_same_bits(one_rank, zero_stage, precision, tmp_path):
    options, folder = offloaded(zero_stage, precision), str(tmp_path / "step-2")
    saved = steps_and_saved_state(options, folder)
    loaded, resumed = loaded_state_and_third_step(options, folder)
    compare(loaded, saved, tolerance=0.0)
    _, uninterrupted = deepspeed(options, 2)
    compare(resumed, uninterrupted, tolerance=0.0)


def test_a_checkpoint_of_two_ranks_goes_on_in_one_without(two_ranks, one_rank, zero_stage, tmp_path):
    folder = str(tmp_path / "step-2")
    saved = two_ranks.run(steps_and_saved_state, offloaded(zero_stage), folder)
    loaded, resumed = loaded_state_and_third_step(table(zero_stage=zero_stage), folder)
    for state in saved:
        compare(loaded, state, tolerance=0.0)
    compare(resumed, reference()[1])


def test_nothing_has_to_be_compiled(one_rank, zero_stage, monkeypatch):
    from deepspeed.ops.op_builder.builder import OpBuilder

    def refuse(self, verbose=True):
        raise AssertionError(f"{self.name} would be compiled")

    monkeypatch.setattr(OpBuilder, "jit_load", refuse)
    engine = deepspeed_engine(offloaded(zero_stage), ROWS)
    steps(engine, ROWS, 0, 1)
    assert engine.engine.zero_use_cpu_optimizer()
    assert type(engine.optimizer.optimizer) is torch.optim.AdamW
