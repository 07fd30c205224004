"""Memory of GPUs, as torch's `total_memory` has it: a little less than the data sheet's, what the driver keeps taken off."""

from llmctl.errors import UserError

GIB = 2**30
MEMORIES: dict[str, int] = {
    "b200": int(178 * GIB),
    "gh200": int(94.5 * GIB),
    "h200": int(139.8 * GIB),
    "h100": int(79.1 * GIB),
    "a100": int(79.1 * GIB),
    "a100-40gb": int(39.4 * GIB),
    "a40": int(44.3 * GIB),
    "l40s": int(44.4 * GIB),
    "a10": int(22.0 * GIB),
    "l4": int(22.0 * GIB),
    "rtx4090": int(23.5 * GIB),
    "t4": int(14.6 * GIB),
}
"""Bytes by the name that the command line takes."""
WITHOUT_BFLOAT16 = ("t4",)


def gpu_memory(name: str) -> int:
    """Bytes of a GPU by its name, as "h100".

    Raises:
        UserError: it is none of those that are known.
    """
    found = MEMORIES.get(name.lower())
    if found is None:
        raise UserError(f"--gpu {name}: not known; known are {', '.join(MEMORIES)}. Of another say --memory, as in --memory 48GB")
    return found
