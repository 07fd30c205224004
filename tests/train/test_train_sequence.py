"""Rows that several ranks share: the steps that they make together are those of one rank that has the rows to itself."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engines import LENGTH, ROWS, State, compare, deepspeed, deepspeed_engine, reference, state_of, steps, supervised, table
from transformers import AutoConfig

from llmctl.errors import UserError
from llmctl.recipe.graph import training_stage
from llmctl.recipe.load import load_recipe
from llmctl.recipe.schema import PretrainTable
from llmctl.stages.bench import job_of_random_rows
from llmctl.tokens.batch import collate
from llmctl.tokens.rows import IGNORED, Row
from llmctl.train import checkpoint, devices
from llmctl.train.bench import measure
from llmctl.train.checkpoint import Position, SavedState
from llmctl.train.data import TrainingRows
from llmctl.train.job import TrainJob
from llmctl.train.prepare import layers_of
from llmctl.train.sequence import exchange_of


def rows_of_documents(step: int) -> list[Row]:
    """Rows of one document to six; where they end has nothing to do with where the ranks' parts end."""
    random = np.random.default_rng(100 + step)
    rows = []
    for index in range(ROWS):
        ids = random.integers(0, 64, LENGTH + 1)
        labels = np.where(random.random(LENGTH) < 0.3, IGNORED, ids[1:])
        ends = np.sort(random.choice(np.arange(1, LENGTH), size=index % 6, replace=False))
        rows.append(Row(ids[:-1], labels, np.diff([0, *ends, LENGTH]).tolist()))
    return rows


LR = 1e-3  # at that of the other tests AdamW makes 3e-5 of the last digits where a gradient is next to nothing


def together(ranks: int, exchange: str = "auto", **keys: Any) -> PretrainTable:
    return table(sequence_parallel=ranks, sequence_exchange=exchange, lr=LR, **keys)


def alone(model: str = "plain") -> tuple[np.ndarray, State]:
    return reference(rows_of=rows_of_documents, model=model, lr=LR)


def assert_equal(found: list[tuple[np.ndarray, State]], expected: tuple[np.ndarray, State]) -> None:
    for made, state in found:
        np.testing.assert_allclose(made, expected[0], rtol=1e-4)
        compare(state, expected[1])


@pytest.mark.parametrize("micro_batch", [1, 2])
@pytest.mark.parametrize("zero_stage", [0, 3])
@pytest.mark.parametrize("exchange", ["heads", "keys"])
def test_two_ranks_that_share_rows_equal_one(two_ranks, exchange, zero_stage, micro_batch):
    options = together(2, exchange, zero_stage=zero_stage)
    found = two_ranks.run(deepspeed, options, micro_batch, rows_of_documents, "grouped")
    assert_equal(found, alone("grouped"))


@pytest.mark.parametrize("exchange", ["heads", "keys"])
def test_checkpointed_blocks_are_computed_again_by_all_of_them(two_ranks, exchange):
    options = together(2, exchange, zero_stage=3, activation_checkpointing=True)
    found = two_ranks.run(deepspeed, options, 2, rows_of_documents)
    assert_equal(found, alone())


@pytest.mark.parametrize(("ranks", "exchange", "zero_stage"), [(2, "heads", 0), (2, "keys", 3), (4, "auto", 3), (4, "keys", 0)])
def test_groups_of_ranks_have_rows_of_their_own(four_ranks, ranks, exchange, zero_stage):
    """Two groups of two, or one of four, which has more ranks than the model has heads for keys."""
    options = together(ranks, exchange, zero_stage=zero_stage)
    found = four_ranks.run(deepspeed, options, 1, rows_of_documents, "grouped")
    assert_equal(found, alone("grouped"))


def exchange_found(options: PretrainTable, model: str) -> tuple[str, int, int]:
    engine = deepspeed_engine(options, 1, model)
    assert engine.objective.sequence is not None
    return engine.objective.sequence.exchange, engine.data_rank, engine.data_ranks


