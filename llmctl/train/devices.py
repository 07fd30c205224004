"""What a device is called, what it can make at most, and how much memory was taken on it."""

import ctypes
import gc
import time
from contextlib import suppress
from pathlib import Path

import torch

from llmctl.preflight.gpus import bf16_peak
from llmctl.runs.machine import hardware
from llmctl.train.distributed import wait_for_all
from llmctl.train.meters import memory_bytes

SIZE, TRIES = 4096, 5  # of the products that a CPU is measured by


def peak_rate(device: torch.device, bfloat16: bool) -> tuple[float | None, str]:
    """FLOP/s that this rank's device can make at most, and where the number is from or why there is none."""
    if device.type != "cuda":
        kind, name = (torch.bfloat16, "bf16") if bfloat16 else (torch.float32, "fp32")
        told = f"rate of a {name} product of {SIZE:,} x {SIZE:,} matrices on this machine, the best of {TRIES}"
        wait_for_all()  # the ranks measure at the same time
        return product_rate(kind), told
    if not bfloat16:
        return None, "peak rates are known for bf16 alone"
    name = torch.cuda.get_device_name(device)
    peak = bf16_peak(name)
    return peak, f"no peak rate is known for {name}" if peak is None else "dense bf16 by the vendor's data sheet"


def product_rate(kind: torch.dtype, size: int | None = None) -> float:
    """FLOP/s of a product of square matrices on the CPU."""
    size = size or SIZE
    with torch.random.fork_rng(devices=[]):
        left, right = (torch.randn(size, size).to(kind) for _ in range(2))
    seconds = []
    for _ in range(TRIES):
        started = time.perf_counter()
        torch.mm(left, right)
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds)


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def give_back_memory() -> None:
    """Let the system have what was freed before: the heap of glibc keeps it, and what earlier stages took would count as held."""
    gc.collect()
    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def forget_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):  # Linux alone; elsewhere what set-up took counts too
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """Bytes since `forget_peak_memory`: allocated on a GPU, or resident."""
    status = Path("/proc/self/status")
    if device.type == "cuda" or not status.exists():
        return memory_bytes(device)
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def name_of(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    machine = hardware()
    return f"{machine['cores']} cores of {machine['processor'] or 'an unnamed CPU'}"
