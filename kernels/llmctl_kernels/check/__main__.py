"""Check the kernels on the GPU that is here, in a few minutes.

Of each kernel: errors of outputs and gradients in bf16 and fp32 against float64, no more than twice plain torch's; edge shapes;
more than 2^31 elements; the same bits twice; torch.compile; torch.library.opcheck. Exit code 1 if anything failed, 2 if
nothing can run here.
"""

import argparse
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from llmctl_kernels import runtime
from llmctl_kernels.check.checks import Outcome, checks
from llmctl_kernels.names import KERNELS

NO_GPU = "There is no GPU here: `TRITON_INTERPRET=1 python -m llmctl_kernels.check --small` runs small shapes on the CPU."


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="python -m llmctl_kernels.check", description=__doc__)
    options.add_argument("--kernel", action="append", choices=KERNELS, help="only this kernel; may be given several times")
    options.add_argument("--small", action="store_true", help="small shapes, for Triton's interpreter")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    options = parser().parse_args(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not (options.small and runtime.interpreted()):
        print(NO_GPU)
        return 2
    if reason := runtime.missing(device.type):
        print(f"The kernels cannot run: {reason}.")
        return 2
    torch.backends.cuda.matmul.allow_tf32 = False  # plain torch in fp32 is what fp32 is held against
    start = time.perf_counter()
    outcomes = []
    for kernel in options.kernel or KERNELS:
        for outcome in checks(kernel, device, options.small):
            print(line(outcome), flush=True)
            outcomes.append(outcome)
    seconds = time.perf_counter() - start
    counts = Counter(outcome.status for outcome in outcomes)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "Triton's interpreter"
    print(f"\n{counts['ok']} ok, {counts['FAILED']} failed, {counts['skipped']} skipped in {seconds:.0f} s on {name}.")
    if options.json:
        record = {"device": name, "torch": torch.__version__, "seconds": round(seconds, 1), "checks": list(map(entry, outcomes))}
        options.json.write_text(json.dumps(record, indent=2) + "\n")
    return 1 if counts["FAILED"] else 0


def entry(outcome: Outcome) -> dict[str, Any]:
    """For JSON, which has no infinity."""
    ratio = outcome.ratio if outcome.ratio is not None and math.isfinite(outcome.ratio) else None
    return asdict(outcome) | {"ratio": ratio}


def line(outcome: Outcome) -> str:
    ratio = "" if outcome.ratio is None else f"{outcome.ratio:.2f}"
    status = f"{outcome.status}: {outcome.why}" if outcome.why and outcome.status != "ok" else outcome.status
    return f"{outcome.kernel:20}  {outcome.check:15}  {outcome.case:58.58}  {ratio:>6}  {status}"


if __name__ == "__main__":
    sys.exit(main())
