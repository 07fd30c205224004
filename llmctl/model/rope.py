"""Longer context by rescaled rotary positions, written into the config in the form that `transformers` reads.

A dimension pair of a head turns by theta^(-2i / D) radians a token. Every method slows some of the pairs down, so that a longer
context is not met by angles that training has not shown:

- linear: all by the factor (position interpolation, arXiv 2306.15595)
- ntk: the base grows, so that the slowest pair is slowed by the factor and the fastest not at all (arXiv 2309.00071, section 3.1)
- yarn: pairs that turn often in the original context stay, slow ones are slowed by the factor, between them a ramp; and attention
  gets a temperature (the same, section 3)
- llama3: the same with a ramp over wavelengths and no temperature (Llama 3.1, arXiv 2407.21783)
- base: the base is set outright (arXiv 2309.16039)
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

from llmctl.errors import UserError

Method = Literal["yarn", "linear", "ntk", "llama3", "base", "none"]
RECORD = "rope_extension"
"""Key of config.json: how the context was extended. Of ntk and base the positions' own entry shows nothing but a larger base."""
KINDS = {"full": ("full_attention",), "sliding": ("sliding_attention",), "all": ("full_attention", "sliding_attention")}


@dataclass(frozen=True, slots=True)
class RopeScaling:
    method: Method
    factor: float
    original_length: int
    """Tokens of context that the positions were trained for."""
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    layers: Literal["full", "sliding", "all"] = "full"
    theta: float | None = None
    """The base of method "base"."""
    yarn_attention_factor: float | None = None
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0

    @property
    def attention_factor(self) -> float:
        """YaRN's temperature, multiplied into cosine and sine (arXiv 2309.00071, section 3.4)."""
        if self.method != "yarn" or self.factor <= 1:
            return 1.0
        return 0.1 * math.log(self.factor) + 1.0 if self.yarn_attention_factor is None else self.yarn_attention_factor

    @property
    def reach(self) -> float:
        """Tokens that the scaled positions are meant for; of base and none nothing is known."""
        return math.inf if self.method in ("base", "none") else self.factor * self.original_length

    def parameters(self, theta: float, rotated: int) -> dict[str, Any]:
        """The entry of `rope_parameters` for a base of `theta` and `rotated` dimensions of a head. The original length is always
        written: left out, `transformers` takes the new maximum for it without a word."""
        if self.method in ("ntk", "base"):
            base = theta * self.factor ** (rotated / (rotated - 2)) if self.method == "ntk" else self.theta
            return {"rope_type": "default", "rope_theta": base}
        if self.method == "none":
            return {"rope_type": "default", "rope_theta": theta}
        common = {"rope_type": self.method, "rope_theta": theta, "factor": self.factor}
        if self.method == "linear":
            return common
        common["original_max_position_embeddings"] = self.original_length
        if self.method == "llama3":
            return common | {"low_freq_factor": self.low_frequency_factor, "high_freq_factor": self.high_frequency_factor}
        return common | {
            "beta_fast": self.beta_fast,
            "beta_slow": self.beta_slow,
            "attention_factor": self.attention_factor,
        }


def extend_context(model: Any, scaling: RopeScaling, new_length: int) -> None:
    """Rescale the rotary positions of `model` in place for a context of `new_length` tokens.

    Raises:
        UserError: the positions are scaled already, the model has none, or cannot tell them apart by layer.
    """
    config = model.config
    scale_config(config, scaling, new_length)
    device = next(model.parameters()).device
    holders = [module for module in model.modules() if hasattr(module, "rotary_emb")]
    if not holders:
        raise UserError(f"{config.model_type}: it has no rotary positions that could be scaled")
    for holder in holders:
        holder.rotary_emb = type(holder.rotary_emb)(config=config).to(device)


def scale_config(config: Any, scaling: RopeScaling, new_length: int) -> None:
    """The same for a model's configuration alone.

    Raises:
        UserError: as `extend_context`.
    """
    if scaling.method != "none":
        current = getattr(config, "rope_parameters", None)
        if not current:
            raise UserError(f"{config.model_type}: it has no rotary positions that could be scaled")
        kinds = kinds_to_scale(config, scaling)
        entries = {"": current} if kinds is None else {kind: current[kind] for kind in kinds}
        for kind, entry in entries.items():
            refuse_twice(kind, entry, getattr(config, RECORD, None), scaling)
        scaled = {kind: scaled_entry(config, entry, scaling) for kind, entry in entries.items()}
        config.rope_parameters = scaled[""] if kinds is None else {k: scaled.get(k, v) for k, v in current.items()}
        setattr(config, RECORD, record_of(scaling))
    config.max_position_embeddings = max(new_length, config.max_position_embeddings)


def record_of(scaling: RopeScaling) -> dict[str, Any]:
    size = {"theta": scaling.theta} if scaling.method == "base" else {"factor": scaling.factor}
    return {"method": scaling.method, **size, "original_length": scaling.original_length, "layers": scaling.layers}


def scaled_entry(config: Any, entry: dict[str, Any], scaling: RopeScaling) -> dict[str, Any]:
    """An entry of `rope_parameters`, scaled; a share of each head that is rotated alone stays what it is."""
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    partial = entry.get("partial_rotary_factor")
    rotated = int(head_size * (1.0 if partial is None else partial))
    return scaling.parameters(entry["rope_theta"], rotated) | ({} if partial is None else {"partial_rotary_factor": partial})


def kinds_to_scale(config: Any, scaling: RopeScaling) -> list[str] | None:
    """Kinds of layers whose entry of a nested `rope_parameters` is scaled; None where one entry serves all layers.

    Raises:
        UserError: the model has no such layers, or one entry for layers of which only some are to be scaled.
    """
    nested = any(isinstance(entry, dict) for entry in config.rope_parameters.values())
    there = set(getattr(config, "layer_types", None) or ["full_attention"])
    wanted = [kind for kind in KINDS[scaling.layers] if kind in there]
    if not wanted:
        raise UserError(
            f"rope.layers = {scaling.layers!r}: {config.model_type} has no such layers, it has {', '.join(sorted(there))}"
        )
    if nested:
        return [kind for kind in wanted if isinstance(config.rope_parameters.get(kind), dict)]
    if there - set(wanted):
        raise UserError(
            f"rope.layers = {scaling.layers!r}: `transformers` keeps one set of positions for all layers of a "
            f'{config.model_type} model, which has {", ".join(sorted(there))}; set rope.layers = "all"'
        )
    return None


def refuse_twice(kind: str, entry: dict[str, Any], record: dict[str, Any] | None, scaling: RopeScaling) -> None:
    """Raises:
    UserError: the positions of that entry are scaled by a factor already.
    """
    before = None
    if entry.get("rope_type", "default") != "default":
        before = f"{entry['rope_type']} x {entry['factor']:g}" if entry.get("factor") else entry["rope_type"]
    elif record is not None and record["method"] == "ntk" and scaling.method != "base" and kind in ("", *KINDS[record["layers"]]):
        before = f"ntk x {record['factor']:g}"
    if before is not None:
        asked = f"base = {scaling.theta:g}" if scaling.method == "base" else f"{scaling.method} x {scaling.factor:g}"
        raise UserError(
            f"positions{' of ' + kind if kind else ''} are scaled already ({before}); {asked} on top of it is refused. "
            'Start from a checkpoint before its extension, or set rope.method = "none" to train on with the scaling it has.'
        )
