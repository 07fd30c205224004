"""Frozen weights in 4 bits (QLoRA, arXiv 2305.14314), by `bitsandbytes`."""

from importlib import import_module
from typing import Any

import torch
from torch import nn

from llmctl.errors import StageFailed, require_package

WHAT_FOR = 'lora.quantize = "nf4"'


def require_nf4() -> None:
    """Raises:
    UserError: `bitsandbytes` is not installed.
    StageFailed: there is no GPU.
    """
    if not torch.cuda.is_available():
        raise StageFailed(f'{WHAT_FOR} needs an NVIDIA GPU, and torch sees none here; use quantize = "none", or another machine')
    require_package("bitsandbytes", WHAT_FOR)


def quantize_linear_layers(model: Any, device: torch.device) -> None:
    """Put the linear layers of `model`, all but the output head, on `device` in NF4: the weights in blocks of 64 with a scale
    each, the scales in 8 bits (double quantisation), products in bf16. `peft` knows such layers again."""
    packed: Any = import_module("bitsandbytes").nn
    head = model.get_output_embeddings()
    for name, layer in list(model.named_modules()):
        if not isinstance(layer, nn.Linear) or layer is head:
            continue
        small = packed.Linear4bit(
            layer.in_features,
            layer.out_features,
            bias=layer.bias is not None,
            compute_dtype=torch.bfloat16,
            compress_statistics=True,
            quant_type="nf4",
            device="meta",
        )
        small.weight = packed.Params4bit(
            layer.weight.detach(), requires_grad=False, compress_statistics=True, quant_type="nf4", module=small
        )
        small.bias = layer.bias
        model.set_submodule(name, small.to(device))  # packed on its way to the GPU
    model.is_loaded_in_4bit = True
