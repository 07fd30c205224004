"""Adapters of every kind as a job trains them, under DeepSpeed and on two ranks, against `peft` on one rank of plain torch."""

from typing import Any

import numpy as np
import pytest
import torch
from engines import State, compare, deepspeed_engine, objective, reference, state_of, steps, table

from llmctl.recipe.schema import PretrainTable

KINDS = ("lora", "dora", "rslora", "pissa", "lora and embeddings", "lora and tied embeddings")


def gathered(options: PretrainTable, micro_batch: int, model: str, further: dict) -> tuple[np.ndarray, State]:
    engine = deepspeed_engine(options, micro_batch, model, further)
    made = steps(engine, micro_batch)
    return made, state_of(engine)


# Small weights are kept whole by stage 3 otherwise, and all of these are small.
FURTHER = {"zero_optimization": {"stage3_param_persistence_threshold": 0}}


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
@pytest.mark.parametrize("model", KINDS)
def test_an_adapter_on_two_ranks_is_that_of_plain_torch(two_ranks, model, zero_stage):
    made, state = reference(model=model)
    for others, other in two_ranks.run(gathered, table(zero_stage=zero_stage), 2, model, FURTHER):
        np.testing.assert_allclose(others, made, rtol=1e-4)
        compare(other, state)


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
@pytest.mark.parametrize("model", ["lora", "lora and embeddings"])
def test_with_blocks_computed_again_it_is_the_same(two_ranks, model, zero_stage):
    made, state = reference(model=model)
    options = table(zero_stage=zero_stage, activation_checkpointing=True)
    for others, other in two_ranks.run(gathered, options, 2, model, FURTHER):
        np.testing.assert_allclose(others, made, rtol=1e-4)
        compare(other, state)


@pytest.mark.parametrize(
    ("model", "zero_stage", "precision", "joined", "held"),
    [
        ("lora", 0, "fp32", True, False),
        ("lora", 0, "bf16", True, True),
        ("lora", 2, "bf16", True, False),
        ("lora", 3, "fp32", False, False),
        ("lora with dropout", 0, "bf16", False, True),
        ("dora", 0, "bf16", False, False),
        ("lora and embeddings", 0, "bf16", True, True),
    ],
)
def test_what_is_joined_and_held_in_bfloat16(model, zero_stage, precision, joined, held):
    built: Any = objective(table(zero_stage=zero_stage, precision=precision, compile=False), model, quick=True)
    assert any("_Joined" in type(module.forward).__name__ for module in built.modules()) == joined
    frozen = {parameter.dtype for parameter in built.parameters() if not parameter.requires_grad}
    assert frozen == {torch.bfloat16 if held else torch.float32}
    assert {parameter.dtype for parameter in built.parameters() if parameter.requires_grad} == {torch.float32}
