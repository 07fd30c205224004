"""Token ids as Megatron-LM keeps them: `NAME.bin`, flat ids, and `NAME.idx`, which says where its sequences and documents begin.

The index, little-endian (Megatron-LM, megatron/core/datasets/indexed_dataset.py): 9 bytes of magic, version uint64, kind of
ids uint8, sequences S uint64, D + 1 for D documents uint64, lengths int32 [S], places in bytes int64 [S], and the first
sequence of each document int64 [D + 1], the last of which is S.
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llmctl.errors import UserError
from llmctl.tokens.shards import TokenShards

MAGIC, VERSION = b"MMIDIDX\x00\x00", 1
HEADER = struct.Struct("<9sQBQQ")
KINDS = {1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 6: np.float64, 7: np.float32, 8: np.uint16}
COPIED = 1 << 24  # ids at a time


@dataclass(frozen=True, slots=True)
class Index:
    kind: np.dtype
    """Of the ids in the `.bin` file."""
    lengths: list[int]
    """Tokens of each document."""


def read_index(file: Path) -> Index:
    """Raises:
    UserError: it is no index, or one of sequences that do not stand one after the other.
    """
    data = file.read_bytes()
    if len(data) < HEADER.size or not data.startswith(MAGIC):
        raise UserError(f"{file}: no index of Megatron-LM (it does not begin with MMIDIDX)")
    _, version, code, sequences, marks = HEADER.unpack_from(data)
    expected = HEADER.size + 12 * sequences + 8 * marks
    if version != VERSION or code not in KINDS:
        raise UserError(f"{file}: version {version} with ids of kind {code}; version {VERSION} and kinds 1 to 8 are known")
    if len(data) < expected or not marks:
        raise UserError(f"{file}: {len(data):,} bytes where {sequences:,} sequences take {expected:,}: it is truncated")
    kind = np.dtype(KINDS[code])
    lengths = np.frombuffer(data, np.int32, sequences, HEADER.size).astype(np.int64)
    places = np.frombuffer(data, np.int64, sequences, HEADER.size + 4 * sequences)
    first = np.frombuffer(data, np.int64, marks, HEADER.size + 12 * sequences)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    if not np.array_equal(places, ends[:-1] * kind.itemsize):
        raise UserError(f"{file}: its sequences do not stand one after the other in the .bin file, which llmctl needs")
    if first[0] != 0 or first[-1] != sequences or (np.diff(first) < 0).any():
        raise UserError(f"{file}: its documents are not sequences one after the other")
    documents = np.diff(ends[first])
    return Index(kind, documents[documents > 0].tolist())


def write_megatron(shards: TokenShards, prefix: Path) -> None:
    """Write `prefix`.bin and `prefix`.idx, every document a sequence; ids are uint16 where the shards have these, else int32."""
    kind = np.dtype(np.uint16 if shards.kind == np.uint16 else np.int32)
    code = next(code for code, known in KINDS.items() if known == kind)
    prefix.parent.mkdir(parents=True, exist_ok=True)
    documents = len(shards.lengths)
    header = HEADER.pack(MAGIC, VERSION, code, documents, documents + 1)
    index = [shards.lengths.astype(np.int32), shards.offsets[:-1] * kind.itemsize, np.arange(documents + 1)]
    # The index last: with it the two are whole.
    for suffix in (".bin", ".idx"):
        file, aside = (prefix.with_name(f"{start}{prefix.name}{suffix}") for start in ("", "."))
        with aside.open("wb") as out:
            if suffix == ".bin":
                for start in range(0, shards.tokens, COPIED):
                    shards.stream[start : min(start + COPIED, shards.tokens)].astype(kind).tofile(out)
            else:
                out.write(header)
                for array in index:
                    array.tofile(out)
            out.flush()
            os.fsync(out.fileno())
        os.replace(aside, file)
