import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from llmctl.errors import UserError
from llmctl.model.build import ModelShape, build_model
from llmctl.model.load import load_model, save_model
from llmctl.model.rope import RECORD, RopeScaling, extend_context

SHAPE = ModelShape(
    hidden_size=64, layers=4, heads=4, kv_heads=2, head_size=16, ffn_size=64, window=32, vocab_size=512, max_length=64
)
THETA, ROTATED = 500_000.0, 16
METHODS = [
    RopeScaling("yarn", 8.0, 64),
    RopeScaling("yarn", 8.0, 64, beta_fast=16.0, beta_slow=0.5, yarn_attention_factor=1.1),
    RopeScaling("linear", 8.0, 64),
    RopeScaling("ntk", 8.0, 64),
    RopeScaling("llama3", 8.0, 64),
    RopeScaling("llama3", 8.0, 64, low_frequency_factor=0.5, high_frequency_factor=8.0),
    RopeScaling("base", 1.0, 64, theta=8e6),
]


def plain(theta: float = THETA) -> torch.Tensor:
    return torch.tensor([theta ** (-2 * index / ROTATED) for index in range(ROTATED // 2)])


def by_formula(scaling: RopeScaling, theta: float, rotated: int) -> list[float]:
    """Radians a token of each dimension pair, [rotated / 2], by the papers' formulas."""
    if scaling.method == "base":
        theta = scaling.theta or 0
    elif scaling.method == "ntk":
        theta *= scaling.factor ** (rotated / (rotated - 2))
    plain = [theta ** (-2 * index / rotated) for index in range(rotated // 2)]
    shares = {"linear": [1.0] * len(plain), "yarn": yarn_ramp(scaling, theta, rotated)}.get(scaling.method)
    if scaling.method == "llama3":
        low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
        turns = [scaling.original_length * frequency / (2 * math.pi) for frequency in plain]
        shares = [1 - min(1.0, max(0.0, (turn - low) / (high - low))) for turn in turns]
    if shares is None:
        return plain
    return [f * (1 - share) + f / scaling.factor * share for f, share in zip(plain, shares, strict=True)]


def yarn_ramp(scaling: RopeScaling, theta: float, rotated: int) -> list[float]:
    """arXiv 2309.00071, section 3.2, its bounds in dimensions."""

    def dimension(rotations: float) -> float:
        return rotated * math.log(scaling.original_length / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low, high = max(math.floor(dimension(scaling.beta_fast)), 0), min(math.ceil(dimension(scaling.beta_slow)), rotated - 1)
    return [min(1.0, max(0.0, (index - low) / (high - low))) for index in range(rotated // 2)]


@pytest.mark.parametrize("scaling", METHODS, ids=lambda scaling: scaling.method)
@pytest.mark.parametrize("layers", ["full", "sliding", "all"])
def test_each_method_is_its_formula_in_transformers_own_module(scaling, layers, tmp_path, tokenizer):
    """The frequencies that the model turns by, and those of the exported folder, by kind of layer."""
    model = build_model(SHAPE, 1)
    extend_context(model, replace(scaling, layers=layers), 512)
    expected = torch.tensor(by_formula(scaling, THETA, ROTATED))
    assert not torch.allclose(expected, plain())
    save_model(model, tokenizer, tmp_path / "model")
    for candidate in (model, load_model(str(tmp_path / "model"))):
        for kind in ("full", "sliding"):
            scaled = layers in (kind, "all")
            rotary = candidate.model.rotary_emb
            found = getattr(rotary, f"{kind}_attention_inv_freq")
            torch.testing.assert_close(found, expected if scaled else plain(), rtol=2e-6, atol=0)
            assert getattr(rotary, f"{kind}_attention_attention_scaling") == pytest.approx(
                scaling.attention_factor if scaled else 1
            )
        assert candidate.config.max_position_embeddings == 512
    written = json.loads((tmp_path / "model" / "config.json").read_text())
    assert set(written["rope_parameters"]) == {"full_attention", "sliding_attention"}
    assert written[RECORD]["method"] == scaling.method


def test_what_the_methods_do_to_the_fastest_and_the_slowest_pair():
    slowed = {s.method: plain() / torch.tensor(by_formula(s, THETA, ROTATED)) for s in METHODS[::-1]}
    torch.testing.assert_close(slowed["linear"], torch.full((ROTATED // 2,), 8.0))
    assert (slowed["ntk"][0], slowed["ntk"][-1]) == (pytest.approx(1), pytest.approx(8))
    assert (slowed["yarn"][0], slowed["yarn"][-1]) == (pytest.approx(1), pytest.approx(8))
    assert (slowed["llama3"][0], slowed["llama3"][-1]) == (pytest.approx(1), pytest.approx(8))
    assert slowed["base"][-1] == pytest.approx((8e6 / THETA) ** (14 / 16))


def test_olmo_3s_own_numbers():
    """Factor 8 of 8,192 on heads of 128: the published attention factor, and a ramp from pair 18 to pair 36 (the report's
    formula by hand: 128 ln(8192 / 2 pi r) / (2 ln 500000) is 18.1 for r = 32 and 34.98 for r = 1)."""
    olmo = RopeScaling("yarn", 8.0, 8192)
    assert olmo.attention_factor == 1.2079441541679836
    slowed = [THETA ** (-2 * i / 128) / f for i, f in enumerate(by_formula(olmo, THETA, 128))]
    assert slowed[18:19] + slowed[35:36] == pytest.approx([1, 8])
    assert 1.001 < slowed[19] < slowed[34] < 7.9


def test_flat_positions_of_other_architectures(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    sizes: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 128,
    }
    llama: Any = LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=2, max_position_embeddings=64))
    theta = llama.config.rope_parameters["rope_theta"]
    for scaling in METHODS:
        model = LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=2, max_position_embeddings=64))
        extend_context(model, scaling, 512)
        expected = torch.tensor(by_formula(scaling, theta, 16))
        torch.testing.assert_close(model.model.rotary_emb.inv_freq, expected, rtol=2e-6, atol=0)
    mixed: Any = Qwen2ForCausalLM(
        Qwen2Config(**sizes, num_hidden_layers=4, max_position_embeddings=64, use_sliding_window=True, max_window_layers=2)
    )
    with pytest.raises(UserError, match=r'one set of positions for all layers of a qwen2 model.*set rope.layers = "all"'):
        extend_context(mixed, METHODS[0], 512)
    with pytest.raises(UserError, match="has no such layers"):
        extend_context(llama, RopeScaling("yarn", 8.0, 64, layers="sliding"), 512)
    extend_context(mixed, RopeScaling("yarn", 8.0, 64, layers="all"), 512)
    assert mixed.config.rope_parameters["rope_type"] == "yarn"


def test_gemma_3_keeps_another_base_for_each_kind_of_layer():
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    model = Gemma3ForCausalLM(
        Gemma3TextConfig(
            hidden_size=64, intermediate_size=64, num_attention_heads=4, num_key_value_heads=2, head_dim=16, vocab_size=128,
            num_hidden_layers=6, max_position_embeddings=64, sliding_window=32,
        )
    )  # fmt: skip
    thetas = {kind: entry["rope_theta"] for kind, entry in model.config.rope_parameters.items()}
    assert thetas["full_attention"] != thetas["sliding_attention"]
    extend_context(model, METHODS[2], 512)
    rotary = model.model.rotary_emb
    expected = torch.tensor(by_formula(METHODS[2], thetas["full_attention"], 16))
    torch.testing.assert_close(rotary.full_attention_inv_freq, expected, rtol=2e-6, atol=0)
    torch.testing.assert_close(rotary.sliding_attention_inv_freq, plain(thetas["sliding_attention"]), rtol=2e-6, atol=0)


def test_positions_rotated_in_part_stay_so():
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config: Any = GPTNeoXConfig(
        hidden_size=64,
        num_attention_heads=2,
        num_hidden_layers=1,
        intermediate_size=64,
        vocab_size=128,
        max_position_embeddings=64,
    )
    model = GPTNeoXForCausalLM(config)
    theta, size = config.rope_parameters["rope_theta"], len(model.gpt_neox.rotary_emb.inv_freq)
    assert size == 4  # a quarter of 32
    for scaling in METHODS:
        model = GPTNeoXForCausalLM(GPTNeoXConfig(**config.to_diff_dict()))
        extend_context(model, scaling, 512)
        expected = torch.tensor(by_formula(scaling, theta, 8))
        torch.testing.assert_close(model.gpt_neox.rotary_emb.inv_freq, expected, rtol=2e-6, atol=0)


@pytest.mark.parametrize("first", [s for s in METHODS if s.method != "base"], ids=lambda s: s.method)
@pytest.mark.parametrize("second", METHODS[2:], ids=lambda s: s.method)
def test_a_factor_on_top_of_a_factor_is_refused_with_both_named(first, second, tmp_path, tokenizer):
    model = build_model(SHAPE, 1)
    extend_context(model, first, 512)
    save_model(model, tokenizer, tmp_path / "model")
    again = load_model(str(tmp_path / "model"))
    if (first.method, second.method) == ("ntk", "base"):  # the base is set outright, whatever it was
        extend_context(again, second, 4096)
        assert again.config.rope_parameters["full_attention"]["rope_theta"] == 8e6
        return
    asked = r"base = 8e\+06" if second.method == "base" else f"{second.method} x 8"
    with pytest.raises(UserError, match=rf"\({first.method} x 8\); {asked} on top"):
        extend_context(again, second, 4096)
    extend_context(again, RopeScaling("none", 1.0, 512), 4096)
    assert again.config.max_position_embeddings == 4096


def test_a_model_without_rotary_positions_is_refused():
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=64, n_positions=64))
    with pytest.raises(UserError, match="gpt2: it has no rotary positions"):
        extend_context(model, METHODS[0], 512)


def test_attention_factor_grows_with_the_factor():
    assert RopeScaling("yarn", 1.0, 64).attention_factor == 1.0
    assert RopeScaling("yarn", 16.0, 64).attention_factor == pytest.approx(0.1 * math.log(16) + 1)
    assert RopeScaling("linear", 16.0, 64).attention_factor == 1.0
