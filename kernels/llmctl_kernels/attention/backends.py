"""What computes packed attention, which of it is here, and which is best."""

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from llmctl_kernels import runtime

Backend = Literal[
    "per_document", "varlen_attn", "flash_attention_2", "flash_attention_3", "flash_attention_4", "fused"
]  # fmt: skip
BACKENDS: tuple[Backend, ...] = get_args(Backend)
LIBRARIES = {
    "varlen_attn": ("torch.nn.attention.varlen", "varlen_attn"),
    "flash_attention_2": ("flash_attn", "flash_attn_varlen_func"),
    "flash_attention_3": ("flash_attn_interface", "flash_attn_varlen_func"),
    "flash_attention_4": ("flash_attn.cute", "flash_attn_varlen_func"),
}
PACKAGES = {"flash_attention_2": "flash-attn", "flash_attention_3": "flash-attn-3", "flash_attention_4": "flash-attn-4"}
NAMES = {"per_document": "torch, document by document", "varlen_attn": "torch's varlen_attn", "fused": "our Triton kernel"}
MOST_HEAD_SIZE = 256
"""Of the library kernels, whose head sizes are multiples of 8, too."""
_LOADED: dict[Backend, Callable[..., Any]] = {}


@lru_cache
def missing(backend: Backend, device_type: str) -> str | None:
    """Why a backend cannot run on such a device, if so. A package that does not load says why."""
    if backend == "per_document":
        return None
    if backend == "fused":
        return runtime.missing(device_type)
    if device_type != "cuda":
        return f"needs a GPU, not a {device_type.upper()}"
    least, most = {"flash_attention_3": (9, 9), "flash_attention_4": (9, 99)}.get(backend, (8, 99))
    major, minor = torch.cuda.get_device_capability()
    if torch.version.hip is None and not least <= major <= most:
        return f"is not for GPUs of compute capability {major}.{minor}"
    try:
        _load(backend)
        _try(backend)
    # A package for another torch does not load; one may lack a backward pass, or windows, for this GPU, and say so when asked.
    except (ImportError, OSError, AssertionError, RuntimeError, TypeError) as error:
        return f"does not run here: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return None


def _try(backend: Backend) -> None:
    """Two small documents through a window, forward and backward. Raises what the library raises."""
    with torch.enable_grad():
        query, key, value = (torch.ones(32, 2, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
        boundaries = torch.tensor([0, 20, 32, 32], device="cuda", dtype=torch.int32)
        out = varlen(query, key, value, (boundaries, boundaries), (32, 32), 8, 0.125, backend)
        out.float().sum().backward()
        torch.cuda.synchronize()


@lru_cache
def best(device_type: str, head_size: int) -> Backend:
    """The backend for half precision on such a device.

    On Hopper flash-attention 3 by its published rates (arXiv 2407.08608), on Blackwell 4, which gains there and is the last
    choice elsewhere; 2 is what torch's own `varlen_attn` has inside. Our kernel is for head sizes that the libraries do not take.
    """
    if device_type != "cuda":
        return "per_document"
    libraries: list[Backend] = ["flash_attention_3", "flash_attention_2", "varlen_attn"]
    libraries.insert(0 if torch.cuda.get_device_capability()[0] >= 10 else 3, "flash_attention_4")
    order: list[Backend] = [*(libraries if fits(head_size) else []), "fused", "per_document"]
    return next(backend for backend in order if missing(backend, device_type) is None)


def fits(head_size: int) -> bool:
    """Whether the library kernels take such heads."""
    return head_size <= MOST_HEAD_SIZE and head_size % 8 == 0


def described(backend: Backend) -> str:
    """A backend for a log, with the version of the package."""
    if backend in PACKAGES:
        try:
            return f"{PACKAGES[backend]} {version(PACKAGES[backend])}"
        except PackageNotFoundError:
            return PACKAGES[backend]
    return NAMES[backend]


def _load(backend: Backend) -> Callable[..., Any]:
    """The function of a library, kept: compiled graphs find it without an import.

    Raises:
        ImportError, OSError: it is not installed, or does not load.
    """
    module, name = LIBRARIES[backend]
    _LOADED[backend] = getattr(import_module(module), name)
    return _LOADED[backend]


@torch.compiler.disable()  # its kernels are compiled by CuTe when they are first called, which cannot be traced
def _flash_attention_4(*arguments: Any, **named: Any) -> Any:
    return _LOADED["flash_attention_4"](*arguments, **named)


def varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    boundaries: tuple[Tensor, Tensor],
    longest: tuple[int, int],
    window: int | None,
    scale: float,
    backend: Backend,
) -> Tensor:
    """`[N, H, D]` and keys and values `[M, KV, D]` -> `[N, H, D]` by one kernel over all documents. `boundaries` (cu_seqlens) and
    `longest` document of queries and of keys; where a document has fewer queries than keys, they are its last."""
    if backend == "fused":
        from llmctl_kernels.attention.fused import fused_attention

        return fused_attention(query, key, value, *boundaries, *longest, window, scale)
    before = -1 if window is None else window - 1  # the kernels do not count the current token
    call = _LOADED.get(backend) or _load(backend)
    if backend == "varlen_attn":
        out = call(
            query, key, value, *boundaries, *longest,
            scale=scale, window_size=(before, 0), enable_gqa=query.shape[1] != key.shape[1],
        )  # fmt: skip
    else:
        unbounded = None if backend == "flash_attention_4" else -1
        named = {}
        if backend == "flash_attention_4":
            call = _flash_attention_4
        else:  # which otherwise sum the gradients of queries in the order in which blocks end
            named["deterministic"] = torch.are_deterministic_algorithms_enabled()
        out = call(
            query, key, value,
            cu_seqlens_q=boundaries[0], cu_seqlens_k=boundaries[1], max_seqlen_q=longest[0], max_seqlen_k=longest[1],
            softmax_scale=scale, causal=True, window_size=(before, 0) if window else (unbounded, unbounded), **named,
        )  # fmt: skip
    return out[0] if isinstance(out, tuple) else out  # flash-attention 3 and 4 give the log-partitions, too, in some versions
