"""DeepSpeed against plain torch: every ZeRO stage, one rank and two, gives the weights that the reference gives."""

import copy
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
    rows_of_step,
    state_of,
    steps,
    table,
    torch_engine,
)

from llmctl.recipe.schema import PretrainTable
from llmctl.tokens.batch import collate
from llmctl.train import checkpoint
from llmctl.train.checkpoint import Position, SavedState
from llmctl.train.objective import trainable


def save_after_two_steps(options: PretrainTable, folder: str) -> None:
    engine = deepspeed_engine(options, 2)
    steps(engine, 2, 0, 2)
    checkpoint.save(engine, Path(folder), Position(2, 2 * ROWS * LENGTH, 2))


def resume_for_the_third(options: PretrainTable, folder: str) -> State:
    engine = deepspeed_engine(options, 2)
    saved = SavedState(Path(folder))
    engine.load_state(saved.read, saved.position.optimizer_step)
    steps(engine, 2, 2, 3)
    return state_of(engine)


@pytest.mark.parametrize("micro_batch", [1, 2, 4])
def test_micro_batch_times_accumulation_does_not_matter(micro_batch):
    made, state = reference()
    others, other = reference(micro_batch)
    np.testing.assert_allclose(others, made, rtol=1e-5)
    compare(other, state)


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_one_rank_of_deepspeed_equals_plain_torch(one_rank, zero_stage):
    made, state = reference()
    others, other = deepspeed(table(zero_stage=zero_stage), 2)
    np.testing.assert_allclose(others, made, rtol=1e-4)
    compare(other, state)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_a_step_that_is_left_out_leaves_no_trace(one_rank, zero_stage, precision):
    options = table(zero_stage=zero_stage, precision=precision)
    engines = [deepspeed_engine(options, 2) for _ in range(2)]
    steps(engines[0], 2, 0, 3, left_out=1)
    steps(engines[1], 2, 0, 1)
    steps(engines[1], 2, 2, 3)
    mine, theirs = map(state_of, engines)
    compare(mine, theirs, tolerance=0.0)


@pytest.mark.parametrize("engine_of", [lambda options: deepspeed_engine(options, 2), torch_engine], ids=["deepspeed", "torch"])
def test_gradients_that_are_no_number_move_no_weight(one_rank, engine_of):
    engine = engine_of(table())
    steps(engine, 2, 0, 1)
    before = state_of(engine)
    for parameter in trainable(engine.objective).values():
        parameter.grad = torch.full_like(parameter, float("nan"))
    rows = rows_of_step(1)
    for at in range(0, ROWS, 2):
        engine.accumulate(collate(rows[at : at + 2]), 1, last=at + 2 >= ROWS)
    assert np.isnan(engine.step(1.0))
    compare(state_of(engine), before, tolerance=0.0)


@pytest.mark.parametrize("engine_of", [lambda options: deepspeed_engine(options, 2), torch_engine], ids=["deepspeed", "torch"])
def test_a_gradient_above_the_limit_moves_no_weight(one_rank, engine_of):
    engine = engine_of(table())
    steps(engine, 2, 0, 1)
    before, rows = state_of(engine), rows_of_step(1)
    for at in range(0, ROWS, 2):
        engine.accumulate(collate(rows[at : at + 2]), 1, last=at + 2 >= ROWS)
    norm = engine.step(1.0, norm_limit=1e-3)
    assert norm > 1e-3
    assert engine.norm_in_time
    compare(state_of(engine), before, tolerance=0.0)
    steps(engine, 2, 2, 3)
    other = engine_of(table())
    steps(other, 2, 0, 1)
    steps(other, 2, 2, 3)
    compare(state_of(engine), state_of(other), tolerance=0.0)


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
@pytest.mark.parametrize("model", ["tied", "frozen", "lora"])
def test_tied_frozen_and_adapted_weights_are_those_of_plain_torch(one_rank, model, zero_stage, accumulation):
    engines = [torch_engine(table(), model), deepspeed_engine(table(zero_stage=zero_stage), ROWS // accumulation, model)]
    made = [steps(engine, ROWS // accumulation) for engine in engines]
    np.testing.assert_allclose(made[1], made[0], rtol=1e-4)
    compare(state_of(engines[1]), state_of(engines[0]))


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_twenty_steps_are_those_of_plain_torch(one_rank, zero_stage):
    # At the rate of the other tests AdamW makes a difference of one in a million of step 4 one in a hundred of step 20.
    engines = [torch_engine(table(lr=1e-3)), deepspeed_engine(table(lr=1e-3, zero_stage=zero_stage), 4)]
    made = [steps(engine, 4, 0, 20) for engine in engines]
    np.testing.assert_allclose(made[1], made[0], rtol=1e-3)
    compare(state_of(engines[1]), state_of(engines[0]), tolerance=1e-4)


def test_muon_under_deepspeed_equals_plain_torch(one_rank):
    # One micro-batch: Muon's iteration runs in bfloat16 and makes much of a gradient's last digits.
    made, state = reference(optimizer="muon")
    others, other = deepspeed(table(optimizer="muon"), ROWS)
    np.testing.assert_allclose(others, made, rtol=1e-4)
    compare(other, state)


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_two_ranks_equal_one(two_ranks, zero_stage):
    made, state = reference()
    for others, other in two_ranks.run(deepspeed, table(zero_stage=zero_stage), 2):
        np.testing.assert_allclose(others, made, rtol=1e-4)
        compare(other, state)


@pytest.mark.parametrize(("before", "after"), [(0, 3), (3, 0), (1, 2), (2, 1)])
def test_a_checkpoint_goes_on_under_another_zero_stage_and_number_of_ranks(two_ranks, one_rank, tmp_path, before, after):
    _, state = reference()
    folder = tmp_path / "step-2"
    two_ranks.run(save_after_two_steps, table(zero_stage=before), str(folder))
    assert checkpoint.problems(folder) == []
    compare(resume_for_the_third(table(zero_stage=after), str(folder)), state)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_resumed_equals_uninterrupted_bit_for_bit(one_rank, tmp_path, zero_stage, precision):
    options = table(zero_stage=zero_stage, precision=precision)
    save_after_two_steps(options, str(tmp_path / "step-2"))
    resumed = resume_for_the_third(options, str(tmp_path / "step-2"))
    engine = deepspeed_engine(copy.deepcopy(options), 2)
    steps(engine, 2)
    uninterrupted = state_of(engine)
    for name, state in uninterrupted.items():
        for key, value in state.items():
            assert torch.equal(resumed[name][key], value), f"{name} {key}"
