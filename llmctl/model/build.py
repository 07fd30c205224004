"""New models: the Olmo 3 architecture of `transformers`, initialised as Olmo 3 is."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True, slots=True)
class ModelShape:
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    ffn_size: int
    window: int
    """Tokens that a sliding-window layer sees, the current one included."""
    vocab_size: int
    max_length: int
    rope_theta: float = 500_000.0
    tie_embeddings: bool = False
    norm_eps: float = 1e-6
    init_std: float = 0.02
    embedding_std: float | None = None
    """Of the input embedding; None: `init_std`."""


def layer_types(layers: int) -> list[str]:
    """Three sliding-window layers, then a full one; the last is always full (OLMo-core forces it)."""
    types = ["full_attention" if (index + 1) % 4 == 0 else "sliding_attention" for index in range(layers)]
    types[-1] = "full_attention"
    return types


def model_config(shape: ModelShape) -> Any:
    from transformers import Olmo3Config

    extra: dict[str, Any] = {"head_dim": shape.head_size}  # read by the attention, though no field of the config class
    return Olmo3Config(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.ffn_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.max_length,
        initializer_range=shape.init_std,
        tie_word_embeddings=shape.tie_embeddings,
        rms_norm_eps=shape.norm_eps,
        sliding_window=shape.window,
        layer_types=layer_types(shape.layers),
        # The nested form: a flat one would be taken for full-attention layers alone.
        rope_parameters={
            kind: {"rope_type": "default", "rope_theta": shape.rope_theta} for kind in ("full_attention", "sliding_attention")
        },
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        **extra,
    )


def build_model(shape: ModelShape, seed: int, device: str = "cpu") -> Any:
    """An `Olmo3ForCausalLM` in fp32; on the `meta` device without weights.

    Every matrix starts from a normal distribution of `init_std`, the embedding from one of `embedding_std` where that is
    given, cut at three standard deviations, with no scaling by depth (OLMo-core, `nn/transformer/init.py`). The same seed
    gives the same weights.
    """
    from transformers import Olmo3ForCausalLM

    with torch.device(device):
        model = Olmo3ForCausalLM(model_config(shape))
    if device != "meta":
        generator = torch.Generator(device).manual_seed(seed)
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, nn.Linear | nn.Embedding):
                    std = (shape.embedding_std if isinstance(module, nn.Embedding) else None) or shape.init_std
                    nn.init.trunc_normal_(module.weight, 0.0, std, -3 * std, 3 * std, generator=generator)
        if shape.tie_embeddings:
            model.tie_weights()
    return model


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def body_parameters(config: Any) -> int:
    """Weights of a model of this configuration without its input embedding; the output head counts, tied or not."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    embedding = model.get_input_embeddings().weight
    tied = model.get_output_embeddings().weight is embedding
    return count_parameters(model) - (0 if tied else embedding.numel())
