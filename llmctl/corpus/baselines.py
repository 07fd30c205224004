"""What a general compressor makes of the held-out text: the mark that a language model has to pass."""

import lzma
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

PRESET = 9 | lzma.PRESET_EXTREME
PRIMER_LIMIT = 8_000_000  # bytes; xz -9e takes about two seconds a megabyte


def _size(data: bytes) -> int:
    return len(lzma.compress(data, preset=PRESET))


def xz_bits_per_byte(texts: list[str]) -> float:
    """Bits per UTF-8 byte of `xz -9e` on the texts, one after the other."""
    data = "".join(texts).encode()
    return 8 * _size(data) / max(1, len(data))


def xz_primed_bits_per_byte(train: Iterable[str], texts: list[str]) -> float:
    """Bits per byte that the texts add after training text has been compressed: xz that has seen the training data,
    as far as `PRIMER_LIMIT` bytes of it."""
    primer = bytearray()
    for text in train:
        primer += text.encode()
        if len(primer) >= PRIMER_LIMIT:
            break
    data = "".join(texts).encode()
    with ThreadPoolExecutor(2) as threads:  # lzma lets the other threads run
        together, alone = threads.map(_size, [bytes(primer) + data, bytes(primer)])
    return 8 * (together - alone) / max(1, len(data))
