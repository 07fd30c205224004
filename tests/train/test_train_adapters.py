"""Adapters of every kind under DeepSpeed, on two ranks, against one rank of plain torch."""

import numpy as np
import pytest
from engines import State, compare, deepspeed_engine, reference, state_of, steps, table

from llmctl.recipe.schema import PretrainTable

KINDS = ("lora", "dora", "rslora", "pissa", "lora and embeddings", "lora and tied embeddings")


def gathered(options: PretrainTable, micro_batch: int, model: str, further: dict) -> tuple[np.ndarray, State]:
    engine = deepspeed_engine(options, micro_batch, model, further)
    made = steps(engine, micro_batch)
    return made, state_of(engine)


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
@pytest.mark.parametrize("model", KINDS)
def test_an_adapter_on_two_ranks_is_that_of_plain_torch(two_ranks, model, zero_stage):
    made, state = reference(model=model)
    # Small weights are kept whole by stage 3 otherwise, and all of these are small.
    further = {"zero_optimization": {"stage3_param_persistence_threshold": 0}}
    for others, other in two_ranks.run(gathered, table(zero_stage=zero_stage), 2, model, further):
        np.testing.assert_allclose(others, made, rtol=1e-4)
        compare(other, state)
