"""The joined product of an adapted linear layer is that of `peft`, in values and gradients."""

import copy
from typing import Any

import pytest
import torch
from engines import SHAPE

from llmctl.model.build import build_model
from llmctl.model.lora import AdapterSettings, add_adapter, trained_tensors
from llmctl.model.lora_linear import hold_frozen_in_bfloat16, join_products, quicken


def adapted(**settings: Any) -> Any:
    model = add_adapter(build_model(SHAPE, seed=3), AdapterSettings(rank=4, alpha=8.0, **settings), seed=1)
    torch.manual_seed(5)
    with torch.no_grad():
        for name, weight in trained_tensors(model).items():
            if "lora_B" in name:  # zero at the beginning, where nothing of A's gradient would be seen
                weight.normal_(std=0.1)
    return model


def gradients(model: Any, autocast: bool = False) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    tokens = torch.arange(24).view(2, 12) % SHAPE.vocab_size
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = model(input_ids=tokens).logits
    torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), tokens[:, 1:].flatten()).backward()
    return logits.detach().float(), {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("settings", [{}, {"rslora": True}, {"targets": ["q_proj", "down_proj"]}, {"init": "pissa"}])
def test_logits_and_gradients_are_those_of_peft(settings):
    model = adapted(**settings)
    joined = copy.deepcopy(model)
    join_products(joined)
    assert any("_Joined" in type(layer.forward).__name__ for layer in joined.modules())
    (logits, expected), (found, given) = gradients(model), gradients(joined)
    torch.testing.assert_close(found, logits, rtol=1e-5, atol=1e-5)
    assert given.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(given[name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("settings", [{"dora": True}, {"dropout": 0.5}])
def test_layers_that_are_not_plain_stay_as_they_are(settings):
    model = adapted(**settings)
    join_products(model)
    assert not any("_Joined" in type(layer.forward).__name__ for layer in model.modules())


@pytest.mark.parametrize("quantize", ["none", "nf4"])
def test_packed_weights_stay_as_they_are(quantize):
    settings = AdapterSettings(rank=4, alpha=8.0, quantize=quantize)
    model = adapted(quantize=quantize)
    layer: Any = model.get_base_model().model.layers[0].mlp.up_proj.get_base_layer()
    packed = torch.arange(64, dtype=torch.uint8)
    layer.weight = torch.nn.Parameter(packed.clone(), requires_grad=False)
    norm = model.get_base_model().model.norm.weight
    quicken(model, settings, zero_stage=0, bfloat16=True, compiled=True)
    assert layer.weight.dtype == torch.uint8
    assert torch.equal(layer.weight, packed)
    assert norm.dtype == (torch.bfloat16 if quantize == "none" else torch.float32)


def test_frozen_weights_in_bfloat16_are_as_near_as_autocast():
    model = adapted()
    held = copy.deepcopy(model)
    hold_frozen_in_bfloat16(held)
    assert {p.dtype for p in held.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in held.parameters() if not p.requires_grad} == {torch.bfloat16}
    (logits, expected), (found, given) = gradients(model, autocast=True), gradients(held, autocast=True)
    exact, right = gradients(adapted())
    # No further from the truth than twice what autocast is.
    assert (found - exact).norm() <= 2 * (logits - exact).norm()
    off, allowed = (sum(float((some[name] - right[name]).square().sum()) ** 0.5 for name in right) for some in (given, expected))
    assert off <= 2 * allowed
    assert off > 0
