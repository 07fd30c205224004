"""Tiny models with fused blocks compute what they did before."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from llmctl.model.fused_blocks import fuse_norms, fuse_swiglu
from llmctl.train.prepare import checkpoint_activations, layers_of

FAMILIES = ["olmo2", "olmo3", "llama", "mistral", "qwen2", "qwen3"]
SIZES = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": None,
}


def tiny(family: str, device: torch.device, **changes: Any) -> Any:
    """A model whose norms' weights are no ones."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SIZES | changes))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(torch.randn_like(parameter) / 4)
    return model.to(device)


def fused(model: nn.Module) -> Any:
    model = copy.deepcopy(model)
    assert fuse_norms(model) is None
    assert fuse_swiglu(model) is None
    return model


def logits_and_gradients(model: Any, device: torch.device) -> dict[str, Tensor]:
    tokens = torch.arange(22, device=device).reshape(2, 11) * 7 % 40
    logits = model(tokens).logits
    (logits * torch.linspace(-1, 1, 40, device=device)).sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {"logits": logits.detach(), **gradients}


def close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_gradients_and_state_are_the_models(family: str, device: torch.device) -> None:
    plain = tiny(family, device)
    model = fused(plain)
    state = model.state_dict()
    assert list(state) == list(plain.state_dict())
    assert all(torch.equal(state[name], value) for name, value in plain.state_dict().items())
    close(logits_and_gradients(model, device), logits_and_gradients(plain, device))


@pytest.mark.parametrize("family", ["olmo3", "qwen3"])
def test_every_norm_and_activation_is_computed_by_the_fused_functions(
    family: str, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmctl.model import fused_blocks

    calls: dict[str, int] = dict.fromkeys(("rms_norm", "add_rms_norm", "rms_norm_add", "swiglu"), 0)

    def counted(name: str) -> Callable[..., Any]:
        original = getattr(fused_blocks, name)

        def count(*arguments: Any, **named: Any) -> Any:
            calls[name] += 1
            return original(*arguments, **named)

        return count

    for name in calls:
        monkeypatch.setattr(fused_blocks, name, counted(name))
    logits_and_gradients(fused(tiny(family, device)), device)
    after, before = (4, 0) if family == "olmo3" else (0, 2)
    assert calls == {"rms_norm": 5 if after else 7, "add_rms_norm": before, "rms_norm_add": after, "swiglu": 2}


@pytest.mark.parametrize("family", ["olmo3", "llama"])
def test_activation_checkpoints_give_the_same_gradients(family: str, device: torch.device) -> None:
    plain = tiny(family, device).train()
    model = fused(plain)
    checkpoint_activations(model)
    runs = []
    for layer in layers_of(model):
        layer.mlp.register_forward_pre_hook(lambda *_: runs.append(1))
    close(logits_and_gradients(model, device), logits_and_gradients(plain, device))
    assert len(runs) == 4


@pytest.mark.parametrize("family", ["olmo3", "llama"])
def test_a_compiled_copy_of_a_fused_model(family: str, device: torch.device) -> None:
    plain = tiny(family, device, num_hidden_layers=1)
    model = copy.deepcopy(fused(plain))
    for layer in layers_of(model):
        layer.compile(fullgraph=True, backend="aot_eager")
    close(logits_and_gradients(model, device), logits_and_gradients(plain, device))


@pytest.mark.parametrize("family", ["olmo3", "llama"])
def test_a_frozen_model_with_an_adapter(family: str, device: torch.device) -> None:
    from peft import LoraConfig, get_peft_model

    plain = tiny(family, device)
    torch.manual_seed(1)
    adapted = get_peft_model(plain, LoraConfig(r=2, target_modules=["gate_proj", "q_proj"], init_lora_weights=False))
    close(logits_and_gradients(fused(adapted), device), logits_and_gradients(adapted, device))


@pytest.mark.parametrize("family", ["olmo3", "llama"])
def test_generation_with_a_cache(family: str, device: torch.device) -> None:
    plain = tiny(family, device).eval()
    tokens = torch.arange(1, 8, device=device)[None]
    found, expected = (m.generate(tokens, max_new_tokens=6, do_sample=False) for m in (fused(plain), plain))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("family", ["olmo3", "llama"])
def test_under_autocast_types_and_values_are_the_models(family: str, device: torch.device) -> None:
    plain = tiny(family, device)
    tokens = torch.arange(11, device=device)[None]
    with torch.autocast(device.type, torch.bfloat16):
        found, expected = (m(tokens, output_hidden_states=True).hidden_states for m in (fused(plain), plain))
    assert len(found) == 3
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        assert (one - other).norm() < 0.02 * other.norm()


def test_fused_twice_is_fused_once(device: torch.device) -> None:
    model = fused(tiny("olmo3", device))
    kinds = [type(module) for module in model.modules()]
    assert fuse_norms(model) is None
    assert fuse_swiglu(model) is None
    assert [type(module) for module in model.modules()] == kinds
    assert type(layers_of(model)[0]) is type(layers_of(model)[1])


@pytest.mark.parametrize("function", [fuse_norms, fuse_swiglu])
@pytest.mark.parametrize(("family", "named"), [("gemma3_text", "Gemma3"), ("gpt_neox", "GPTNeoX")])
def test_another_architecture_stays_as_it_is_for_a_reason(
    family: str, named: str, function: Callable[[nn.Module], str | None], device: torch.device
) -> None:
    model = tiny(family, device)
    kinds = [type(module) for module in model.modules()]
    assert f"and not {named}" in (function(model) or "")
    assert [type(module) for module in model.modules()] == kinds


def test_another_activation_stays_as_it_is_for_a_reason(device: torch.device) -> None:
    model = tiny("llama", device, hidden_act="gelu")
    assert fuse_swiglu(model).endswith("and not LlamaMLP with GELUActivation")
    assert type(layers_of(model)[0].mlp).__bases__ == (nn.Module,)
