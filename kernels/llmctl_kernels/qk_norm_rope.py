"""Norm and rotary position of queries and keys in one pass.

Module by module, each is a pass over memory of its own, or several: norm, its weight, two products, two halves, a sum. The norm
is that of Olmo 2 and 3 (arXiv 2501.00656), over a whole projection, or that of Qwen 3, head by head. Rotation: arXiv 2104.09864.
"""

from typing import Any

import torch
from torch import Tensor

from llmctl_kernels import runtime
from llmctl_kernels.runtime import with_dense_rows


def qk_norm_rope(
    query: Tensor, key: Tensor, query_weight: Tensor | None, key_weight: Tensor | None, cos: Tensor, sin: Tensor, eps: float,
    head_size: int, cast_first: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """query [N, H * D], key [N, KV * D] -> query [N, H, D], key [N, KV, D], normed and rotated.

    A weight of all of a projection's entries norms it as a whole, one of D entries each head, None not at all. `cos` and `sin`
    [N, R], R <= D, are used as they are, in fp32: neither need their halves be equal nor their squares sum up to 1 (YaRN), and
    they get no gradient. The first R numbers of a head rotate by halves, the rest passes. Rows may be slices of a wider tensor.
    `cast_first`: the norm rounds to the input's type before its weight, too, as in Llama and Qwen, and not after it alone.

    Raises:
        ValueError: sizes that do not fit.
    """
    _check(query, key, query_weight, key_weight, cos, sin, head_size)
    if runtime.missing(query.device.type) is not None:
        return plain_qk_norm_rope(query, key, query_weight, key_weight, cos, sin, eps, head_size, cast_first)
    return _forward(query, key, query_weight, key_weight, cos, sin, eps, head_size, cast_first)


def _check(
    query: Tensor, key: Tensor, query_weight: Tensor | None, key_weight: Tensor | None, cos: Tensor, sin: Tensor, head_size: int
) -> None:
    for name, rows, weight in (("query", query, query_weight), ("key", key, key_weight)):
        if rows.dim() != 2 or rows.shape[1] % head_size:
            raise ValueError(f"{name}: {list(rows.shape)} is not rows of heads of {head_size}")
        if weight is not None and weight.shape not in ((head_size,), (rows.shape[1],)):
            raise ValueError(f"weight of {name}: {list(weight.shape)} fits neither a head of {head_size} nor {rows.shape[1]}")
    rotated = cos.shape[-1]
    if cos.shape != (query.shape[0], rotated) or sin.shape != cos.shape or key.shape[0] != query.shape[0]:
        raise ValueError(f"cos {list(cos.shape)}, sin {list(sin.shape)} and key {list(key.shape)} for {query.shape[0]} queries")
    if rotated % 2 or rotated > head_size:
        raise ValueError(f"{rotated} rotated numbers of a head of {head_size}")


def plain_qk_norm_rope(
    query: Tensor, key: Tensor, query_weight: Tensor | None, key_weight: Tensor | None, cos: Tensor, sin: Tensor, eps: float,
    head_size: int, cast_first: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The same in plain torch, module by module; of float64 in float64."""

    def turned(rows: Tensor, weight: Tensor | None) -> Tensor:
        exact = torch.promote_types(rows.dtype, torch.float32)
        heads = rows.unflatten(-1, (-1, head_size))
        if weight is not None:
            heads = _normed(rows if weight.numel() == rows.shape[1] else heads, weight, eps, cast_first).view(heads.shape)
        front, rest = heads.to(exact).split((cos.shape[-1], head_size - cos.shape[-1]), dim=-1)
        first, second = front.chunk(2, dim=-1)
        partners = torch.cat([-second, first], dim=-1)
        front = front * cos.to(exact)[:, None] + partners * sin.to(exact)[:, None]
        return torch.cat([front, rest], dim=-1).to(rows.dtype)

    return turned(query, query_weight), turned(key, key_weight)


def _normed(x: Tensor, weight: Tensor, eps: float, cast_first: bool) -> Tensor:
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    normed = exact * torch.rsqrt(exact.square().mean(-1, keepdim=True) + eps)
    return (normed.to(x.dtype) * weight if cast_first else normed * weight).to(x.dtype)


@torch.library.custom_op("llmctl_kernels::qk_norm_rope", mutates_args=())
def _forward(
    query: Tensor, key: Tensor, query_weight: Tensor | None, key_weight: Tensor | None, cos: Tensor, sin: Tensor, eps: float,
    head_size: int, cast_first: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    from llmctl_kernels.qk_norm_rope_kernels import launch_forward

    query, key, cos, sin = with_dense_rows(query), with_dense_rows(key), with_dense_rows(cos), with_dense_rows(sin)
    return launch_forward(query, key, query_weight, key_weight, cos, sin, eps, head_size, cast_first)


@_forward.register_fake
def _(
    query: Tensor, key: Tensor, query_weight: Tensor | None, key_weight: Tensor | None, cos: Tensor, sin: Tensor, eps: float,
    head_size: int, cast_first: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return _heads(query, head_size), _heads(key, head_size)


def _heads(rows: Tensor, head_size: int) -> Tensor:
    return rows.new_empty(rows.shape[0], rows.shape[1] // head_size, head_size)


@torch.library.custom_op("llmctl_kernels::qk_norm_rope_backward", mutates_args=())
def _backward(
    query_gradient: Tensor, key_gradient: Tensor, query: Tensor, key: Tensor, query_weight: Tensor | None,
    key_weight: Tensor | None, cos: Tensor, sin: Tensor, eps: float, head_size: int, of_query_weight: bool, of_key_weight: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of query, key and both weights; those of weights that are not asked for are empty."""
    from llmctl_kernels.qk_norm_rope_kernels import launch_backward

    cos, sin = with_dense_rows(cos), with_dense_rows(sin)
    query_gradient, key_gradient, query, key = (with_dense_rows(t) for t in (query_gradient, key_gradient, query, key))
    of_query, of_key, of_first, of_second = launch_backward(
        query_gradient, key_gradient, query, key, query_weight, key_weight, cos, sin, eps, head_size,
        of_query_weight, of_key_weight,
    )  # fmt: skip
    return of_query, of_key, _given(of_first, query), _given(of_second, query)


def _given(gradient: Tensor | None, like: Tensor) -> Tensor:
    """An operator has no way of returning None."""
    return like.new_empty(0) if gradient is None else gradient


@_backward.register_fake
def _(
    query_gradient: Tensor, key_gradient: Tensor, query: Tensor, key: Tensor, query_weight: Tensor | None,
    key_weight: Tensor | None, cos: Tensor, sin: Tensor, eps: float, head_size: int, of_query_weight: bool, of_key_weight: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    first = torch.empty_like(query_weight) if query_weight is not None and of_query_weight else None
    second = torch.empty_like(key_weight) if key_weight is not None and of_key_weight else None
    return query.new_empty(query.shape), key.new_empty(key.shape), _given(first, query), _given(second, query)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """The inverse root mean squares are not kept: backward reads the rows in any case, and has their sum for nothing."""
    ctx.save_for_backward(*inputs[:6])
    ctx.eps, ctx.head_size = inputs[6:8]


def _formula(ctx: Any, query_gradient: Tensor, key_gradient: Tensor) -> Any:
    _, _, of_query_weight, of_key_weight, *_ = ctx.needs_input_grad
    of_query, of_key, of_first, of_second = _backward(
        query_gradient, key_gradient, *ctx.saved_tensors, ctx.eps, ctx.head_size, of_query_weight, of_key_weight
    )
    weights = (of_first if of_query_weight else None, of_second if of_key_weight else None)
    return of_query, of_key, *weights, None, None, None, None, None


_forward.register_autograd(_formula, setup_context=_save)
