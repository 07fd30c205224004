"""Models whose norm and rotation are one operator give the logits and gradients of the models they were."""

import copy
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from llmctl.model.fused_attention import fuse_qk_norm_rope
from llmctl.model.rope import RopeScaling, extend_context

SIZES: dict[str, Any] = {
    "vocab_size": 32, "hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "olmo2": {},
    "olmo3": {"sliding_window": 2, "layer_types": ["sliding_attention", "full_attention"]},
    "qwen3": {"head_dim": 16, "use_sliding_window": True, "sliding_window": 2, "max_window_layers": 1},
    "llama": {"attention_bias": True},
    "mistral": {"sliding_window": 2, "head_dim": 8},
}


def build(kind: str, device: torch.device, **settings: Any) -> Any:
    torch.manual_seed(3)
    config = AutoConfig.for_model(kind, **SIZES | MODELS.get(kind, {}) | settings)
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config).to(device)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("norm.weight"):  # ones, of which nothing would be seen
                weight.copy_(torch.linspace(0.5, 1.5, weight.numel()))
            elif name.endswith("bias"):
                weight.normal_()
    return model


def fused(model: Any) -> Any:
    other = copy.deepcopy(model)
    assert fuse_qk_norm_rope(other) is None
    return other


def tokens_for(model: Any) -> torch.Tensor:
    """[2, 3]: Triton's interpreter takes its time for each."""
    return torch.arange(6, device=model.device).view(2, 3)


def step_of(model: Any, **arguments: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor | None]]:
    """Logits, and gradients by name, of two rows of tokens."""
    tokens = tokens_for(model)
    logits = model(input_ids=tokens, **arguments).logits
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), tokens[:, 1:].flatten())
    loss.backward()
    return logits.detach(), {name: p.grad for name, p in model.named_parameters()}


def compare(model: Any, other: Any, atol: float = 1e-5, **arguments: Any) -> None:
    (logits, expected), (found, given) = step_of(model, **arguments), step_of(other, **arguments)
    torch.testing.assert_close(found, logits, rtol=1e-4, atol=atol)
    assert all(gradient is not None for gradient in expected.values())
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=atol)


@pytest.mark.parametrize("kind", MODELS)
def test_logits_and_gradients_are_those_of_the_model(kind, device):
    model = build(kind, device)
    compare(model, fused(model))


def test_positions_restart_with_each_document(device):
    model = build("olmo3", device)
    positions = torch.tensor([[0, 1, 0], [0, 0, 1]], device=device)
    other = fused(model)
    compare(model, other, position_ids=positions)
    plain = model(input_ids=tokens_for(model)).logits
    assert not torch.allclose(plain, other(input_ids=tokens_for(model), position_ids=positions).logits)


def test_context_extended_by_yarn(device):
    model = build("olmo3", device)
    extend_context(model, RopeScaling("yarn", 8.0, 8), 64)
    assert RopeScaling("yarn", 8.0, 8).attention_factor > 1.2
    compare(model, fused(model))


@pytest.mark.parametrize("kind", ["olmo3", "qwen3", "llama"])
def test_in_bfloat16_it_is_no_further_from_the_truth(kind, device):
    model = build(kind, device)
    tokens = tokens_for(model)
    right = model(input_ids=tokens).logits
    half = copy.deepcopy(model)
    for parameter in half.parameters():  # `.to` would round the angles' frequencies, too
        parameter.data = parameter.data.bfloat16()
    allowed, off = ((some(input_ids=tokens).logits.float() - right).norm() for some in (half, fused(half)))
    assert off < 1.5 * allowed


def test_a_cache_is_filled_as_ever(device):
    model = build("olmo3", device)
    given, right = (some.generate(tokens_for(model), max_new_tokens=2, do_sample=False) for some in (fused(model), model))
    assert torch.equal(given, right)


def test_under_activation_checkpointing(device):
    model = build("olmo3", device)
    other = fused(model).train()
    other.gradient_checkpointing_enable({"use_reentrant": False})
    compare(model, other)


@pytest.mark.parametrize("kind", ["olmo3", "llama"])
def test_layers_compile_in_one_graph(kind, device):
    model = build(kind, device, num_hidden_layers=1, layer_types=None)
    other = fused(model)
    for layer in other.model.layers:
        layer.compile(backend="aot_eager", fullgraph=True)
    compare(model, other)


def test_a_copy_is_fused_and_has_parameters_of_its_own(device):
    model = fused(build("olmo3", device))
    again = copy.deepcopy(model)
    before = model(input_ids=tokens_for(model)).logits
    with torch.no_grad():
        again.model.layers[0].self_attn.q_norm.weight.zero_()
    assert type(again.model.layers[0].self_attn) is type(model.model.layers[0].self_attn)
    assert torch.equal(model(input_ids=tokens_for(model)).logits, before)
    assert not torch.allclose(again(input_ids=tokens_for(model)).logits, before)


def test_names_of_parameters_stay_and_a_second_time_changes_nothing(device):
    model = build("qwen3", device)
    other = fused(model)
    assert list(other.state_dict()) == list(model.state_dict())
    kinds = [type(module) for module in other.modules()]
    assert fuse_qk_norm_rope(other) is None
    assert [type(module) for module in other.modules()] == kinds


def test_frozen_norms_get_no_gradient(device):
    model = build("olmo3", device)
    other = fused(model)
    norms = [layer.self_attn.q_norm.weight.requires_grad_(False) for layer in other.model.layers]
    (_, expected), (_, given) = step_of(model), step_of(other)
    assert all(norm.grad is None for norm in norms)
    trained = {name: gradient for name, gradient in expected.items() if "q_norm" not in name}
    torch.testing.assert_close({name: given[name] for name in trained}, trained, rtol=1e-4, atol=1e-5)


def test_attention_that_is_not_known_stays_as_it_is(device):
    model = build("gemma3_text", device, head_dim=8, query_pre_attn_scalar=8)
    kinds = [type(module) for module in model.modules()]
    reason = fuse_qk_norm_rope(model)
    assert "gemma3_text" in str(reason)
    assert [type(module) for module in model.modules()] == kinds
