"""Measure the kernels on the GPU that is here; without one, linear layer and cross entropy on the CPU.

Times are medians with a cold L2 cache; rates count the least that has to be moved or computed; shares are of what a copy of
1 GiB and a bf16 product reach on the same chip in the same run; memory is the peak above what was allocated before.
"""

import argparse
import json
import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from llmctl_kernels.bench import goals as goals_of
from llmctl_kernels.bench import rows as table
from llmctl_kernels.bench.cpu import cpu_rows
from llmctl_kernels.bench.gpu import gpu_rows
from llmctl_kernels.bench.measure import Stopwatch, ceilings
from llmctl_kernels.bench.rows import Ceilings, Row
from llmctl_kernels.cases.case import MODELS, TOKENS
from llmctl_kernels.names import KERNELS

PACKAGES = ("torch", "triton", "liger-kernel", "flash-attn", "flash-attn-3", "flash-attn-4")
SECONDS, QUICK_SECONDS = 3.0, 0.5
"""For one time at most; more are added until they hardly differ."""


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="python -m llmctl_kernels.bench", description=__doc__)
    options.add_argument("--kernel", action="extend", nargs="+", choices=KERNELS, help="only these kernels")
    options.add_argument("--model", nargs="+", choices=MODELS, default=list(MODELS), help="shapes of these Olmo 3 models")
    options.add_argument("--tokens", nargs="+", type=int, default=list(TOKENS), help="tokens of a batch")
    options.add_argument("--quick", action="store_true", help="fewer repetitions")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    options = parser().parse_args(argv)
    versions = {package: installed(package) for package in PACKAGES}
    print(f"{hardware()}; {', '.join(f'{package} {number}' for package, number in versions.items())}")
    chip = None
    if torch.cuda.is_available():
        device = torch.device("cuda")
        stopwatch = Stopwatch(device, QUICK_SECONDS if options.quick else SECONDS)
        chip = ceilings(stopwatch, device)
        print(
            f"A copy: {chip.bytes_per_second / 1e12:.2f} TB/s. A bf16 product: {chip.operations_per_second / 1e12:.0f} TFLOP/s."
        )
        found = (
            row
            for kernel in options.kernel or KERNELS
            for row in gpu_rows(kernel, options.model, options.tokens, stopwatch, chip)
        )
    elif options.kernel and "linear_cross_entropy" not in options.kernel:
        print("There is no GPU here, and on a CPU only linear_cross_entropy is measured.")
        return 2
    else:
        print("There is no GPU here: linear_cross_entropy on the CPU.")
        found = cpu_rows(options.quick)
    rows = printed(found)
    reached = goals_of.goals(rows)
    print("\nGoals:", *map(goals_of.line, reached), sep="\n")
    if options.json:
        options.json.write_text(json.dumps(record(versions, chip, rows, reached), indent=2) + "\n")
    return 0


def printed(found: Iterable[Row]) -> list[Row]:
    """Each row as it comes."""
    print(f"\n{table.heading()}")
    rows = []
    for row in found:
        print(table.line(row), flush=True)
        rows.append(row)
    return rows


def record(versions: dict[str, str], chip: Ceilings | None, rows: list[Row], reached: list[goals_of.Goal]) -> dict[str, Any]:
    return {
        "hardware": hardware(),
        "versions": versions,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "ceilings": asdict(chip) if chip else None,
        "rows": [asdict(row) for row in rows],
        "goals": [asdict(goal) for goal in reached],
    }


def hardware() -> str:
    if not torch.cuda.is_available():
        return f"CPU {platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    properties = torch.cuda.get_device_properties(0)
    return f"{properties.name}, {properties.total_memory / table.GIB:.0f} GiB, CUDA {torch.version.cuda}"


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    sys.exit(main())
