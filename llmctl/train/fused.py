"""Put the kernels that a table asks for into a model, and say which."""

from collections.abc import Callable, Sequence
from typing import Any

from llmctl import events
from llmctl.model.attention import use_packed_attention
from llmctl.model.fused_attention import fuse_qk_norm_rope
from llmctl.model.fused_blocks import fuse_norms, fuse_swiglu
from llmctl.model.loss import base_model, use_linear_cross_entropy
from llmctl.recipe.schema import TrainTable
from llmctl_kernels.attention import Backend, described, missing
from llmctl_kernels.choice import usable
from llmctl_kernels.names import KernelName

INTO_BLOCKS: dict[KernelName, Callable[[Any], str | None]] = {
    "qk_norm_rope": fuse_qk_norm_rope,
    "rms_norm": fuse_norms,
    "swiglu": fuse_swiglu,
}
"""What changes a model's blocks in memory, or says why they stay as they are."""
READS_WEIGHTS: tuple[KernelName, ...] = ("qk_norm_rope", "lora_linear")
"""Read weights without a call of their module, which is where ZeRO stage 3 gathers them."""


def kernels_of(table: TrainTable, device_type: str) -> tuple[KernelName, ...]:
    """Our kernels that are to be used. What was asked for and cannot be is announced: torch's own operations serve instead."""
    names, why = usable(table.kernels, device_type)
    if why:
        events.warn(f"kernels: {why}")
    left_out = [name for name in names if table.zero_stage == 3 and name in READS_WEIGHTS]
    if left_out:
        events.warn(f"kernels: {', '.join(left_out)} cannot read weights that ZeRO stage 3 has shared out: left out")
    return tuple(name for name in names if name not in left_out)


def use_kernels(model: Any, table: TrainTable, names: Sequence[KernelName]) -> None:
    """Attention inside documents and the loss head, by our kernels or the best of others; into blocks what belongs there."""
    backend = use_packed_attention(model, attention_of(table, names, base_model(model).device.type))
    fused = "linear_cross_entropy" in names
    use_linear_cross_entropy(model, fused)
    done: list[str] = []
    for name, fuse in INTO_BLOCKS.items():
        if name not in names:
            continue
        if why := fuse(model):
            events.warn(f"kernels: {name}: {why}; left out")
        else:
            done.append(name)
    head = f"cross entropy in chunks, by {'our Triton kernel' if fused else 'torch'}"
    events.say("; ".join([f"attention by {described(backend)}", head, *([f"fused: {', '.join(done)}"] if done else [])]))


def attention_of(table: TrainTable, names: Sequence[KernelName], device_type: str) -> Backend | None:
    """What is to compute attention; None: the best there is."""
    if "packed_attention" in names:
        return "fused"
    if table.kernels == "torch":
        return "varlen_attn" if missing("varlen_attn", device_type) is None else "per_document"
    return None
