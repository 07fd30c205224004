"""Token shards: a source's documents as flat files of ids, with where each document begins and what it is.

part-00000.npy      ids, uint16 below 65,536 tokens of vocabulary, else uint32; raw as OLMo-core and dolma have it, no header
part-00000.csv.gz   a row `start,end,id,src,loc` for each document: its ids in the part, its name, where it was read, its place
part-00000.mask     uint8 beside the ids, conversations alone: 0 masked, 1 closing token, 2 content of an answer
offsets.npy         int64 [documents + 1], over all parts
meta.json           the kind of ids, what each part holds with its sha256; written last
"""

import csv
import gzip
import hashlib
import io
import os
from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from llmctl.runs.files import read_json, write_json


def kind_of_ids(tokenizer: Any) -> np.dtype:
    return np.dtype(np.uint16 if len(tokenizer) <= 2**16 else np.uint32)


def part_name(index: int) -> str:
    return f"part-{index:05d}"


class PartWriter:
    """Writes one part into `folder`: the ids of a document after those of another."""

    def __init__(self, folder: Path, index: int, kind: np.dtype, masked: bool = False) -> None:
        self.folder, self.name, self.kind = folder, part_name(index), kind
        self.lengths: list[int] = []
        self.bytes = 0
        self._tokens = (folder / f"{self.name}.npy").open("wb")
        self._mask = (folder / f"{self.name}.mask").open("wb") if masked else None
        self._digest = hashlib.sha256()
        # No time in the header: the same documents give the same file.
        self._packed = (folder / f"{self.name}.csv.gz").open("wb")
        self._rows = io.TextIOWrapper(gzip.GzipFile("", "wb", fileobj=self._packed, mtime=0), encoding="utf-8", newline="")
        self._write_row = csv.writer(self._rows).writerow
        self._at = 0

    def add(self, ids: np.ndarray, name: str, path: str, size: int, mask: np.ndarray | None = None) -> None:
        """A document of `size` bytes of text."""
        data = ids.astype(self.kind).tobytes()
        self._digest.update(data)
        self._tokens.write(data)
        if self._mask is not None and mask is not None:
            self._mask.write(mask.tobytes())
        self._write_row((self._at, self._at + len(ids), name, path, len(self.lengths)))
        self._at += len(ids)
        self.lengths.append(len(ids))
        self.bytes += size

    def close(self) -> dict[str, Any]:
        """What the part holds, for `meta.json`."""
        self._rows.close()
        for file in (self._tokens, self._mask, self._packed):
            if file is not None:
                file.flush()
                os.fsync(file.fileno())
                file.close()
        counts = {"documents": len(self.lengths), "tokens": sum(self.lengths), "bytes": self.bytes}
        return {"name": self.name, **counts, "sha256": self._digest.hexdigest()}


def write_meta(folder: Path, kind: np.dtype, parts: list[dict[str, Any]], lengths: Sequence[int]) -> None:
    np.save(folder / "offsets.npy", np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    totals = {key: sum(part[key] for part in parts) for key in ("documents", "tokens", "bytes")}
    write_json(folder / "meta.json", {"dtype": kind.name, **totals, "parts": parts})


class Joined:
    """Arrays one after the other as a single one, to be sliced."""

    def __init__(self, arrays: list[np.ndarray], kind: np.dtype) -> None:
        self.arrays = [array for array in arrays if len(array)] or [np.empty(0, kind)]
        self._starts = [0, *accumulate(map(len, self.arrays))]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, wanted: slice) -> np.ndarray:
        start, stop, _ = wanted.indices(len(self))
        first = min(bisect_right(self._starts, start), len(self.arrays)) - 1
        pieces = []
        for array, begin in zip(self.arrays[first:], self._starts[first:], strict=False):
            if begin >= stop and pieces:
                break
            pieces.append(array[max(0, start - begin) : max(0, stop - begin)])
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


class TokenShards:
    """A folder of token shards, read through the page cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        meta = read_json(folder / "meta.json")
        self.documents: int = meta["documents"]
        self.bytes: int = meta["bytes"]
        """UTF-8 bytes of the text."""
        self.parts: list[dict[str, Any]] = meta["parts"]
        self.kind = np.dtype(meta["dtype"])
        self.offsets: np.ndarray = np.load(folder / "offsets.npy")

    @property
    def tokens(self) -> int:
        return int(self.offsets[-1])

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each document, int64 [documents]."""
        return np.diff(self.offsets)

    def names(self, documents: set[int]) -> dict[int, tuple[str, str]]:
        """Name and path of documents by their number; of shards without rows, none."""
        found, first = {}, 0
        for part in self.parts:
            wanted = {document - first for document in documents if first <= document < first + part["documents"]}
            file = self.folder / f"{part['name']}.csv.gz"
            if wanted and file.exists():
                with gzip.open(file, "rt", encoding="utf-8", newline="") as rows:
                    for place, row in enumerate(csv.reader(rows)):
                        if place in wanted:
                            found[first + place] = (row[2], row[3]) if len(row) > 3 else ("", "")
            first += part["documents"]
        return found

    def _joined(self, suffix: str, kind: np.dtype) -> Joined:
        files = [self.folder / f"{part['name']}{suffix}" for part in self.parts if part["tokens"]]
        return Joined([np.memmap(file, dtype=kind, mode="r") for file in files], kind)

    @cached_property
    def stream(self) -> Joined:
        """All ids, one document after the other."""
        return self._joined(".npy", self.kind)

    @cached_property
    def mask(self) -> Joined | None:
        """Of conversations: uint8 beside `stream`; None for text, where every token is trained on."""
        masked = bool(self.parts) and (self.folder / f"{self.parts[0]['name']}.mask").exists()
        return self._joined(".mask", np.dtype(np.uint8)) if masked else None
