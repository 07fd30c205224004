"""A linear layer with an adapter in one function: fewer passes over activations than module by module.

`peft` computes x W^T, B (A x), a product with the scale and a sum, each an [N, D] tensor of its own, and under autocast casts x
for each.
"""

from typing import Any

import torch
from torch import Tensor, nn

from llmctl.model.lora import AdapterSettings
from llmctl_kernels.lora_linear import lora_linear


def join_products(model: nn.Module, fused: bool = False) -> None:
    """Let the adapted linear layers of `model` compute in one function, as far as they are plain: no DoRA, no dropout, no packed
    weights, one adapter. `fused`: by a Triton kernel, where it runs."""
    from peft.tuners.lora.layer import Linear

    for layer in model.modules():
        if type(layer) is Linear and _plain(layer):
            layer.forward = _Joined(layer, fused)


def _plain(layer: Any) -> bool:
    names = layer.active_adapters
    if len(names) != 1 or type(layer.get_base_layer()) is not nn.Linear or layer.get_base_layer().weight.requires_grad:
        return False
    (name,) = names
    identity = isinstance(layer.lora_dropout[name], nn.Identity)
    return identity and name not in layer.lora_variant and layer.lora_B[name].bias is None and not layer.fan_in_fan_out


class _Joined:
    """The forward pass of a layer of `peft`."""

    def __init__(self, layer: Any, fused: bool) -> None:
        self.fused = fused
        self.base = layer.get_base_layer()
        (name,) = layer.active_adapters
        self.a, self.b, self.scale = layer.lora_A[name], layer.lora_B[name], layer.scaling[name]

    def __call__(self, x: Tensor, *arguments: Any, **named: Any) -> Tensor:
        device = x.device.type
        kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.base.weight.dtype
        base = self.base
        return lora_linear(x, base.weight, base.bias, self.a.weight, self.b.weight, self.scale, kind, self.fused)


def hold_frozen_in_bfloat16(model: nn.Module) -> None:
    """Hold the frozen weights in the precision that they are multiplied in: half the memory, and no cast in each step. Of the
    embedding, too, so that what goes from layer to layer is in bf16, as at ZeRO stages 1 to 3. What is no floating-point number,
    such as packed weights, stays."""
    for parameter in model.parameters():
        if not parameter.requires_grad and parameter.is_floating_point():
            parameter.data = parameter.data.to(torch.bfloat16)


def holds_bfloat16(dora: bool, quantize: str, zero_stage: int, bfloat16: bool) -> bool:
    """Whether frozen weights are held in bf16 while an adapter is trained in it. Not those that DoRA takes the norms of, which
    are those of fp32, nor what a quantised model has left; at ZeRO stages 1 to 3 DeepSpeed casts the model itself."""
    return bfloat16 and zero_stage == 0 and not dora and quantize == "none"


def quicken(
    model: nn.Module, settings: AdapterSettings, zero_stage: int, bfloat16: bool, compiled: bool, fused: bool = False
) -> None:
    """Make a model with an adapter train faster, where nothing of what it computes changes but rounding. `fused`: by a Triton
    kernel, which stays in a compiled graph; products of torch are left to the compiler."""
    if holds_bfloat16(settings.dora, settings.quantize, zero_stage, bfloat16):
        hold_frozen_in_bfloat16(model)
    if zero_stage < 3 and (fused or not compiled):  # ZeRO 3 gathers a weight when its own module is called
        join_products(model, fused)
