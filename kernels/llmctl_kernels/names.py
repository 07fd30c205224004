"""The kernels by name."""

from typing import Literal, get_args

KernelName = Literal["linear_cross_entropy", "packed_attention", "rms_norm", "qk_norm_rope", "swiglu", "lora_linear"]
KERNELS: tuple[KernelName, ...] = get_args(KernelName)
ON_BY_DEFAULT: tuple[KernelName, ...] = ("linear_cross_entropy",)
"""What "auto" takes on a GPU: the one kernel with a published gain under `torch.compile`. Attention has library kernels that are
faster than ours, and takes the best that is installed."""
