"""Activation checkpointing: what is computed again, and that nothing changes by it."""

import pytest
import torch

from llmctl.model.build import ModelShape, build_model
from llmctl.recipe.schema import PretrainTable
from llmctl.tokens.batch import of_sequences
from llmctl.train.objective import CausalObjective
from llmctl.train.prepare import layers_of, prepare_for_training

SHAPE = ModelShape(
    vocab_size=64, hidden_size=16, layers=4, heads=2, kv_heads=2, head_size=8, ffn_size=32, window=8, max_length=32
)


@pytest.mark.parametrize(("wanted", "again"), [(False, 0), (True, 4), (1, 4), (2, 2), (3, 2)])
def test_of_every_so_many_layers_one_is_computed_again(wanted, again):
    table = PretrainTable.model_validate({"name": "p", "kind": "pretrain", "activation_checkpointing": wanted})
    model = prepare_for_training(build_model(SHAPE, seed=3), table)
    passes = []
    for layer in layers_of(model):
        layer.mlp.register_forward_hook(lambda *_: passes.append(1))
    total, _ = CausalObjective(model, 0.0, False, "cpu")(of_sequences([list(range(20)), list(range(9))]))
    total.backward()
    assert len(passes) == 4 + again
    plain = build_model(SHAPE, seed=3)
    prepare_for_training(plain, table.model_copy(update={"activation_checkpointing": False}))
    other, _ = CausalObjective(plain, 0.0, False, "cpu")(of_sequences([list(range(20)), list(range(9))]))
    other.backward()
    assert torch.equal(total, other)
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        assert torch.equal(mine.grad, theirs.grad)
