"""Bytes that are told ahead against those that autograd keeps, and what ZeRO shards."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from llmctl.errors import UserError
from llmctl.model.build import ModelShape, build_model
from llmctl.model.lora import AdapterSettings, add_adapter
from llmctl.model.lora_linear import quicken
from llmctl.preflight.activations import Load, attention_bytes, kept_matrices, numbers_of, saved_bytes
from llmctl.preflight.decoder import Decoder, decoder_of
from llmctl.preflight.fit import Task, changes, longest_row, possible, remedy
from llmctl.preflight.memory import Machine, memory_of_step, states, working_block
from llmctl.recipe.chat_schema import LoraTable
from llmctl.recipe.schema import PretrainTable, TrainTable
from llmctl.tokens.batch import from_documents
from llmctl.train.micro_batch import choose_micro_batch
from llmctl.train.objective import CausalObjective
from llmctl.train.prepare import layers_of, prepare_for_training

SHAPE = ModelShape(
    vocab_size=512, hidden_size=128, layers=4, heads=4, kv_heads=4, head_size=32, ffn_size=320, window=64, max_length=4096
)
WAYS = {"autocast": {"precision": "bf16"}, "bf16": {"precision": "bf16", "zero_stage": 1}, "fp32": {"precision": "fp32"}}
GPU = Machine(8, 80 * 2**30, True, True, "gpu")


def table(**keys) -> PretrainTable:
    base = {"name": "p", "kind": "pretrain", "seq_len": 256, "batch_tokens": 2**20, "lr": 1e-3, "compile": False}
    return PretrainTable.model_validate(base | keys)


def kept_by_autograd(model: torch.nn.Module, stage: TrainTable, rows: int) -> int:
    """Bytes of the storages that the graph of one forward pass holds, the model's own weights left out."""
    if stage.zero_stage:
        model = model.bfloat16()
        model.model.rotary_emb.float()
    autocast = stage.precision == "bf16" and not stage.zero_stage
    objective = CausalObjective(prepare_for_training(model, stage), 0.0, autocast, "cpu")
    ids = np.arange(rows * stage.seq_len) % 512
    batch = from_documents(ids, ids.copy(), [stage.seq_len] * rows)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    found = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        objective(batch)
    return sum(storage.nbytes() for place, storage in found.items() if place not in own)


def told_ahead(decoder: Decoder, stage: TrainTable, rows: int) -> int:
    numbers = numbers_of(stage, True)
    saved = saved_bytes(decoder, stage, Load(rows, stage.seq_len), numbers, on_gpu=False)
    head = 4 * decoder.vocab_size * decoder.hidden_size if decoder.head_trained else 0
    return saved + head + (2 * kept_matrices(decoder, stage) if numbers.autocast else 0)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("rows", "length", "changed", "keys"),
    [
        (2, 256, {}, {}),
        (1, 2048, {"window": 4096}, {}),
        (3, 1100, {"window": 512}, {}),
        (2, 256, {"kv_heads": 1, "window": 256}, {}),
        (2, 256, {"layers": 5}, {"activation_checkpointing": 2}),
    ],
    ids=["windows", "long", "padded windows", "grouped heads", "every second block recomputed"],
)
def test_activations_are_those_that_autograd_keeps(way, rows, length, changed, keys):
    stage, model = table(seq_len=length, **keys, **WAYS[way]), build_model(replace(SHAPE, **changed), seed=1)
    assert told_ahead(decoder_of(model), stage, rows) == pytest.approx(kept_by_autograd(model, stage, rows), rel=0.05)


@pytest.mark.parametrize("way", WAYS)
def test_blocks_that_are_recomputed_keep_their_input(way):
    stage, model = table(activation_checkpointing=True, **WAYS[way]), build_model(SHAPE, seed=1)
    positions = (
        2 * 8 * 32 * 512
    )  # sines and cosines of both kinds, which checkpointing holds as arguments, out of autograd's sight
    measured = kept_by_autograd(model, stage, 2) + positions
    assert told_ahead(decoder_of(model), stage, 2) == pytest.approx(measured, rel=0.01)