def test_heads_are_exchanged_where_they_can_be_shared_out(four_ranks):
    assert four_ranks.run(exchange_found, together(2), "grouped") == [("heads", rank // 2, 2) for rank in range(4)]
    assert four_ranks.run(exchange_found, together(4), "grouped") == [("keys", 0, 1)] * 4


def gradients(options: PretrainTable, compiled: bool) -> tuple[float, dict[str, torch.Tensor]]:
    """Of one batch, summed over the ranks; in bf16 if the table says so."""
    engine = deepspeed_engine(options, 2)
    if compiled:
        for layer in layers_of(engine.objective.model):
            layer.compile(backend="aot_eager")
    total, _ = engine.objective(collate(rows_of_documents(0)[3:5]))
    total.backward()
    found = {name: p.grad.clone() for name, p in engine.objective.named_parameters() if p.grad is not None}
    loss = total.detach()
    if engine.world_size > 1:
        for tensor in (loss, *found.values()):
            torch.distributed.all_reduce(tensor)
    return float(loss), found


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("exchange", ["heads", "keys"])
def test_compiled_layers_have_the_gradients_of_eager_ones(two_ranks, one_rank, exchange, checkpointing):
    loss, expected = gradients(table(), False)
    options = together(2, exchange, activation_checkpointing=checkpointing)
    for mine, found in two_ranks.run(gradients, options, True):
        assert mine == pytest.approx(loss, rel=1e-5)
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("zero_stage", [0, 2])
@pytest.mark.parametrize("exchange", ["heads", "keys"])
def test_in_bfloat16_they_stay_near(two_ranks, exchange, zero_stage):
    expected, _ = alone()
    for made, _ in two_ranks.run(deepspeed, together(2, exchange, zero_stage=zero_stage, precision="bf16"), 2, rows_of_documents):
        np.testing.assert_allclose(made[:, 0], expected[:, 0], rtol=5e-3)


def heldout(options: PretrainTable) -> float:
    engine = deepspeed_engine(options, 2)
    total = engine.measure(collate(rows_of_documents(0)[:2]))
    if engine.world_size > 1:
        torch.distributed.all_reduce(total)
    return float(total)


def test_a_loss_measured_without_gradients_is_the_sum_over_the_parts(two_ranks, one_rank):
    assert supervised(rows_of_documents(0)[:2])
    assert two_ranks.run(heldout, together(2, zero_stage=3)) == [pytest.approx(heldout(table()), rel=1e-5)] * 2


def save_after_two_steps(options: PretrainTable, folder: str) -> None:
    engine = deepspeed_engine(options, 1)
    steps(engine, 1, 0, 2, rows_of=rows_of_documents)
    checkpoint.save(engine, Path(folder), Position(2, 2 * ROWS * LENGTH, 2))


def resume_for_the_third(options: PretrainTable, folder: str) -> State:
    engine = deepspeed_engine(options, 1)
    saved = SavedState(Path(folder))
    engine.load_state(saved.read, saved.position.optimizer_step)
    steps(engine, 1, 2, 3, rows_of=rows_of_documents)
    return state_of(engine)


def test_a_checkpoint_goes_on_with_another_number_of_ranks_to_a_row(two_ranks, one_rank, tmp_path):
    _, expected = alone()
    two_ranks.run(save_after_two_steps, together(2, zero_stage=2), str(tmp_path / "step-2"))
    for state in two_ranks.run(resume_for_the_third, together(1, zero_stage=0), str(tmp_path / "step-2")):
        compare(state, expected)
    compare(resume_for_the_third(together(1, zero_stage=3), str(tmp_path / "step-2")), expected)


def config(**keys: Any) -> Any:
    return AutoConfig.for_model("qwen3", num_attention_heads=8, num_key_value_heads=2, **keys)


@pytest.mark.parametrize(
    ("asked", "model", "told"),
    [
        (together(4, "heads"), config(), "the model has 2 key and value heads"),
        (together(2), config(layer_types=["linear_attention"], num_hidden_layers=1), "layers of linear_attention"),
        (together(2), config(rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}), "RoPE of type dynamic"),
    ],
)
def test_a_model_whose_rows_cannot_be_shared_is_refused(asked, model, told):
    with pytest.raises(UserError, match=told):
        exchange_of(asked, model)


def rows_dealt_out(job: TrainJob) -> tuple[int, int, set[tuple[int, int]]]:
    """Rows and tokens of a step as `llmctl bench` counts them, and the shares of the rows that were asked for."""
    asked, original = set(), TrainingRows.micro_batches

    def watched(self: TrainingRows, step: int, micro_batch: int, data_rank: int, data_ranks: int) -> Any:
        asked.add((data_rank, data_ranks))
        return original(self, step, micro_batch, data_rank, data_ranks)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingRows, "micro_batches", watched)
        patch.setattr(devices, "SIZE", 256)
        found = measure(job, 2)
    return found.batch_rows, found.step_tokens, asked


def test_a_step_that_is_measured_has_each_row_once(two_ranks, small_recipe, tmp_path):
    recipe = load_recipe(small_recipe, ["pretrain.sequence_parallel=2"])
    job = job_of_random_rows(recipe, training_stage(recipe, "pretrain"), 2, 2, tmp_path / "job")
    assert two_ranks.run(rows_dealt_out, job) == [(4, 4 * 64, {(0, 1)})] * 2
