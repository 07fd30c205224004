"""Attention over branches equals each branch read alone, for models that mask in different ways."""

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma3TextConfig, LlamaConfig, MistralConfig

from llmctl.errors import UserError
from llmctl.evals.continuations import Fork, rows
from llmctl.model.branches import branching_attention

SHAPE: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 32, "max_position_embeddings": 64, "head_dim": 8,
    "bos_token_id": None, "eos_token_id": None, "pad_token_id": 0,
}  # fmt: skip
CONFIGS = [
    LlamaConfig(**SHAPE),
    MistralConfig(**SHAPE, sliding_window=6),
    Gemma3TextConfig(**SHAPE, sliding_window=6, layer_types=["sliding_attention", "full_attention"], query_pre_attn_scalar=8),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
def test_a_branch_sees_its_trunk_and_itself_alone(config):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    tokens = torch.randint(1, 64, (14,)).tolist()
    fork = Fork(tokens[:8], [tokens[8:11], tokens[11:]])
    together, branches = rows([fork, Fork(tokens, [tokens[:5]])], prefix=0)
    with torch.no_grad(), branching_attention(model):
        logits = model(input_ids=together, position_ids=branches.positions, use_cache=False, branches=branches).logits[0]
    with torch.no_grad():
        first, second = (model(torch.tensor([fork.trunk + choice])).logits[0] for choice in fork.branches)
    torch.testing.assert_close(logits[:10], first[:10])  # the last token of a branch is not read
    torch.testing.assert_close(logits[10:12], second[8:10])


def test_capped_attention_scores_are_refused():
    model = AutoModelForCausalLM.from_config(Gemma2Config(**SHAPE, sliding_window=6))
    tokens, branches = rows([Fork([1, 2], [[3]])], prefix=0)
    with branching_attention(model), pytest.raises(UserError, match="softcap"):
        model(input_ids=tokens, position_ids=branches.positions, use_cache=False, branches=branches)
