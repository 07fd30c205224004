"""Linear layer and cross entropy on the CPU: in chunks against all logits at once.

Time: the two in turn in one process, after one run of each. Memory: each in a process of its own, the peak of its resident
memory above what is resident when the inputs are there and a tiny run has been made. Both contain the gradients, as both have to
make them. The peak is Linux's `VmHWM`: getrusage's `ru_maxrss` starts at what the process that started this one had.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

import torch

from llmctl_kernels.bench.rows import Row
from llmctl_kernels.cases.case import Case, Implementation
from llmctl_kernels.cases.linear_cross_entropy import case
from llmctl_kernels.check.measure import cotangents, seeded

ROWS, WIDTH = 2048, 512
VOCABULARIES = (50_304, 100_352)
DTYPES = (torch.float32, torch.bfloat16)
CHUNKED, PLAIN = "chunked torch", "plain torch"
REPETITIONS, QUICK_REPETITIONS = 7, 3


def cpu_rows(quick: bool) -> Iterator[Row]:
    repetitions = QUICK_REPETITIONS if quick else REPETITIONS
    for dtype in DTYPES:
        for vocabulary in VOCABULARIES[-1:] if quick else VOCABULARIES:
            problem = case(ROWS, WIDTH, vocabulary, ignored=0.0, in_triton=False)
            description = f"[{ROWS}, {WIDTH}] x {vocabulary}"
            times = alternated(problem, dtype, repetitions)
            kind = str(dtype).removeprefix("torch.")
            for name, (forward, both) in times.items():
                operations = problem.work.operations_both
                yield Row(
                    "linear_cross_entropy",
                    "",
                    description,
                    name,
                    "cpu",
                    kind,
                    forward=forward,
                    both=both,
                    memory=memory_apart(name, kind, ROWS, WIDTH, vocabulary),
                    unit="TFLOP/s",
                    forward_rate=problem.work.operations_forward / forward / 1e12,
                    both_rate=operations / both / 1e12,
                    tokens=ROWS,
                )


def alternated(problem: Case, dtype: torch.dtype, repetitions: int) -> dict[str, tuple[float, float]]:
    """Median seconds of forward, without gradients, and of forward and backward, by implementation."""
    device = torch.device("cpu")
    inputs = problem.inputs(device, dtype, seeded(device))
    named = {CHUNKED: problem.fused, PLAIN: problem.plain}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in named}
    for repetition in range(repetitions + 1):
        for name, implementation in named.items():
            with torch.no_grad():
                forward = seconds(lambda call=implementation: call(**inputs))
            both = seconds(lambda call=implementation: forward_and_backward(problem, call, inputs))
            if repetition:  # the first one warms up
                times[name].append((forward, both))
    return {name: (median(first for first, _ in pairs), median(second for _, second in pairs)) for name, pairs in times.items()}


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def forward_and_backward(problem: Case, implementation: Implementation, inputs: dict[str, torch.Tensor]) -> object:
    leaves = {name: tensor.detach().requires_grad_(name in problem.wants_gradient) for name, tensor in inputs.items()}
    outputs = implementation(**leaves)
    wanted = [leaves[name] for name in problem.wants_gradient]
    return torch.autograd.grad(outputs[0], wanted, cotangents(problem, outputs, torch.float32))


def memory_apart(implementation: str, dtype: str, rows: int, width: int, vocabulary: int) -> int:
    """Bytes, measured in another process."""
    arguments = [implementation, dtype, *map(str, (rows, width, vocabulary))]
    done = subprocess.run(
        [sys.executable, "-m", "llmctl_kernels.bench.cpu", *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    return int(done.stdout)


def memory_here(implementation: str, dtype: torch.dtype, rows: int, width: int, vocabulary: int) -> int:
    device = torch.device("cpu")

    def run(problem: Case, inputs: dict[str, torch.Tensor]) -> None:
        forward_and_backward(problem, problem.fused if implementation == CHUNKED else problem.plain, inputs)

    tiny = case(8, 16, 32, in_triton=False)  # threads and libraries take theirs now
    run(tiny, tiny.inputs(device, dtype, seeded(device)))
    problem = case(rows, width, vocabulary, ignored=0.0, in_triton=False)
    inputs = problem.inputs(device, dtype, seeded(device))
    before = resident()
    run(problem, inputs)
    return max(0, peak() - before)


def peak() -> int:
    """Bytes that were resident at most so far."""
    return in_status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def resident() -> int:
    """Bytes that are resident now; where the system does not tell, the most so far."""
    return in_status("VmRSS") or peak()


def in_status(field: str) -> int | None:
    """Bytes, from what Linux tells of this process in KiB."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the bytes of one implementation: what `memory_apart` starts."""
    options = argparse.ArgumentParser()
    options.add_argument("implementation", choices=(CHUNKED, PLAIN))
    options.add_argument("dtype")
    for name in ("rows", "width", "vocabulary"):
        options.add_argument(name, type=int)
    given = options.parse_args(argv)
    print(memory_here(given.implementation, getattr(torch, given.dtype), given.rows, given.width, given.vocabulary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
