"""GPUs by name: memory as torch's `total_memory` has it, a little less than the data sheet's, what the driver keeps taken off;
rates from NVIDIA's data sheets; and what an hour costs, about."""

import re
from dataclasses import dataclass

from llmctl.errors import UserError

GIB = 2**30
PRICES_OF = "2025"
"""When the prices were on offer."""
PCIE = 20e9
"""Bytes/s each way between a GPU and what is not on its own links: 16 lanes of the fourth generation, as measured by many."""


@dataclass(frozen=True, slots=True)
class Gpu:
    memory: int
    """Bytes."""
    peak: float | None
    """FLOP/s of dense bfloat16 products; None: it has none."""
    bandwidth: float
    """Bytes/s of its memory."""
    link: float
    """Bytes/s to another GPU of the same machine, each way."""
    price: float
    """Dollars an hour, about: offers on demand of clouds for GPUs; large clouds ask for two or three times as much."""


GPUS: dict[str, Gpu] = {
    "b200": Gpu(int(178 * GIB), 2250e12, 8.0e12, 900e9, 5.0),
    "h200-nvl": Gpu(int(139.8 * GIB), 835e12, 4.8e12, 450e9, 3.3),
    "h100-nvl": Gpu(int(93.1 * GIB), 835e12, 3.9e12, PCIE, 2.7),
    "h100-pcie": Gpu(int(79.1 * GIB), 756e12, 2.0e12, PCIE, 2.4),
    "a100-pcie-40gb": Gpu(int(39.4 * GIB), 312e12, 1.55e12, PCIE, 1.2),
    "a100-40gb": Gpu(int(39.4 * GIB), 312e12, 1.55e12, 300e9, 1.3),
    "a100-pcie": Gpu(int(79.1 * GIB), 312e12, 1.94e12, PCIE, 1.6),
    "gh200": Gpu(int(94.5 * GIB), 989e12, 4.0e12, 450e9, 2.0),
    "h200": Gpu(int(139.8 * GIB), 989e12, 4.8e12, 450e9, 3.5),
    "h100": Gpu(int(79.1 * GIB), 989e12, 3.35e12, 450e9, 3.0),
    "a100": Gpu(int(79.1 * GIB), 312e12, 2.0e12, 300e9, 1.8),
    "a40": Gpu(int(44.3 * GIB), 150e12, 0.70e12, PCIE, 0.5),
    "l40s": Gpu(int(44.4 * GIB), 362e12, 0.86e12, PCIE, 1.0),
    "a10": Gpu(int(22.0 * GIB), 125e12, 0.60e12, PCIE, 0.75),
    "l4": Gpu(int(22.0 * GIB), 121e12, 0.30e12, PCIE, 0.7),
    "rtx4090": Gpu(int(23.5 * GIB), 165e12, 1.01e12, PCIE, 0.5),
    "t4": Gpu(int(14.6 * GIB), None, 0.32e12, PCIE, 0.4),
}
"""By the name that the command line takes, whose words are in the driver's name; a special form before the usual one. Peaks count
dense matrices: the data sheets print twice as many for sparse ones."""
OF_OTHER_RATES = {"MIG", "LAPTOP", "D"}
"""Words of the driver's names for a part of a GPU, and for cards that are slower than others of their number."""


def known_gpu(name: str) -> Gpu:
    """A GPU by its name, as "h100".

    Raises:
        UserError: it is none of those that are known.
    """
    found = GPUS.get(name.lower())
    if found is None:
        raise UserError(f"--gpu {name}: not known; known are {', '.join(GPUS)}. Of another say --memory, as in --memory 48GB")
    return found


def gpu_like(name: str) -> Gpu | None:
    """The GPU that the driver's name means; None: none that is known, or a part of one (MIG)."""
    found = name_like(name)
    return None if found is None else GPUS[found]


def name_like(name: str) -> str | None:
    """Our name for the GPU that the driver calls, say, "NVIDIA H100 80GB HBM3"."""
    words = set(re.split(r"[\s-]+", name.upper().replace("RTX ", "RTX")))
    if words & OF_OTHER_RATES:
        return None
    return next((known for known in GPUS if words.issuperset(known.upper().split("-"))), None)


def bf16_peak(name: str) -> float | None:
    """FLOP/s of dense bfloat16 products of a GPU by the driver's name for it; None: not known."""
    gpu = gpu_like(name)
    return None if gpu is None else gpu.peak
