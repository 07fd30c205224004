"""The checks of one kernel, each a line of the report."""

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from llmctl_kernels.cases import Cases, cases_of
from llmctl_kernels.cases.case import TAIL, Case, Large, Tensors, Unavailable
from llmctl_kernels.check.measure import EDGE_FLOOR, FLOOR, cotangents, limit, root_mean_square, run, seeded, worst_ratio
from llmctl_kernels.check.operators import check_operators
from llmctl_kernels.names import KernelName

GIB = 2**30


@dataclass(frozen=True)
class Outcome:
    """One line: `ratio` is the kernel's error over plain torch's where one is measured."""

    kernel: str
    check: str
    case: str
    status: Literal["ok", "FAILED", "skipped"]
    ratio: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Finding:
    """What a check found: passed or not, and in words where."""

    passed: bool
    ratio: float | None = None
    why: str = ""


def checks(kernel: KernelName, device: torch.device, small: bool) -> Iterator[Outcome]:
    """All that is checked of `kernel`, one after the other."""
    try:
        cases = cases_of(kernel)
        planned = list(plan(cases, device, small))
    except Exception as error:
        yield Outcome(kernel, "cases", "", "FAILED", why=in_words(error))
        return
    for name, description, check in planned:
        yield outcome(kernel, name, description, check)
        if device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()


def plan(cases: Cases, device: torch.device, small: bool) -> Iterator[tuple[str, str, Callable[[], Finding]]]:
    """(check, case, what to call)."""
    typical = cases.typical(small)
    for dtype, name in ((torch.bfloat16, "bf16"), (torch.float32, "fp32")):
        for case in typical:
            yield f"{name} error", case.description, partial(accurate, case, device, dtype, FLOOR[dtype])
        for case in cases.edges(small, device.type):
            if dtype == torch.bfloat16 or not half_only(case):
                yield f"{name} edge", case.description, partial(accurate, case, device, dtype, EDGE_FLOOR[dtype])
    if not small:
        big = cases.large()
        yield "2^31 elements", big.case.description, partial(last_rows_right, big, device)
    for case in typical:
        yield "same bits twice", case.description, partial(repeatable, case, device)
        yield "compiled", case.description, partial(compiled, case, device)
    for case in cases.typical(small=True):
        yield "opcheck", case.description, partial(registered, case, device)


def half_only(case: Case) -> bool:
    """Whether a case is a library's that has no fp32."""
    return case.description.startswith(("flash_attention", "varlen_attn"))


def outcome(kernel: str, name: str, description: str, check: Callable[[], Finding]) -> Outcome:
    try:
        finding = check()
    except (Unavailable, torch.OutOfMemoryError) as error:
        return Outcome(kernel, name, description, "skipped", why=in_words(error))
    except Exception as error:  # whatever a kernel breaks with is what is looked for
        return Outcome(kernel, name, description, "FAILED", why=in_words(error))
    return Outcome(kernel, name, description, "ok" if finding.passed else "FAILED", finding.ratio, finding.why)


def in_words(error: Exception) -> str:
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory"
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else ""
    return text if isinstance(error, Unavailable) else f"{type(error).__name__}: {text}"[:300]


def accurate(case: Case, device: torch.device, dtype: torch.dtype, floor: float) -> Finding:
    """Outputs and gradients against float64 on the same inputs, and plain torch's in `dtype`."""
    inputs = case.inputs(device, dtype, seeded(device))
    truth = run(case, case.exact, inputs, torch.float64)
    plain = run(case, case.plain, inputs)
    return judged(run(case, case.fused, inputs), plain, truth, floor, dtype)


def judged(got: Tensors, plain: Tensors, truth: Tensors, floor: float, dtype: torch.dtype) -> Finding:
    ratio, where = worst_ratio(got, plain, truth, floor)
    return Finding(ratio <= limit(dtype), ratio, where)


def last_rows_right(big: Large, device: torch.device) -> Finding:
    """The last rows of a problem whose offsets pass 2^31, against those rows by themselves."""
    free = torch.cuda.mem_get_info(device)[0]
    if free < big.memory:
        raise Unavailable(f"takes {big.memory / GIB:.0f} GiB, {free / GIB:.0f} are free")
    dtype = torch.bfloat16
    inputs = big.case.inputs(device, dtype, seeded(device))
    leaves = {name: tensor.requires_grad_(name in big.case.wants_gradient) for name, tensor in inputs.items()}
    outputs = big.case.fused(**leaves)
    given = cotangents(big.case, outputs, dtype)
    wanted = [leaves[name] for name in big.row_gradients]
    found = torch.autograd.grad([outputs[index] for index in big.case.differentiable], wanted, given)
    got = {f"output {index}": outputs[index].detach()[-TAIL:].clone() for index in big.row_outputs}
    got |= {f"d {name}": gradient[-TAIL:].clone() for name, gradient in zip(big.row_gradients, found, strict=True)}
    tail = big.tail({name: leaf.detach() for name, leaf in leaves.items()})
    ends = [gradient[-TAIL:].clone() if gradient.dim() else gradient for gradient in given]
    del inputs, leaves, outputs, given, wanted, found
    truth = run(big.tail_case, big.tail_case.exact, tail, torch.float64, ends)
    plain = run(big.tail_case, big.tail_case.plain, tail, gradients=ends)
    return judged(got, plain, {name: truth[name] for name in got}, FLOOR[dtype], dtype)


def repeatable(case: Case, device: torch.device) -> Finding:
    inputs = case.inputs(device, torch.bfloat16, seeded(device))
    first, second = run(case, case.fused, inputs), run(case, case.fused, inputs)
    differing = [name for name in first if not torch.equal(first[name], second[name])]
    return Finding(not differing, why=", ".join(differing))


def compiled(case: Case, device: torch.device) -> Finding:
    """As in eager mode, up to one rounding: the compiler may keep more digits around the operators than eager mode does."""
    torch._dynamo.reset()
    inputs = case.inputs(device, torch.bfloat16, seeded(device))
    eager = run(case, case.fused, inputs)
    backend = "inductor" if device.type == "cuda" else "aot_eager"
    graph = run(case, torch.compile(case.fused, fullgraph=True, backend=backend), inputs)
    distance = {name: distance_in_roundings(graph[name], tensor) for name, tensor in eager.items()}
    differing = [name for name, value in distance.items() if not value <= 1]
    return Finding(not differing, max(distance.values()), ", ".join(differing))


def distance_in_roundings(one: Tensor, other: Tensor) -> float:
    """Root mean square of a difference, in units of bf16's last digit."""
    unit = torch.finfo(torch.bfloat16).eps * root_mean_square(other)
    difference = root_mean_square(one.double() - other.double())
    return difference / unit if unit else difference


def registered(case: Case, device: torch.device) -> Finding:
    names = check_operators(case, case.inputs(device, torch.float32, seeded(device)))
    return Finding(bool(names), why=", ".join(name.removeprefix("llmctl_kernels.") for name in names) or "no operator ran")
