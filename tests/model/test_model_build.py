"""New models, longer context, files, adapters."""

from typing import Any

import pytest
import torch

from llmctl.errors import UserError
from llmctl.model.build import ModelShape, build_model, count_parameters, layer_types
from llmctl.model.load import load_model, save_model
from llmctl.model.lora import AdapterSettings, add_adapter, merge, save_adapter
from llmctl.model.merge import largest_difference, logits_of

SHAPE = ModelShape(64, 4, 4, 4, 16, 128, 32, 512, 64)


def difference(one: Any, other: Any, tokens: torch.Tensor) -> float:
    return largest_difference(logits_of(one, [tokens]), logits_of(other, [tokens]))


def test_layers_are_three_windows_to_one_full_and_the_last_is_full():
    assert layer_types(8) == (["sliding_attention"] * 3 + ["full_attention"]) * 2
    assert layer_types(6)[-1] == "full_attention"


def test_weights_start_as_olmo3_and_depend_on_the_seed_alone():
    one, same, other = (build_model(SHAPE, seed) for seed in (1, 1, 2))
    for a, b, c in zip(one.parameters(), same.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        if a.ndim == 2:
            assert not torch.equal(a, c)
            assert a.abs().max() <= 3 * 0.02
            assert a.std().item() == pytest.approx(0.02 * 0.9866, rel=0.05)  # a normal cut at three deviations


def test_olmo3_7b_has_its_published_size():
    with torch.device("meta"):
        model = build_model(ModelShape(4096, 32, 32, 32, 128, 11008, 4096, 100352, 8192), 1, "meta")
    assert count_parameters(model) / 1e9 == pytest.approx(7.30, abs=0.01)


def test_saved_and_loaded_gives_the_same_logits(tmp_path, tokenizer):
    model = build_model(SHAPE, 1)
    save_model(model, tokenizer, tmp_path / "model")
    tokens = torch.arange(40)[None]
    assert difference(model, load_model(str(tmp_path / "model")), tokens) == 0.0


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path, tokenizer):
    model = build_model(ModelShape(32, 1, 2, 2, 16, 64, 16, 300, 64), 1)
    with pytest.raises(UserError, match="512 tokens and the model embeds 300"):
        save_model(model, tokenizer, tmp_path / "model")


def test_what_is_no_model_is_refused_in_one_line(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(UserError, match="no causal language model"):
        load_model(str(tmp_path))
    with pytest.raises(UserError, match="no model could be loaded"):
        load_model(str(tmp_path / "missing"))


def test_merged_adapter_is_the_adapter_and_peft_opens_it(tmp_path, tokenizer):
    from peft import PeftModel

    tokens = torch.arange(40)[None]
    save_model(build_model(SHAPE, 1), tokenizer, tmp_path / "base")
    adapted = add_adapter(load_model(str(tmp_path / "base")), AdapterSettings(rank=4, alpha=8.0), seed=1)
    assert not any("lm_head" in name for name, p in adapted.named_parameters() if p.requires_grad)
    assert difference(adapted, load_model(str(tmp_path / "base")), tokens) == 0.0  # B starts at zero
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    save_adapter(adapted, tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(load_model(str(tmp_path / "base")), str(tmp_path / "adapter"))
    assert difference(adapted, loaded, tokens) == 0.0
    merged = merge(adapted)
    assert difference(loaded, merged, tokens) < 1e-4
    assert difference(merged, load_model(str(tmp_path / "base")), tokens) > 1e-2
