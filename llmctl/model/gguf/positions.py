"""Rotary positions in llama.cpp's terms."""

import math
from dataclasses import dataclass, field
from typing import Any

from llmctl.errors import UserError
from llmctl.model.gguf.architecture import Architecture, head_size, window_of


@dataclass(frozen=True, slots=True)
class Positions:
    theta: float
    kind: str | None = None
    """Of the scaling: "linear" or "yarn"; None: none, or one by `factors`."""
    factor: float = 1.0
    original_length: int | None = None
    attention_factor: float = 1.0
    """What llama.cpp multiplies into its own temperature of YaRN, 0.1 ln(factor) + 1 (`ggml_rope_yarn`)."""
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    factors: list[float] = field(default_factory=list)
    """What each rotary pair's frequency is divided by, slowest last; empty: nothing."""

    def write(self, writer: Any) -> None:
        from gguf import RopeScalingType

        writer.add_rope_freq_base(self.theta)
        if self.kind is None:
            return
        writer.add_rope_scaling_type(RopeScalingType(self.kind))
        writer.add_rope_scaling_factor(self.factor)
        if self.kind == "yarn":
            writer.add_rope_scaling_orig_ctx_len(self.original_length)
            writer.add_rope_scaling_attn_factors(self.attention_factor)
            writer.add_rope_scaling_yarn_beta_fast(self.beta_fast)
            writer.add_rope_scaling_yarn_beta_slow(self.beta_slow)


def positions_of(config: Any, architecture: Architecture) -> Positions:
    """Raises:
    UserError: llama.cpp's graph cannot turn positions that way.
    """
    entries = config.rope_parameters
    if not any(isinstance(entry, dict) for entry in entries.values()):
        if window_of(config) and entries.get("rope_type", "default") != "default":
            raise refused(
                f"one scaling ({entries['rope_type']}) for all layers, where llama.cpp leaves sliding ones as they were"
            )
        return from_entry(entries, architecture, config)
    full, sliding = entries["full_attention"], entries.get("sliding_attention")
    if sliding is not None and window_of(config):
        if sliding.get("rope_type", "default") != "default":
            raise refused(
                f"{sliding['rope_type']} on sliding layers, where llama.cpp's {architecture.name} scales full ones alone"
            )
        if sliding["rope_theta"] != full["rope_theta"]:
            bases = f"{full['rope_theta']:g} on full layers and {sliding['rope_theta']:g} on sliding ones"
            raise refused(f"rope_theta = {bases}, and llama.cpp's {architecture.name} has one for both")
    return from_entry(full, architecture, config)


def from_entry(entry: dict[str, Any], architecture: Architecture, config: Any) -> Positions:
    """Methods ntk and base of llmctl are a larger base and nothing else, so an entry says all there is to write."""
    kind, theta = entry.get("rope_type", "default"), float(entry["rope_theta"])
    if entry.get("partial_rotary_factor") not in (None, 1, 1.0):
        raise refused("only a part of each head is rotated")
    if kind == "default":
        return Positions(theta)
    if kind == "linear":
        return Positions(theta, "linear", entry["factor"])
    if kind == "yarn":
        return yarn(entry, theta)
    if kind == "llama3" and architecture.rope_factors:
        return Positions(theta, factors=llama3_factors(entry, theta, head_size(config)))
    raise refused(f"{kind}, which llmctl cannot write for llama.cpp's {architecture.name}")


def yarn(entry: dict[str, Any], theta: float) -> Positions:
    for key in ("mscale", "mscale_all_dim"):
        if entry.get(key):
            raise refused(f"yarn with {key}")
    if entry.get("truncate") is False:
        raise refused("yarn with truncate = false, and llama.cpp rounds the ramp's ends to whole pairs")
    own = 0.1 * math.log(entry["factor"]) + 1.0 if entry["factor"] > 1 else 1.0
    wanted = entry.get("attention_factor")
    return Positions(
        theta,
        "yarn",
        entry["factor"],
        entry["original_max_position_embeddings"],
        1.0 if wanted is None else wanted / own,
        entry.get("beta_fast") or 32.0,
        entry.get("beta_slow") or 1.0,
    )


def llama3_factors(entry: dict[str, Any], theta: float, rotated: int) -> list[float]:
    """Of each pair, slower pairs later: 1 for wavelengths below original length / high_freq_factor, the factor above original
    length / low_freq_factor, between them the ramp of Llama 3.1 (arXiv 2407.21783; `_compute_llama3_parameters`)."""
    low, high = entry["low_freq_factor"], entry["high_freq_factor"]
    factors = []
    for pair in range(rotated // 2):
        turns = entry["original_max_position_embeddings"] / (2 * math.pi * theta ** (2 * pair / rotated))
        share = min(1.0, max(0.0, (turns - low) / (high - low)))
        factors.append(1 / ((1 - share) / entry["factor"] + share))
    return factors


def refused(what: str) -> UserError:
    return UserError(f"this model's positions cannot be exported to GGUF: {what}")
