"""Longer context by rescaled rotary positions, written into the config in the form that `transformers` reads."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from llmctl.errors import UserError


@dataclass(frozen=True, slots=True)
class RopeScaling:
    method: Literal["yarn", "linear", "none"]
    factor: float
    original_length: int
    """Tokens of context that the positions were trained for."""
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    layers: Literal["full", "all"] = "full"

    @property
    def attention_factor(self) -> float:
        """YaRN's temperature, multiplied into cosine and sine (arXiv 2309.00071, section 3.4)."""
        return 0.1 * math.log(self.factor) + 1.0 if self.method == "yarn" and self.factor > 1 else 1.0

    def parameters(self, theta: float) -> dict[str, Any]:
        """The entry of `rope_parameters`. The original length is always written: left out, `transformers` takes the
        new maximum for it without a word."""
        if self.method == "none":
            return {"rope_type": "default", "rope_theta": theta}
        if self.method == "linear":
            return {"rope_type": "linear", "rope_theta": theta, "factor": self.factor}
        return {
            "rope_type": "yarn",
            "rope_theta": theta,
            "factor": self.factor,
            "original_max_position_embeddings": self.original_length,
            "beta_fast": self.beta_fast,
            "beta_slow": self.beta_slow,
            "attention_factor": self.attention_factor,
        }


def extend_context(model: Any, scaling: RopeScaling, new_length: int) -> None:
    """Rescale the rotary positions of `model` in place for a context of `new_length` tokens.

    Raises:
        UserError: the positions are scaled already, or they are of a kind that cannot be told apart by layer.
    """
    config = model.config
    current = config.rope_parameters
    nested = "full_attention" in current
    entries = current if nested else {"": current}
    for kind, entry in entries.items():
        if entry.get("rope_type", "default") != "default" and scaling.method != "none":
            raise UserError(
                f"positions{' of ' + kind if kind else ''} are scaled already ({entry['rope_type']} x {entry.get('factor')}); "
                f"{scaling.method} x {scaling.factor:g} on top of it is refused. Start from a checkpoint before its extension, "
                'or set rope.method = "none" to train on with the scaling it has.'
            )
    if scaling.method != "none":
        if nested:
            kinds = ["full_attention"] if scaling.layers == "full" else list(current)
            scaled = {k: scaling.parameters(v["rope_theta"]) if k in kinds else dict(v) for k, v in current.items()}
        else:
            scaled = scaling.parameters(current["rope_theta"])
        config.rope_parameters = scaled
    config.max_position_embeddings = max(new_length, config.max_position_embeddings)
    body = getattr(model, model.base_model_prefix)
    device = next(model.parameters()).device
    body.rotary_emb = type(body.rotary_emb)(config=config).to(device)


def yarn_inverse_frequencies(scaling: RopeScaling, head_size: int, theta: float) -> list[float]:
    """YaRN's inverse frequencies by the formula, [head_size / 2]: dimensions that turn more than `beta_fast` times in
    the original context stay, those that turn less than `beta_slow` times are divided by the factor, between them a ramp."""

    def dimension(rotations: float) -> float:
        return head_size * math.log(scaling.original_length / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(dimension(scaling.beta_fast)), 0)
    high = min(math.ceil(dimension(scaling.beta_slow)), head_size - 1)
    frequencies = []
    for index in range(head_size // 2):
        plain = theta ** (-2 * index / head_size)
        ramp = min(1.0, max(0.0, (index - low) / ((high - low) or 1e-3)))
        frequencies.append(plain / scaling.factor * ramp + plain * (1 - ramp))
    return frequencies