@pytest.mark.parametrize("way", ["autocast", "fp32"])
def test_an_adapter_lets_norms_keep_less(way):
    stage, model = table(**WAYS[way]), build_model(SHAPE, seed=1)
    whole = told_ahead(decoder_of(model), stage, 2)
    adapted = add_adapter(model, AdapterSettings(rank=4, alpha=8.0), seed=1)
    measured = kept_by_autograd(adapted, stage, 2)
    assert told_ahead(decoder_of(adapted), stage, 2) == pytest.approx(measured, rel=0.05)
    assert measured < whole


def lora_table(**keys) -> LoraTable:
    base = {"name": "l", "kind": "lora", "seq_len": 256, "batch_tokens": 2**20, "lr": 1e-3, "compile": False, "mix": {"a": 1.0}}
    return LoraTable.model_validate(base | keys)


@pytest.mark.parametrize("added", [[], ["<|a|>"]], ids=["", "added tokens"])
@pytest.mark.parametrize("keys", [{}, {"activation_checkpointing": 2}], ids=["", "recomputed"])
@pytest.mark.parametrize("way", ["autocast", "fp32"])
def test_an_adapters_activations_are_those_that_a_job_keeps(way, keys, added):
    """With its products joined and frozen weights in bf16, where it has them so."""
    stage, settings = lora_table(rank=64, add_tokens=added, **keys, **WAYS[way]), AdapterSettings(64, 8.0)
    settings = replace(settings, added_tokens=len(added))
    adapted = add_adapter(build_model(SHAPE, seed=1), settings, seed=1)
    quicken(adapted, settings, stage.zero_stage, stage.precision == "bf16", compiled=False)
    decoder, measured = decoder_of(adapted), kept_by_autograd(adapted, stage, 2)
    assert told_ahead(decoder, stage, 2) == pytest.approx(measured, rel=0.05)
    weights = states(stage, decoder.parameters, decoder.trained, 1, numbers_of(stage, True).product).weights
    assert weights == sum(parameter.nbytes for parameter in adapted.parameters())


def test_four_bits_and_frozen_weights_in_bfloat16_take_less():
    decoder = decoder_of(add_adapter(build_model(SHAPE, seed=1), AdapterSettings(4, 8.0), seed=1))
    frozen, matrices = decoder.parameters - decoder.trained, 4 * (4 * 128 * 128 + 3 * 128 * 320)
    full, held, packed = (
        memory_of_step(decoder, lora_table(**keys), 1, GPU)
        for keys in ({"precision": "fp32"}, {"precision": "bf16"}, {"precision": "bf16", "quantize": "nf4"})
    )
    assert full.weights - held.weights == 2 * frozen
    copies = 2 * decoder.trained  # of the adapter's own matrices
    assert packed.weights - copies == pytest.approx(4 * (decoder.parameters - matrices) + 0.55 * matrices)
    assert packed.set_up == pytest.approx(packed.weights - copies)
    assert (held.set_up, full.set_up) == (held.weights, full.weights)
    zero = memory_of_step(decoder, lora_table(precision="bf16", quantize="nf4", zero_stage=2), 1, GPU)
    assert zero.weights == pytest.approx(2 * (decoder.parameters - matrices) + 0.55 * matrices)


def test_the_shape_is_read_off_a_model_without_weights():
    decoder = decoder_of(build_model(SHAPE, seed=1, device="meta"))
    assert decoder == decoder_of(build_model(SHAPE, seed=1))
    block = 4 * 128 * 128 + 3 * 128 * 320
    assert (decoder.block_matrices, decoder.muon_matrices) == (4 * block, 4 * block)
    assert decoder.largest_alike == 4 * 2 * 128 * 320  # gate and up
    assert decoder.parameters == decoder.trained == 4 * (block + 4 * 128) + 2 * 512 * 128 + 128


