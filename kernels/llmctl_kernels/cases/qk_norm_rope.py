"""Norm and rotary position of queries and keys: `query [N, H * D]`, `key [N, KV * D]` -> `[N, H, D]`, `[N, KV, D]`."""

from functools import partial

import torch
from torch import Tensor

from llmctl_kernels.cases.case import TAIL, Case, Large, Model, Outputs, Tensors, Work, last_rows, normal

EPS = 1e-6
THETA = 500_000.0


def call(name: str, head_size: int, **inputs: Tensor) -> Outputs:
    import llmctl_kernels.qk_norm_rope as module

    names = ("query", "key", "query_weight", "key_weight", "cos", "sin")
    return getattr(module, name)(*(inputs[name] for name in names), EPS, head_size)


def exact(
    head_size: int, query: Tensor, key: Tensor, query_weight: Tensor, key_weight: Tensor, cos: Tensor, sin: Tensor
) -> Outputs:
    def turned(rows: Tensor, weight: Tensor) -> Tensor:
        heads = rows.unflatten(-1, (-1, head_size))
        normed = rows if weight.numel() == rows.shape[1] else heads
        heads = (normed * torch.rsqrt(normed.square().mean(-1, keepdim=True) + EPS) * weight).view(heads.shape)
        half = cos.shape[1] // 2
        first, second, rest = heads[..., :half], heads[..., half : 2 * half], heads[..., 2 * half :]
        cosine, sine = cos[:, None], sin[:, None]
        ahead = first * cosine[..., :half] - second * sine[..., :half]
        behind = second * cosine[..., half:] + first * sine[..., half:]
        return torch.cat([ahead, behind, rest], -1)

    return turned(query, query_weight), turned(key, key_weight)


def work(rows: int, query_size: int, key_size: int, weights: int, rotated: int) -> Work:
    """Queries and keys are read and written; backward reads them and two gradients and writes two. Cosine and sine are fp32."""
    size, tables = rows * (query_size + key_size), 2 * 4 * rows * rotated
    return Work(2 * (2 * size + weights) + tables, 2 * (5 * size + 3 * weights) + 2 * tables, 7 * size, 21 * size)


def case(
    rows: int, heads: int, key_heads: int, head_size: int, rotated: int | None = None, by_head: bool = False, what: str = ""
) -> Case:
    """`by_head`: each head is normed by itself (Qwen 3), and not a projection as a whole (Olmo 3)."""
    turned = rotated or head_size
    weights = 2 * head_size if by_head else (heads + key_heads) * head_size

    def inputs(device: torch.device, dtype: torch.dtype, generator: torch.Generator) -> Tensors:
        sizes = {"query": heads * head_size, "key": key_heads * head_size}
        tensors = {name: normal((rows, size), device, dtype, generator) for name, size in sizes.items()}
        for name, size in sizes.items():
            length = head_size if by_head else size
            tensors[f"{name}_weight"] = normal((length,), device, dtype, generator).mul_(0.2).add_(1)
        frequencies = THETA ** -(torch.arange(0, turned, 2, device=device, dtype=torch.float32) / turned)
        angles = torch.arange(rows, device=device)[:, None] % 65_536 * frequencies
        angles = torch.cat([angles, angles], -1)
        return tensors | {"cos": angles.cos(), "sin": angles.sin()}

    return Case(
        kernel="qk_norm_rope",
        description=what or f"[{rows}, {heads}+{key_heads}, {head_size}]",
        inputs=inputs,
        wants_gradient=("query", "key", "query_weight", "key_weight"),
        fused=partial(call, "qk_norm_rope", head_size),
        plain=partial(call, "plain_qk_norm_rope", head_size),
        exact=partial(exact, head_size),
        work=work(rows, heads * head_size, key_heads * head_size, weights, turned),
        bound="memory",
        differentiable=(0, 1),
    )


def typical(small: bool) -> list[Case]:
    return [case(5, 2, 1, 16) if small else case(4096, 16, 16, 128)]


def edges(small: bool, device_type: str) -> list[Case]:
    rows = 3 if small else 501
    sizes = (32, 80) if small else (32, 64, 80, 128, 256)
    return [
        *(case(rows, 3, 1, size, what=f"head size {size}, grouped") for size in sizes),
        case(rows, 4, 2, 32, by_head=True, what="norm by head"),
        case(rows, 4, 2, 32, rotated=16, what="half of a head rotates"),
        case(0, 2, 1, 32, what="no rows"),
        case(1, 2, 1, 32, what="one row"),
    ]


def large() -> Large:
    rows, heads, head_size = 2**19 + 1024, 32, 128
    names = ("query", "key", "cos", "sin")
    memory = 12 * 2 * rows * heads * head_size
    whole, tail = case(rows, heads, heads, head_size), case(TAIL, heads, heads, head_size)
    return Large(whole, tail, last_rows(*names), ("query", "key"), memory, row_outputs=(0, 1))


def benchmarks(model: Model, tokens: int) -> list[Case]:
    return [case(tokens, model.heads, model.heads, model.head_size)]
