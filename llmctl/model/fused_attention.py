"""Attention modules of `transformers` whose norm and rotation of queries and keys are one operator.

A module gets a subclass of its own class: parameters, their names, `isinstance` and copies stay what they were.
"""

import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from torch import Tensor, nn

from llmctl_kernels.qk_norm_rope import qk_norm_rope


@dataclass(frozen=True, slots=True)
class Architecture:
    normed: bool
    """Has `q_norm` and `k_norm`: over a whole projection or head by head, as the weights' sizes say."""
    cast_first: bool = False
    """The norm rounds to the type of its input before its weight."""
    windowed: bool = False
    """Tells the attention function of a sliding window: the layer's own or, if it has none, the model's."""


ARCHITECTURES = {
    "Olmo2Attention": Architecture(normed=True),
    "Olmo3Attention": Architecture(normed=True, windowed=True),
    "Qwen3Attention": Architecture(normed=True, cast_first=True, windowed=True),
    "LlamaAttention": Architecture(normed=False),
    "MistralAttention": Architecture(normed=False, windowed=True),
}
"""By class, as `transformers` 5.23 has them."""


def fuse_qk_norm_rope(model: Any) -> str | None:
    """Let the attention modules of `model` norm and rotate in one operator, in place. Weights of norms are read without a call of
    their module, for which ZeRO 3 would gather them: a model that is trained so is to stay as it is.

    Returns:
        Why the model stays as it is, if it does.
    """
    if any(isinstance(module, FusedAttention) for module in model.modules()):
        return None
    library = [module for module in model.modules() if type(module).__module__.startswith("transformers.models.")]
    found = [module for module in library if type(module).__name__ in ARCHITECTURES]
    if not found:
        known = ", ".join(name.removesuffix("Attention") for name in ARCHITECTURES)
        return f"attention of {model.config.model_type} is none of those whose norm and rotation are known ({known})"
    for module in found:
        module.__class__ = fused_class(type(module))
    return None


class FusedAttention(nn.Module):
    """The forward pass of attention in `transformers` but for norm and rotation, which `qk_norm_rope` computes."""

    architecture: Architecture
    eager: Any

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """hidden_states [B, N, I], position_embeddings two of [B or 1, N, R] -> [B, N, I], and weights if there are any."""
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        layer: Any = self
        query, key = _rotated(layer, hidden_states, position_embeddings)
        value = layer.v_proj(hidden_states).unflatten(-1, (-1, layer.head_dim)).transpose(1, 2)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, layer.layer_idx)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(layer.config._attn_implementation, self.eager)
        if self.architecture.windowed:
            window = layer.sliding_window if hasattr(layer, "sliding_window") else getattr(layer.config, "sliding_window", None)
            kwargs["sliding_window"] = window
        dropout = layer.attention_dropout if self.training else 0.0
        out, weights = attend(self, query, key, value, attention_mask, dropout=dropout, scaling=layer.scaling, **kwargs)
        return layer.o_proj(out.reshape(*hidden_states.shape[:-1], -1).contiguous()), weights


def _rotated(layer: Any, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Query [B, H, N, D] and key [B, KV, N, D]: seen as such, and laid out as [B, N, H, D]."""
    shape = hidden_states.shape[:-1]
    # One row of angles serves a batch whose positions are not told.
    cos, sin = (table.expand(*shape, -1).flatten(0, 1) for table in position_embeddings)
    normed = layer.architecture.normed
    query, key = qk_norm_rope(
        layer.q_proj(hidden_states).flatten(0, 1),
        layer.k_proj(hidden_states).flatten(0, 1),
        layer.q_norm.weight if normed else None,
        layer.k_norm.weight if normed else None,
        cos,
        sin,
        layer.q_norm.variance_epsilon if normed else 0.0,
        layer.head_dim,
        layer.architecture.cast_first,
    )
    return query.unflatten(0, shape).transpose(1, 2), key.unflatten(0, shape).transpose(1, 2)


@lru_cache
def fused_class(original: type) -> type:
    """The subclass of a class of attention in `transformers`."""
    members = {
        "architecture": ARCHITECTURES[original.__name__],
        "eager": staticmethod(sys.modules[original.__module__].__dict__["eager_attention_forward"]),
        "__module__": __name__,
    }
    return type(f"Fused{original.__name__}", (FusedAttention, original), members)