def test_states_by_optimizer_and_stage():
    size = 1000
    by = {stage: states(table(zero_stage=stage, precision="bf16"), size, size, 4, 2) for stage in range(4)}
    assert [by[stage].weights / size for stage in range(4)] == [4, 2, 2, 0.5]
    assert [by[stage].gradients / size for stage in range(4)] == [4, 4, 1, 1]
    assert [by[stage].optimizer / size for stage in range(4)] == [8, 3, 3, 3]
    offloaded = states(table(zero_stage=2, offload_optimizer=True), size, size, 4, 2)
    assert (offloaded.total / size, offloaded.on_host / size) == (2, 4)
    muon = states(table(optimizer="muon", ema_decay=0.9), size, size, 4, 4, muon_matrices=600)
    assert muon.optimizer == 4 * 600 + 8 * 400 + 4 * 1000


def test_what_the_states_take_is_what_torch_holds():
    from llmctl.train.optimizer import build_optimizer

    for optimizer in ("adamw", "muon"):
        stage, model = table(optimizer=optimizer, precision="fp32"), build_model(SHAPE, seed=1)
        decoder, updater = decoder_of(model), build_optimizer(model, stage)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        updater.step()
        tensors = [t for state in updater.state.values() for t in state.values() if isinstance(t, torch.Tensor) and t.ndim]
        memory = memory_of_step(decoder, stage, 1, GPU)
        assert memory.optimizer == sum(tensor.nbytes for tensor in tensors)


LARGE = Decoder(
    4096, (4096, 4096, 4096, None) * 8, 32, 32, 128, 11008, 100_352,
    7_298_617_344, 7_298_617_344, 6_476_005_376, 6_476_005_376, 2_885_681_152, True, True, True,
)  # fmt: skip


def test_every_change_lowers_what_a_rank_holds():
    base = {"seq_len": 65536, "batch_tokens": 2**22, "micro_batch": 1}
    before = memory_of_step(LARGE, table(**base, zero_stage=2), 1, GPU)
    for keys in (
        {"activation_checkpointing": True},
        {"tiled_mlp": True},
        {"sequence_parallel": 4},
        {"zero_stage": 3},
        {"zero_stage": 2, "offload_optimizer": True},
        {"activation_checkpointing": 2},
    ):
        assert memory_of_step(LARGE, table(**base | {"zero_stage": 2} | keys), 1, GPU).needs < before.needs
    checkpointed = memory_of_step(LARGE, table(**base, activation_checkpointing=True), 1, GPU)
    offloaded = memory_of_step(LARGE, table(**base, activation_checkpointing=True, offload_activations=True), 1, GPU)
    inputs = 32 * 65536 * 4096 * 4
    assert checkpointed.activations - offloaded.activations == inputs


def test_the_longest_row_is_the_longest_that_fits():
    task = Task(LARGE, table(zero_stage=2, activation_checkpointing=True, batch_tokens=2**22, micro_batch=1), GPU)
    longest = longest_row(task)
    assert longest % 1024 == 0
    assert task.changed({"seq_len": longest}).fits(1)
    assert not task.changed({"seq_len": longest + 1024}).fits(1)
    assert longest_row(Task(LARGE, task.table, replace(GPU, memory=2**34))) == 0


def test_the_remedy_fits_and_needs_all_of_its_keys():
    task = Task(LARGE, table(zero_stage=2, seq_len=131072, batch_tokens=2**22, micro_batch=1), GPU)
    assert not task.fits(1)
    found = remedy(task)
    assert found.fits
    assert task.changed(found.keys).fits(1)
    assert found.longest_row >= 131072
    for key in found.keys:
        fewer = {other: value for other, value in found.keys.items() if other != key}
        if key != "activation_checkpointing" or "offload_activations" not in fewer:
            assert not task.changed(fewer).fits(1)
    assert [change.keys for change in changes(task) if "tiled_mlp" in change.keys] == [{"tiled_mlp": True}]


