"""Clipping is for AdamW's groups: Muon's update does not depend on how long a gradient is."""

import pytest
import torch
from engines import ROWS, deepspeed_engine, state_of, steps, table, torch_engine
from torch import nn

from llmctl.train.clipping import clip_gradients
from llmctl.train.objective import trainable

MUON = table(optimizer="muon")
ENGINES = {"torch": lambda: torch_engine(MUON), "deepspeed": lambda: deepspeed_engine(MUON, ROWS)}
MATRIX = "model.layers.0.mlp.up_proj.weight"


def with_gradients(*gradients: list[float]) -> list[nn.Parameter]:
    parameters = [nn.Parameter(torch.zeros(len(gradient))) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = torch.tensor(gradient)
    return parameters


def gradient_of(parameter: nn.Parameter) -> list[float]:
    assert parameter.grad is not None
    return parameter.grad.tolist()


def test_without_muon_it_is_what_torch_makes():
    mine, theirs = (with_gradients([3.0, -1.0], [0.5], [20.0]) for _ in range(2))
    optimizer = torch.optim.AdamW([{"params": mine[:2]}, {"params": mine[2:]}])
    torch.testing.assert_close(clip_gradients(optimizer, 2.0), nn.utils.clip_grad_norm_(theirs, 2.0))
    assert [gradient_of(p) for p in mine] == [pytest.approx(gradient_of(p)) for p in theirs]


def test_a_matrix_is_neither_clipped_nor_counted_but_reported():
    matrix, first, second = with_gradients([8.0, 0.0], [0.0, 4.0], [1.0, 0.0])
    groups = [{"params": [matrix], "muon": True}, {"params": [first], "muon": False}, {"params": [second]}]
    norm = clip_gradients(torch.optim.SGD(groups), 17**0.5 / 2)
    assert float(norm) == pytest.approx(9.0)
    assert gradient_of(matrix) == [8.0, 0.0]
    assert gradient_of(first) + gradient_of(second) == pytest.approx([0.0, 2.0, 0.5, 0.0], rel=1e-5)


@pytest.mark.parametrize("max_norm", [0.0, 6.0])
def test_gradients_below_it_stay_and_zero_clips_nothing(max_norm):
    (parameter,) = with_gradients([3.0, 4.0])
    before = gradient_of(parameter)
    clip_gradients(torch.optim.SGD([parameter]), max_norm)
    assert gradient_of(parameter) == before


def test_a_matrix_alone_and_a_parameter_without_gradient():
    (matrix,), unused = with_gradients([3.0, 4.0]), nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([{"params": [matrix], "muon": True}, {"params": [unused]}])
    assert float(clip_gradients(optimizer, 1.0)) == 5.0
    assert gradient_of(matrix) == [3.0, 4.0]


@pytest.mark.parametrize("kind", ENGINES)
def test_a_huge_gradient_of_a_matrix_leaves_the_others_update_as_it_is(one_rank, kind):
    engines = [ENGINES[kind]() for _ in range(2)]
    start = state_of(engines[0])
    huge = trainable(engines[1].objective)[MATRIX]
    huge.grad = torch.randn(huge.shape, generator=torch.Generator().manual_seed(1)) * 1e6
    length = float(huge.grad.norm())
    norms = [steps(engine, ROWS, 0, 1)[0, 1] for engine in engines]
    assert norms[0] > MUON.max_grad_norm  # the others' gradients were clipped
    assert norms[1] == pytest.approx(length, rel=1e-3)
    plain, pulled = map(state_of, engines)
    for name, state in plain.items():
        if name != MATRIX:
            assert all(torch.equal(pulled[name][key], value) for key, value in state.items()), name
    moved = [float((state[MATRIX]["weight"] - start[MATRIX]["weight"]).norm()) for state in (plain, pulled)]
    assert moved[1] == pytest.approx(moved[0], rel=0.3)


def test_the_others_are_clipped_by_their_own_norm(one_rank):
    """AdamW's first moments are a tenth of the clipped gradients."""
    for make in ENGINES.values():
        engine = make()
        steps(engine, ROWS, 0, 1)
        moments = [state["exp_avg"].flatten() for _, state in engine.named_state() if "exp_avg" in state]
        assert float(torch.cat(moments).norm()) == pytest.approx((1 - MUON.betas[0]) * MUON.max_grad_norm, rel=1e-3)
