"""Which of `transformers`' models llama.cpp computes, under what name, and how their tensors are called there.

Facts of llama.cpp: its graphs (`src/models/*.cpp`) and `conversion/*.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from llmctl.errors import UserError

PRE_NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
POST_NORMS = {"post_attention_layernorm": "post_attention_norm", "post_feedforward_layernorm": "post_ffw_norm"}
HEAD_NORMS = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
MATRICES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
OUTSIDE_LAYERS = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


@dataclass(frozen=True, slots=True)
class Architecture:
    name: str
    """llama.cpp's."""
    layer: dict[str, str]
    """Modules of a layer as `transformers` and as llama.cpp call them."""
    pairs_interleaved: bool = False
    """Whether rotary positions turn neighbours, where `transformers` turns the first half of a head against the second."""
    own_head: bool = False
    """Whether the output matrix must be in the file, also where it is the embedding once more."""
    square_heads: bool = False
    """Whether heads must share out the hidden size exactly."""
    rope_factors: bool = False
    """Whether the graph divides the frequencies by a tensor of factors (`rope_freqs`)."""


OLMO = Architecture("olmo2", MATRICES | POST_NORMS | HEAD_NORMS, own_head=True, square_heads=True)
ARCHITECTURES = {
    "llama": Architecture("llama", MATRICES | PRE_NORMS, pairs_interleaved=True, rope_factors=True),
    "olmo2": OLMO,
    "olmo3": OLMO,
    "qwen2": Architecture("qwen2", MATRICES | PRE_NORMS),
    "qwen3": Architecture("qwen3", MATRICES | PRE_NORMS | HEAD_NORMS),
}


def architecture_of(config: Any) -> Architecture:
    """Raises:
    UserError: llama.cpp has no such model, or computes it in another way than the configuration asks for.
    """
    known = ARCHITECTURES.get(config.model_type)
    if known is None:
        raise UserError(
            f"a {config.model_type} model cannot be exported to GGUF; llmctl writes {', '.join(sorted(ARCHITECTURES))} "
            "(--format safetensors takes any)"
        )
    for wrong in refusals(config, known):
        raise UserError(f"this {config.model_type} model cannot be exported to GGUF: {wrong}")
    return known


def refusals(config: Any, architecture: Architecture) -> Iterator[str]:
    """What the configuration asks for and llama.cpp's graph does not do."""
    if getattr(config, "quantization_config", None) is not None:
        yield "its weights are packed (quantised) already; export the model that they were made from"
    if config.hidden_act != "silu":
        yield f"its activation is {config.hidden_act}, and llama.cpp's {architecture.name} has silu"
    head = head_size(config)
    if architecture.square_heads and head * config.num_attention_heads != config.hidden_size:
        heads = f"{config.num_attention_heads} heads of {head} do not make up the hidden size, {config.hidden_size}"
        yield f"its {heads}, and llama.cpp's {architecture.name} knows no other head size"
    if config.model_type in ("olmo2", "olmo3"):
        yield from wrong_layers(config)
    elif "sliding_attention" in (getattr(config, "layer_types", None) or []):
        yield f"some of its layers have a sliding window, which llama.cpp's {architecture.name} has not"


def wrong_layers(config: Any) -> Iterator[str]:
    """llama.cpp's olmo2 takes every fourth layer as full once there is a window; builds differ in whether they read another
    pattern, and one that does not read it computes another model without a word."""
    types = list(getattr(config, "layer_types", None) or [])
    if "sliding_attention" not in types:
        return
    expected = ["full_attention" if index % 4 == 3 else "sliding_attention" for index in range(len(types))]
    if types != expected:
        place = next(index for index, (has, wants) in enumerate(zip(types, expected, strict=True)) if has != wants)
        yield (
            f"layer {place} is {types[place]}, and llama.cpp's olmo2 takes every fourth layer as full and the others as sliding "
            f"({len(types)} layers; a number of layers that 4 divides gives that pattern)"
        )


def head_size(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def window_of(config: Any) -> int | None:
    """Tokens that sliding layers see, the current one included (both libraries count so); None: there are no such layers."""
    return config.sliding_window if "sliding_attention" in (getattr(config, "layer_types", None) or []) else None


def tensor_name(architecture: Architecture, name: str) -> str:
    """llama.cpp's name of a tensor.

    Raises:
        UserError: its graph has no such tensor.
    """
    module, _, kind = name.rpartition(".")
    if module in OUTSIDE_LAYERS and kind == "weight":
        return f"{OUTSIDE_LAYERS[module]}.weight"
    parts = module.split(".")
    if parts[:2] == ["model", "layers"] and (inside := architecture.layer.get(".".join(parts[3:]))) and kind in BIASES[inside]:
        return f"blk.{parts[2]}.{inside}.{kind}"
    raise UserError(f"tensor {name}: llama.cpp's {architecture.name} has none of that kind")


NORMS = [*PRE_NORMS.values(), *POST_NORMS.values(), *HEAD_NORMS.values()]
BIASES = dict.fromkeys(NORMS, ("weight",)) | dict.fromkeys(MATRICES.values(), ("weight", "bias"))
"""Kinds of tensors of a module that llama.cpp reads; which of them a model has, its graph checks itself."""


def interleaved(tensor: Any, heads: int) -> Any:
    """Rows of a query or key matrix [heads x D, hidden] (or a bias) in the order that puts the two halves of each head's rotary
    pairs side by side."""
    halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape)
