"""Attention of packed documents: against float64, across documents, and compiled for a GPU that need not be there."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from llmctl_kernels.attention.fused import fused_attention, packed_attention
from llmctl_kernels.attention.reference import reference_attention

CASES: dict[str, dict[str, Any]] = {
    "several blocks": {"lengths": [37]},
    "grouped heads, a head size that is no power of two": {"lengths": [20, 5], "heads": 4, "key_heads": 2, "size": 20},
    "queries are the last tokens": {"queries": [3, 17], "lengths": [35, 18]},
    "empty documents, and of one token": {"lengths": [0, 1, 0, 18, 1, 0, 0]},
    "a document without queries": {"queries": [0, 5, 0], "lengths": [17, 5, 3]},
    "rows after the last document": {"lengths": [3, 17], "rest": 5},
    "one key": {"lengths": [19, 4], "window": 1},
    "a window inside a block": {"lengths": [36, 2], "window": 5},
    "a window of a block": {"lengths": [36], "window": 16},
    "a window of a block and one": {"lengths": [50], "window": 17},
    "a window with full blocks": {"queries": [9, 50], "lengths": [40, 50], "window": 33},
    "a window as long as the document": {"lengths": [20], "window": 20},
    "a window that would not fit in 32 bits": {"lengths": [20], "window": 2**40},
}  # fmt: skip


class Packed:
    """Queries, keys, values and the output's gradient of random numbers, and the arguments that go with them."""

    def __init__(
        self, device: torch.device, lengths: list[int], queries: list[int] | None = None, heads: int = 2, key_heads: int = 1,
        size: int = 16, window: int | None = None, rest: int = 0, dtype: torch.dtype = torch.float32, seed: int = 0,
    ) -> None:  # fmt: skip
        queries = lengths if queries is None else queries
        generator = torch.Generator().manual_seed(seed)
        shapes = [(sum(queries) + rest, heads, size), *[(sum(lengths) + rest, key_heads, size)] * 2]
        self.tensors = [torch.randn(shape, generator=generator).to(device, dtype) for shape in [*shapes, shapes[0]]]
        self.cu_seqlens_q, self.cu_seqlens_k = (
            torch.tensor([0, *numbers], device=device).cumsum(0).int() for numbers in (queries, lengths)
        )
        self.arguments = (self.cu_seqlens_q, self.cu_seqlens_k, 64, 64, window, size**-0.5)

    def results(self, attention: Any = fused_attention, dtype: torch.dtype | None = None) -> list[Tensor]:
        """The output, and the gradients of queries, keys and values."""
        *inputs, gradient = (tensor.detach().to(dtype or tensor.dtype) for tensor in self.tensors)
        inputs = [tensor.requires_grad_() for tensor in inputs]
        output = attention(*inputs, *self.arguments)
        return [output.detach(), *torch.autograd.grad(output, inputs, gradient)]

    def truth(self) -> list[Tensor]:
        return self.results(reference_attention, torch.float64)


def assert_near(results: list[Tensor], truth: list[Tensor], tolerance: float) -> None:
    for name, result, right in zip(("output", "query", "key", "value"), results, truth, strict=True):
        torch.testing.assert_close(
            result.double(), right, rtol=tolerance, atol=tolerance, msg=lambda text, name=name: name + text
        )


def largest_error(result: Tensor, right: Tensor) -> float:
    return (result.double() - right).abs().max().item()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_output_and_gradients(device, case):
    packed = Packed(device, **case)
    assert_near(packed.results(), packed.truth(), 1e-5)


@settings(max_examples=10, deadline=None)
@given(
    documents=st.lists(
        st.integers(0, 18).flatmap(lambda keys: st.tuples(st.integers(0, keys), st.just(keys))), min_size=1, max_size=3
    ),
    window=st.none() | st.integers(1, 24),
    heads=st.sampled_from([(1, 1), (3, 1), (2, 2)]),
    size=st.sampled_from([16, 17]),
    rest=st.integers(0, 2),
)
def test_any_documents(documents, window, heads, size, rest):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    queries, lengths = [count for count, _ in documents], [count for _, count in documents]
    packed = Packed(device, lengths, queries, *heads, size=size, window=window, rest=rest)
    assert_near(packed.results(), packed.truth(), 1e-5)


@pytest.mark.parametrize(("dtype", "window"), [(torch.bfloat16, None), (torch.bfloat16, 9), (torch.float16, None)])
def test_half_precision_errs_no_more_than_twice_as_much_as_torch(device, dtype, window):
    packed = Packed(device, [20, 7], heads=2, size=24, window=window, dtype=dtype)
    plain = packed.results(reference_attention)
    for result, other, right in zip(packed.results(), plain, packed.truth(), strict=True):
        assert result.dtype == dtype
        assert largest_error(result, right) <= 2 * largest_error(other, right)


def test_large_scores_do_not_overflow(device):
    packed = Packed(device, [33, 4])
    packed.tensors[0] *= 50
    results = packed.results()
    assert all(result.isfinite().all() for result in results)
    assert_near(results, packed.truth(), 2e-3)  # gradients are of the size of 50, in float32


@pytest.mark.parametrize("window", [None, 6])
def test_documents_do_not_see_each_other(device, window):
    packed = Packed(device, [19, 20, 5], heads=1, window=window)
    before = packed.results()
    for tensor in packed.tensors:
        tensor[:19] = float("nan")
        tensor[39:] *= 100
    for result, changed in zip(before, packed.results(), strict=True):
        assert torch.equal(result[19:39], changed[19:39])
        assert result[19:39].any()


