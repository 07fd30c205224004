"""Blocks of Hugging Face models that compute their norms and the feed-forward layer's activation by fused functions.

Modules change their class, in memory, to one made from their own: parameters, names, hooks and what `transformers` does around a
block's `forward` (activation checkpointing) stay. A weight is read by its own module alone, which is where ZeRO stage 3 has
gathered it.
"""

from functools import lru_cache
from typing import Any

from torch import Tensor, nn

from llmctl.model.loss import base_model
from llmctl_kernels.rms_norm import add_rms_norm, rms_norm, rms_norm_add
from llmctl_kernels.swiglu import swiglu

KNOWN = "Olmo 2 and 3, Llama, Mistral, Qwen 2 and 3"
NORM_BEFORE = ("LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer")
"""Blocks that norm what a sublayer reads; they round before the norm's weight multiplies."""
NORM_AFTER = ("Olmo2DecoderLayer", "Olmo3DecoderLayer")
"""Blocks that norm what a sublayer gives; they round after the weight has multiplied."""
GATED = ("LlamaMLP", "MistralMLP", "Qwen2MLP", "Qwen3MLP", "Olmo2MLP", "Olmo3MLP")
"""By name: others have the same parts, and multiply by more (Falcon H1)."""
SILU = ("SiLU", "SiLUActivation")


def fuse_norms(model: nn.Module) -> str | None:
    """Let every RMSNorm of a causal language model, and the additions beside it, compute in one pass over memory each.

    Gives the reason if the model stays as it is.
    """
    base = base_model(model)
    layers = _layers(base)
    kinds = {type(layer).__name__ for layer in layers}
    if not kinds or not kinds <= {*NORM_BEFORE, *NORM_AFTER}:
        return f"fused norms know the blocks of {KNOWN}, and not {_listed(kinds)}"
    after = kinds <= set(NORM_AFTER)
    for layer in layers:
        _turn(layer, _norm_after if after else _norm_before)
    for module in base.modules():
        if type(module).__name__.endswith("RMSNorm"):
            _turn(module, _rounded_after if after else _rounded_before)
    return None


def fuse_swiglu(model: nn.Module) -> str | None:
    """Let the feed-forward layers of a causal language model compute silu(gate) * up in one pass over memory.

    To be called before their `forward` is wrapped, as by tiles. Gives the reason if the model stays as it is.
    """
    layers: list[Any] = [getattr(layer, "mlp", None) for layer in _layers(base_model(model))]
    others = {
        _described(layer) for layer in layers if type(layer).__name__ not in GATED or type(layer.act_fn).__name__ not in SILU
    }
    if not layers or others:
        return f"fused SwiGLU knows the feed-forward layers of {KNOWN} with silu, and not {_listed(others)}"
    for layer in layers:
        _turn(layer, _feed_forward)
    return None


def _layers(base: Any) -> list[Any]:
    return list(getattr(getattr(base, base.base_model_prefix, None), "layers", []))


def _described(layer: Any) -> str:
    activation = getattr(layer, "act_fn", None)
    return type(layer).__name__ + (f" with {type(activation).__name__}" if activation else "")


def _listed(kinds: set[str]) -> str:
    return " or ".join(sorted(kinds)) or "a model without blocks"


def _turn(module: Any, forward: Any) -> None:
    if getattr(type(module), "fused_forward", None) is None:
        module.__class__ = _fused(type(module), forward)


@lru_cache
def _fused(kind: type, forward: Any) -> type:
    """`kind` with another `forward`. One class for all modules alike, so that they share what is compiled; of the same name, by
    which libraries find the blocks that are not to be split."""
    members = {"forward": forward, "fused_forward": forward, "__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return type(kind.__name__, (kind,), members)


def _rounded_before(self: Any, hidden_states: Tensor, residual: Tensor | None = None) -> Any:
    """The norm; with `residual`, the sum with it and the norm of that."""
    if residual is None:
        return rms_norm(hidden_states, self.weight, self.variance_epsilon, cast_first=True)
    return add_rms_norm(hidden_states, residual, self.weight, self.variance_epsilon, cast_first=True)


def _rounded_after(self: Any, hidden_states: Tensor, residual: Tensor | None = None) -> Tensor:
    """The norm; with `residual`, its sum with that."""
    if residual is None:
        return rms_norm(hidden_states, self.weight, self.variance_epsilon)
    return rms_norm_add(hidden_states, residual, self.weight, self.variance_epsilon)


def _norm_before(self: Any, hidden_states: Tensor, attention_mask: Any = None, **named: Any) -> Tensor:
    normed = self.input_layernorm(hidden_states)
    attended, _ = self.self_attn(hidden_states=normed, attention_mask=attention_mask, **named)
    hidden_states, normed = self.post_attention_layernorm(attended, hidden_states)
    return hidden_states + self.mlp(normed)


def _norm_after(self: Any, hidden_states: Tensor, attention_mask: Any = None, **named: Any) -> Tensor:
    attended, _ = self.self_attn(hidden_states=hidden_states, attention_mask=attention_mask, **named)
    hidden_states = self.post_attention_layernorm(attended, hidden_states)
    return self.post_feedforward_layernorm(self.mlp(hidden_states), hidden_states)


def _feed_forward(self: Any, x: Tensor) -> Tensor:
    return self.down_proj(swiglu(self.gate_proj(x), self.up_proj(x)))
