"""Operations of a training step: counted by hand, and by torch on the real model."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from llmctl.model.build import ModelShape, build_model
from llmctl.model.lora import AdapterSettings, add_adapter
from llmctl.preflight.flops import Work, pairs_seen
from llmctl.recipe.schema import PretrainTable
from llmctl.tokens.batch import from_documents
from llmctl.train.bench import work_of
from llmctl.train.objective import CausalObjective
from llmctl.train.prepare import prepare_for_training

LENGTH = 32
SHAPE = ModelShape(
    vocab_size=64, hidden_size=16, layers=4, heads=2, kv_heads=1, head_size=8, ffn_size=32, window=LENGTH, max_length=LENGTH
)


@pytest.mark.parametrize("window", [None, 1, 3, 7, 8])
def test_pairs_are_those_of_a_query_and_the_keys_before_it_in_the_window(window):
    one_by_one = sum(min(position + 1, window or position + 1) for position in range(7))
    assert pairs_seen(7, window) == one_by_one


def test_a_tiny_shape_by_hand():
    """Width 4, one head of 4, inner width 8, 10 tokens of vocabulary, a layer with a window of 2 and one without; rows of 3."""
    weights = 2 * (4 * 4 * 4 + 3 * 4 * 8) + 10 * 4
    keys = (1 + 2 + 2) + (1 + 2 + 3)
    work = Work(weights, 0, (2, None), heads=1, head_size=4)
    assert work.flops_per_token({3: 1}) == 6 * weights + 12 * 4 * keys / 3
    assert work.flops_per_token({1: 3}) == 6 * weights + 12 * 4 * 2  # every token sees itself, in both layers
    frozen = Work(0, weights, (2, None), heads=1, head_size=4)
    assert work.flops_per_token({3: 5}) - frozen.flops_per_token({3: 5}) == 2 * weights


def test_the_shape_is_read_off_the_model():
    model = build_model(replace(SHAPE, window=8), seed=1)
    matrices = 4 * (2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 32) + 64 * 16
    assert work_of(model) == Work(matrices, 0, (8, 8, 8, None), 2, 8)
    tied = build_model(replace(SHAPE, tie_embeddings=True), seed=1)
    assert work_of(tied) == Work(matrices, 0, (32, 32, 32, None), 2, 8)


def counted(model: torch.nn.Module) -> dict[str, int]:
    """Operations of a forward and a backward pass over one row, as torch counts them, by kind of product."""
    table = PretrainTable.model_validate(
        {
            "name": "p",
            "kind": "pretrain",
            "tokens": 64,
            "seq_len": LENGTH,
            "batch_tokens": LENGTH,
            "mix": {"a": 1.0},
            "compile": False,
        }
    )
    # Under bfloat16 a CPU attends by two batched products, which the counter knows; its fused kernel the counter does not.
    objective = CausalObjective(prepare_for_training(model, table), 0.0, autocast=True, device_type="cpu")
    ids = np.arange(LENGTH)
    batch = from_documents(ids, ids.copy(), [LENGTH])
    with FlopCounterMode(display=False) as counter:
        objective(batch)[0].backward()
    counted = {str(kind): count for kind, count in counter.get_flop_counts()["Global"].items()}
    return {"products": counted["aten.mm"] + counted["llmctl_kernels.linear_cross_entropy"], "attention": counted["aten.bmm"]}


@pytest.mark.parametrize("tied", [False, True])
def test_it_is_what_torch_counts(tied):
    model = build_model(replace(SHAPE, tie_embeddings=tied), seed=1)
    work = work_of(model)
    found = counted(model)
    assert found["products"] == 6 * work.trained * LENGTH
    # Torch counts the whole square of scores; seen are the keys up to the query.
    attention = found["attention"] * (LENGTH + 1) / (2 * LENGTH)
    assert work.flops_per_token({LENGTH: 1}) * LENGTH == found["products"] + attention


def test_frozen_weights_below_an_adapter_cost_two_thirds():
    model = add_adapter(build_model(SHAPE, seed=1), AdapterSettings(rank=2, alpha=4.0), seed=1)
    work = work_of(model)
    assert (work.trained, work.frozen) == (4 * 2 * (4 * 16 + 2 * (16 + 8) + 3 * (16 + 32)), 10240)
    first = 2 * (16 * 16 + 2 * 16 * 8 + 3 * 16 * 2)  # the gradient of the first layer's input, which nothing asks for
    assert counted(model)["products"] == (6 * work.trained + 4 * work.frozen - first) * LENGTH
