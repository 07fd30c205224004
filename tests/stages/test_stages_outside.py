"""Stages that start from a model which llmctl did not make."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import in_process, run_llmctl

SHAPE: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
         "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 256, "vocab_size": 512}  # fmt: skip
CHAT = """
name = "outside"
[corpus.sources.talk]
path = "{talk}"
kind = "chat"
[sft]
from = "{model}"
tokens = 2048
seq_len = 128
batch_tokens = 256
lr = 3e-3
mix = {{ talk = 1.0 }}
[lora]
tokens = 1024
seq_len = 128
batch_tokens = 256
rank = 2
mix = {{ talk = 1.0 }}
[eval]
generations = 4
"""


@pytest.fixture(scope="module")
def outside(tmp_path_factory, tokenizer):
    """A folder as other people leave it: another architecture, a tokenizer without a chat template."""
    import copy

    from transformers import Qwen3Config, Qwen3ForCausalLM

    folder = tmp_path_factory.mktemp("outside") / "model"
    torch.manual_seed(0)
    Qwen3ForCausalLM(Qwen3Config(**SHAPE)).save_pretrained(folder)
    plain = copy.deepcopy(tokenizer)
    plain.chat_template = None
    plain.save_pretrained(folder)
    return folder


@pytest.fixture
def recipe(tmp_path, outside, chain_recipe) -> Path:
    file = tmp_path / "outside.toml"
    file.write_text(CHAT.format(talk=chain_recipe.parent / "talk.jsonl", model=outside))
    return file


def test_sft_and_lora_of_another_architecture_with_conversations_alone(recipe, outside, tmp_path):
    result = run_llmctl("run", recipe, "--runs", tmp_path / "runs")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "its tokenizer has no chat template and is given one" in result.stdout
    (model,) = (tmp_path / "runs").glob("outside/lora-*/model")
    from transformers import AutoModelForCausalLM

    assert AutoModelForCausalLM.from_pretrained(model).config.model_type == "qwen3"
    losses = [json.loads(line)["loss"] for line in (model.parent.parent.glob("sft-*").__next__() / "metrics.jsonl").open()]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["BertForMaskedLM"], "model_type": "bert"}, "holds a BertForMaskedLM"),
        (None, "has no config.json"),
    ],
)
def test_what_is_no_causal_model_is_refused_before_any_work(recipe, outside, tmp_path, change, message):
    other = tmp_path / "other"
    other.mkdir()
    if change:
        config = json.loads((outside / "config.json").read_text())
        (other / "config.json").write_text(json.dumps(config | change))
    recipe.write_text(recipe.read_text().replace(str(outside), str(other)))
    result = in_process("sft", recipe, "--runs", tmp_path / "runs")
    assert result.returncode == 2
    assert f"{recipe}:7: from = '{other}' {message}" in result.stderr
    assert not (tmp_path / "runs").exists()


def test_a_shape_other_than_the_checkpoints_is_refused(recipe, tmp_path):
    recipe.write_text(recipe.read_text() + "[model]\nhidden_size = 64\nlayers = 2\nheads = 2\nffn_size = 64\nwindow = 8\n")
    result = in_process("sft", recipe, "--runs", tmp_path / "runs")
    assert result.returncode == 2
    assert "hidden_size = 64 (there: 32)" in result.stderr


def test_a_tokenizer_trained_beside_a_checkpoint_with_fewer_tokens_is_refused(recipe, text_folder, tmp_path):
    recipe.write_text(recipe.read_text() + f'[tokenizer]\nvocab_size = 1024\n[corpus.sources.code]\npath = "{text_folder}"\n')
    result = in_process("sft", recipe, "--runs", tmp_path / "runs")
    assert result.returncode == 2
    assert "embeds 512 tokens, and [tokenizer] trains 1,024" in result.stderr


def test_a_template_of_its_own_or_one_that_the_vocabulary_can_close(tokenizer):
    import copy

    from llmctl.tokens.masks import encode_talk
    from llmctl.tokens.named_templates import CHATML, TULU
    from llmctl.tokens.template import end_of_turn_ids, ensure_template

    talk = [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b."}]
    own = copy.deepcopy(tokenizer)
    assert not ensure_template(own)
    own.chat_template = None
    assert ensure_template(own)
    assert own.chat_template == CHATML
    own.chat_template = TULU  # what a vocabulary without ChatML's markers gets
    encoded = encode_talk(own, talk)
    ids, mask = encoded.ids, encoded.mask
    assert end_of_turn_ids(own) == [own.eos_token_id]
    closing = [token for token, kind in zip(ids, mask, strict=True) if kind == 1]
    assert closing == [own.eos_token_id]
    assert own.decode([token for token, kind in zip(ids, mask, strict=True) if kind == 2]) == "b."