def test_muon_is_not_told_to_shard():
    task = Task(LARGE, table(optimizer="muon", seq_len=65536, batch_tokens=2**22, micro_batch=1), GPU)
    assert not any("zero_stage" in change.keys for change in changes(task))


FEW = replace(LARGE, heads=16, kv_heads=2)


def test_few_key_heads_let_ranks_exchange_keys_as_in_training():
    """Of 16 heads with 2 key heads, 8 ranks cannot exchange heads: each keeps the keys of the whole row."""
    load, heads_of_rank = Load(1, 65536, 8), 16 * 128 * 2
    kept = attention_bytes(FEW, None, table(seq_len=65536, sequence_parallel=8), load, 2, on_gpu=True) // load.tokens
    assert kept == 2 * heads_of_rank + 2 * 8 * 2 * 128 * 2 + 4 * 16
    exchanged = attention_bytes(FEW, None, table(sequence_parallel=2), Load(1, 65536, 2), 2, on_gpu=True) // (65536 // 2)
    assert exchanged == 3 * heads_of_rank + 2 * 2 * 128 * 2 + 4 * 16
    with pytest.raises(UserError, match="the model has 2 key and value heads"):
        Task(FEW, table(sequence_parallel=8, sequence_exchange="heads"), GPU).memory(1)


@pytest.mark.parametrize(
    ("exchange", "offered"), [("auto", ["heads", "keys", "keys"]), ("keys", ["keys"] * 3), ("heads", ["heads"])]
)
def test_rows_are_shared_by_what_training_would_exchange(exchange, offered):
    stage = table(seq_len=65536, batch_tokens=2**22, sequence_exchange=exchange)
    costs = [cost for keys, cost in possible(stage, GPU, 1, FEW.kv_heads) if "sequence_parallel" in keys]
    assert [cost.split()[-3] for cost in costs] == offered


@pytest.mark.parametrize("together", [1, 2, 4])
def test_the_plan_names_the_micro_batch_that_a_cpu_takes(together):
    stage, cpu = table(seq_len=1024, batch_tokens=2**17, sequence_parallel=together), replace(GPU, on_gpu=False)
    objective: Any = SimpleNamespace(sequence=SimpleNamespace(size=together) if together > 1 else None)
    source = SimpleNamespace(row=lambda _: SimpleNamespace(tokens=np.zeros(stage.seq_len)))
    rows: Any = SimpleNamespace(steps=stage.steps, sources=[source])
    taken = choose_micro_batch(objective, rows, cpu.ranks, torch.device("cpu"))
    assert Task(LARGE, stage, cpu).micro_batch == taken == 4 * together


def test_a_tile_is_as_long_in_the_plan_as_in_training():
    stage = table(precision="fp32", tiled_mlp=True, compile=False)
    model, longest = prepare_for_training(build_model(SHAPE, seed=1), stage), []
    layers_of(model)[0].mlp.down_proj.register_forward_hook(lambda _, inputs, __: longest.append(inputs[0].shape[1]))
    ids = np.arange(1024) % 512
    with torch.no_grad():
        CausalObjective(model, 0.0, False, "cpu")(from_documents(ids, ids.copy(), [1024]))
    wide = replace(decoder_of(model), ffn_size=10**6)
    wider = replace(wide, ffn_size=10**6 + 1)
    load, numbers = Load(1, 1024), numbers_of(stage, True)
    more = working_block(wider, stage, load, numbers, False) - working_block(wide, stage, load, numbers, False)
    assert more == 4 * 6 * max(longest)


def test_weights_that_are_packed_count_as_many_as_they_are():
    """As `bitsandbytes` holds them: a byte has two, in one column."""
    model = build_model(SHAPE, seed=1, device="meta")
    model.requires_grad_(False)
    before = decoder_of(model)
    for layer in model.model.layers:
        for linear in (part for part in layer.modules() if isinstance(part, nn.Linear)):
            packed = torch.empty(linear.weight.numel() // 2, 1, dtype=torch.uint8, device="meta")
            linear.weight = nn.Parameter(packed, requires_grad=False)
    assert decoder_of(model) == before
