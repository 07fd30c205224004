"""What is kept of the forward pass: less with tiles, on the host when offloaded, and the same gradients."""

import numpy as np
import pytest
import torch
from engines import compare, deepspeed, deepspeed_engine, reference, state_of, steps, table, torch_engine

from llmctl.errors import UserError
from llmctl.model.build import ModelShape, build_model
from llmctl.model.tiled import tile_feed_forward
from llmctl.recipe.schema import PretrainTable
from llmctl.tokens.batch import of_sequences
from llmctl.train import prepare
from llmctl.train.objective import CausalObjective
from llmctl.train.prepare import layers_of, prepare_for_training

WIDTH, INNER = 16, 96
SHAPE = ModelShape(
    vocab_size=64, hidden_size=WIDTH, layers=4, heads=2, kv_heads=2, head_size=8, ffn_size=INNER, window=8, max_length=64
)
BATCH = of_sequences([list(range(60)), list(range(9))])


def prepared(compiled: bool = False, **keys) -> CausalObjective:
    table = PretrainTable.model_validate({"name": "p", "kind": "pretrain"} | keys)
    objective = CausalObjective(prepare_for_training(build_model(SHAPE, seed=3), table), 0.0, keys.get("bf16", False), "cpu")
    if compiled:
        for layer in layers_of(objective.model):
            layer.compile(backend="aot_eager")
    return objective


def gradients(objective: CausalObjective) -> dict[str, torch.Tensor]:
    total, _ = objective(BATCH)
    total.backward()
    return {name: p.grad for name, p in objective.named_parameters() if p.grad is not None}


def assert_same(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], tolerance: float = 1e-5) -> None:
    assert mine.keys() == theirs.keys()
    for name, gradient in theirs.items():
        torch.testing.assert_close(mine[name], gradient, rtol=tolerance, atol=tolerance, msg=name)


def kept(objective: CausalObjective) -> dict[tuple[int, ...], int]:
    """Tensors that the forward pass keeps for the backward pass, by shape; each storage once."""
    seen, shapes = set(), {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in seen:
            seen.add(tensor.untyped_storage().data_ptr())
            shapes[tuple(tensor.shape)] = shapes.get(tuple(tensor.shape), 0) + 1
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        total, _ = objective(BATCH)
    del total
    return shapes


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_tiles_have_the_gradients_of_the_whole(checkpointing, compiled):
    expected = gradients(prepared())
    assert_same(gradients(prepared(compiled, tiled_mlp=True, activation_checkpointing=checkpointing)), expected)


def test_tiles_have_them_under_autocast():
    def under_autocast(**keys):
        objective = prepared(**keys)
        objective.autocast = True
        return gradients(objective)

    assert_same(under_autocast(tiled_mlp=True), under_autocast(), tolerance=1e-2)


def test_inner_activations_are_not_kept_and_never_whole():
    inner = [shape for shape in kept(prepared()) if shape[-1] == INNER and WIDTH not in shape[:-1]]
    assert inner  # `[1, N, F]` of the plain model
    tiled = prepared(tiled_mlp=True)
    assert not [shape for shape in kept(tiled) if shape[-1] == INNER and len(shape) == 3]
    longest = []
    for layer in layers_of(tiled.model):
        layer.mlp.gate_proj.register_forward_hook(lambda _, inputs, __: longest.append(inputs[0].shape[1]))
    gradients(tiled)
    assert max(longest) == WIDTH
    assert len(longest) == 2 * 4 * -(-69 // WIDTH)  # once forward, once again


def test_a_measurement_without_gradients_is_in_tiles_too():
    tiled = prepared(tiled_mlp=True)
    longest = []
    layers_of(tiled.model)[0].mlp.down_proj.register_forward_hook(lambda _, inputs, __: longest.append(inputs[0].shape[1]))
    with torch.no_grad():
        mine, theirs = tiled(BATCH)[0], prepared()(BATCH)[0]
    torch.testing.assert_close(mine, theirs)
    assert longest == [16, 16, 16, 16, 5]


@pytest.mark.parametrize("model", ["tied", "frozen", "lora"])
def test_tiles_of_frozen_and_adapted_layers(model):
    engines = [torch_engine(table(), model), torch_engine(table(tiled_mlp=True), model)]
    made = [steps(engine, 2) for engine in engines]
    np.testing.assert_allclose(made[1], made[0], rtol=1e-5)
    compare(state_of(engines[1]), state_of(engines[0]))


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_tiles_on_two_ranks_equal_one_without(two_ranks, zero_stage):
    made, state = reference()
    for others, other in two_ranks.run(deepspeed, table(zero_stage=zero_stage, tiled_mlp=True), 2):
        np.testing.assert_allclose(others, made, rtol=1e-4)
        compare(other, state)


@pytest.mark.parametrize("zero_stage", [0, 3])
def test_all_ways_to_save_memory_go_together(two_ranks, zero_stage):
    made, state = reference(lr=1e-3)
    options = table(
        lr=1e-3, zero_stage=zero_stage, tiled_mlp=True, activation_checkpointing=True, offload_activations=True,
        sequence_parallel=2,
    )  # fmt: skip
    for others, other in two_ranks.run(deepspeed, options, 2):
        np.testing.assert_allclose(others, made, rtol=1e-4)
        compare(other, state)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("every", "count"), [(True, 4), (2, 2)])
def test_what_is_offloaded_is_what_enters_the_checkpointed_blocks(monkeypatch, every, count, compiled):
    expected = gradients(prepared(activation_checkpointing=every))
    moved, original = [], prepare.save_on_cpu

    class Watched(original):
        def __init__(self, pin_memory):
            super().__init__(pin_memory)
            pack = self.pack_hook

            def watched(tensor):
                moved.append(tuple(tensor.shape))
                return pack(tensor)

            self.pack_hook = watched

    monkeypatch.setattr(prepare, "save_on_cpu", Watched)
    found = gradients(prepared(compiled, activation_checkpointing=every, offload_activations=True))
    assert moved == [(1, 69, WIDTH)] * count
    assert_same(found, expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_offloaded_activations_leave_the_gpu(one_rank):
    peaks = []
    for offload in (False, True):
        objective = prepared(activation_checkpointing=True, offload_activations=offload).cuda()
        objective.device_type = "cuda"
        batch = of_sequences([list(range(60))] * 4000).to(torch.device("cuda"))
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        total, _ = objective(batch)
        peaks.append(torch.cuda.memory_allocated() - before)
        total.backward()
    assert peaks[1] < peaks[0] - 2 * 240_000 * WIDTH * 4


def test_deepspeed_engine_takes_them(one_rank):
    engine = deepspeed_engine(table(zero_stage=3, tiled_mlp=True, activation_checkpointing=True, offload_activations=True), 2)
    assert np.isfinite(steps(engine, 2)).all()


class Experts(torch.nn.Linear):
    """A mixture of experts that says how it routed."""

    def forward(self, hidden):
        return super().forward(hidden), hidden.mean(-1)


@pytest.mark.parametrize("tokens", [WIDTH, 3 * WIDTH])
def test_a_feed_forward_that_gives_more_than_hidden_states_is_refused(tokens):
    layer = torch.nn.Module()
    layer.mlp = Experts(WIDTH, WIDTH)
    tile_feed_forward([layer], WIDTH)
    with pytest.raises(UserError, match=r"tiled_mlp: the feed-forward layer Experts gives a tuple.*leave the key out"):
        layer.mlp(torch.zeros(1, tokens, WIDTH))