def test_two_runs_give_the_same_bits(device):
    packed = Packed(device, [20, 3], heads=2)
    assert all(torch.equal(first, second) for first, second in zip(packed.results(), packed.results(), strict=True))


def test_padded_and_longer_bounds_change_no_bit(device):
    packed, padded = Packed(device, [20, 3]), Packed(device, [20, 3, 0, 0, 0])
    padded.arguments = (*padded.arguments[:2], 4096, 4096, *padded.arguments[4:])
    assert all(torch.equal(first, second) for first, second in zip(packed.results(), padded.results(), strict=True))


def test_keys_that_no_query_sees_have_zero_gradients(device):
    _, _, key_gradient, value_gradient = Packed(device, [40, 6], [2, 0], window=4, rest=2).results()
    for gradient in (key_gradient, value_gradient):
        assert gradient[35:40].any(dim=-1).all()
        assert not gradient[:35].any()
        assert not gradient[40:].any()


def test_no_rows_at_all(device):
    for lengths in ([], [0, 0]):
        assert [len(result) for result in Packed(device, lengths).results()] == [0, 0, 0, 0]
    assert Packed(device, [5], [0]).results()[2].eq(0).all()


def test_inputs_and_gradients_may_be_views_and_are_not_written(device):
    packed = Packed(device, [18, 3], heads=2, key_heads=2)
    right = packed.results()
    views = [torch.stack([tensor] * 2, dim=-2)[..., 0, :] for tensor in packed.tensors[:2]]
    views += [tensor.mT.contiguous().mT for tensor in packed.tensors[2:]]
    assert not any(view.is_contiguous() for view in views)
    packed.tensors, copies = views, [view.clone() for view in views]
    assert all(torch.equal(result, other) for result, other in zip(packed.results(), right, strict=True))
    assert all(torch.equal(view, copy) for view, copy in zip(views, copies, strict=True))


def test_operator(device):
    packed = Packed(device, [4], heads=1)
    inputs = [tensor.requires_grad_() for tensor in packed.tensors[:3]]
    torch.library.opcheck(packed_attention, (*inputs, packed.cu_seqlens_q, packed.cu_seqlens_k, 3, 0.25))


def test_compiles_as_one_graph(device):
    packed = Packed(device, [6, 4], window=5)
    compiled = torch.compile(fused_attention, fullgraph=True, backend="aot_eager")
    assert all(torch.equal(one, other) for one, other in zip(packed.results(compiled), packed.results(), strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key_heads": 3}, "shapes"),
        ({"window": 0}, "window"),
    ],
)
def test_what_does_not_fit_is_refused(device, change, message):
    with pytest.raises(ValueError, match=message):
        Packed(device, [4], **change).results()


def test_indices_and_dtypes_that_do_not_fit_are_refused(device):
    packed = Packed(device, [4])
    query, key, value, _ = packed.tensors
    with pytest.raises(ValueError, match="int32"):
        fused_attention(query, key, value, packed.cu_seqlens_q.long(), *packed.arguments[1:])
    with pytest.raises(ValueError, match="dtypes"):
        fused_attention(query, key, value.half(), *packed.arguments)


def test_kernels_compile_for_a_gpu_and_fit_in_its_shared_memory():
    """Needs no GPU, but a process without the interpreter."""
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    command = [sys.executable, "-c", "import test_kernels_attention as test; test.compile_for(90, 227 * 1024, 32)"]
    subprocess.run(command, env=environment, check=True, timeout=300)


def compile_for(capability: int, shared_memory: int, head_size: int) -> None:
    """Compiles the kernels in bfloat16 for a GPU of Nvidia's with so many bytes of shared memory per program."""
    import triton
    from triton.backends.compiler import GPUTarget

    from llmctl_kernels.attention import backward, blocks, forward
    from llmctl_kernels.runtime import power_of_two

    kernels: list[tuple[Any, Any]] = [
        (forward.forward_kernel, blocks.forward_blocks),
        (backward.query_gradient_kernel, blocks.query_gradient_blocks),
        (backward.key_gradient_kernel, blocks.key_gradient_blocks),
    ]
    for kernel, choose in kernels:
        chosen = choose(head_size, torch.bfloat16, shared_memory)
        constants = {
            "GROUP": 2, "D": head_size, "BLOCK_D": power_of_two(head_size, 16), "ROWS": chosen.rows, "KEYS": chosen.keys,
            "WINDOWED": True, "INTERPRETED": False,
        }  # fmt: skip
        types = {name: type_of_argument(name) for name in kernel.arg_names} | dict.fromkeys(constants, "constexpr")
        aligned = {(number,): [["tt.divisibility", 16]] for number, kind in enumerate(types.values()) if kind.startswith("*")}
        source = triton.compiler.ASTSource(fn=kernel, signature=types, constexprs=constants, attrs=aligned)
        options = {"num_warps": chosen.warps, "num_stages": chosen.stages}
        compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
        assert compiled.metadata.shared <= shared_memory


def type_of_argument(name: str) -> str:
    if name.startswith("cu_seqlens"):
        return "*i32"
    if name in ("log_sum_exp", "means"):
        return "*fp32"
    if name.endswith("scale"):
        return "fp32"
    return "i32" if name.endswith(("stride", "rows")) or name in ("documents", "window") else "*bf16"
