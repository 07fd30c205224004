"""What a CPU's process comes to hold beside what torch allocates: measured factors, for Linux with glibc and torch 2.13.

Attention goes through documents one by one, and for each length that was not there before the process keeps about as much as a
document of it takes in all blocks, in gaps of the heap and in programs for products of its shapes. A stage whose rows are one
document each has one length.
"""

from collections.abc import Iterable

from llmctl.preflight.decoder import Decoder
from llmctl.preflight.memory import Memory

GAPS = 1.35
"""Of what is allocated: tensors of one length that were freed do not lie so that the next ones fill their place."""
LIBRARIES = 60 * 2**20
"""Bytes that the first step adds: DeepSpeed, threads, programs."""
REUSED = 0.5
"""Of what earlier stages of the process have left, the share that a later one's documents fill again: `olmo_small`'s longctx, sft
and lora, one after another, came to 0.91, 0.45 and 0.5 of what their lengths alone would take."""
KEPT = 18.5
"""Numbers that stay of a token of a new length in a block, for each of the queries' width. `olmo_small` grew by 36 to 38 bytes in
bf16 over 34 steps of `longctx` (55 lengths) and 136 of `sft` (229)."""


def resident_bytes(memory: Memory, decoder: Decoder, product_size: int, lengths: Iterable[int], grown: float = 0.0) -> float:
    """Bytes that training adds to the process, once all is set up. `lengths`: tokens of the documents that the stage sees;
    `grown`: bytes that the process holds more than before its first stage."""
    seen = set(lengths)
    kept = sum(sum({padded(length, window) for length in seen}) for window in decoder.windows)
    of_documents = KEPT * product_size * decoder.query_size * kept
    return GAPS * memory.step + LIBRARIES + max(0.0, of_documents - REUSED * grown)


def padded(length: int, window: int | None) -> int:
    """A document longer than the window is computed in blocks of it."""
    return length if window is None or length <= window else -(-length // window) * window
