"""The number format of matrix products: bfloat16 where the hardware multiplies it, float32 elsewhere."""

from functools import lru_cache

import torch

CPU_FLAGS = ("amx_bf16", "avx512_bf16", "bf16")
"""Of x86 and ARM (`torch.cpu.get_capabilities`). A CPU without one of them emulates bfloat16: on an AVX2 machine a product of
2,048 x 256 x 1,024 takes 35 times as long in it as in float32."""


@lru_cache(maxsize=4)
def multiplies_bfloat16(device_type: str) -> bool:
    """Whether `device_type` ("cpu", "cuda") has instructions for products of bfloat16."""
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(flag, False) for flag in CPU_FLAGS)
