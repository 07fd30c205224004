"""Token shards that others have written: flat ids of OLMo-core and dolma, with the rows of documents beside them or without."""

import csv
import gzip
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from llmctl import events
from llmctl.errors import UserError
from llmctl.runs.files import sha256_file, staged_folder
from llmctl.tokens.shards import kind_of_ids, part_name, write_meta


def adopt_shards(folder: Path, tokenizer: Any, out: Path) -> None:
    """Make the token shards `out` of the `.npy` files below `folder`, linked where that can be, else copied. Documents are those
    of the `.csv.gz` of the same name, or end with the end-of-text token.

    Raises:
        UserError: there is none, or its ids are not the tokenizer's.
    """
    files = sorted(folder.rglob("*.npy"))
    if not files:
        raise UserError(f"{folder}: no .npy file of token ids")
    kind, parts, lengths = kind_of_ids(tokenizer), [], []
    with staged_folder(out) as aside:
        for number, file in enumerate(files):
            ids = _ids(file, kind, tokenizer)
            rows = file.with_suffix(".csv.gz")
            mine = _lengths_told(rows, len(ids)) if rows.exists() else _lengths_found(ids, tokenizer.eos_token_id)
            _link(file, aside / f"{part_name(number)}.npy")
            if rows.exists():
                _link(rows, aside / f"{part_name(number)}.csv.gz")
            counts = {"documents": len(mine), "tokens": len(ids), "bytes": 0}
            parts.append({"name": part_name(number), **counts, "sha256": sha256_file(file)})
            lengths += mine
            events.progress(f"taking over {out.name}", number + 1, len(files), "files")
        write_meta(aside, kind, parts, lengths)


def _ids(file: Path, kind: np.dtype, tokenizer: Any) -> np.ndarray:
    size = file.stat().st_size
    if not size or size % kind.itemsize:
        raise UserError(f"{file}: {size:,} bytes are no whole number of {kind.name} ids")
    ids = np.memmap(file, dtype=kind, mode="r")
    largest = int(ids.max())
    if largest >= len(tokenizer):
        raise UserError(
            f"{file}: token {largest:,} as {kind.name}, and the tokenizer has {len(tokenizer):,}; the file was written by "
            "another tokenizer, or in another type"
        )
    return ids


def _lengths_told(file: Path, tokens: int) -> list[int]:
    """Tokens of each document by its rows `start,end,...`."""
    at, lengths = 0, []
    with gzip.open(file, "rt", encoding="utf-8", newline="") as rows:
        for number, row in enumerate(csv.reader(rows), 1):
            try:
                start, end = int(row[0]), int(row[1])
            except (IndexError, ValueError):
                raise UserError(f"{file}:{number}: expected start,end,id,src,loc; found {','.join(row)[:80]!r}") from None
            if start != at or not start < end <= tokens:
                raise UserError(f"{file}:{number}: a document from {start:,} to {end:,} where {at:,} of {tokens:,} ids are taken")
            lengths.append(end - start)
            at = end
    if at != tokens:
        raise UserError(f"{file}: its documents end at {at:,}, and there are {tokens:,} ids")
    return lengths


def _lengths_found(ids: np.ndarray, end: int) -> list[int]:
    """Tokens of each document, the end-of-text token its last."""
    ends = np.flatnonzero(ids == end) + 1
    if not len(ends) or ends[-1] != len(ids):
        ends = np.append(ends, len(ids))
    return np.diff(ends, prepend=0).tolist()


def _link(file: Path, to: Path) -> None:
    try:
        os.link(file.resolve(), to)
    except OSError:  # another file system
        shutil.copyfile(file, to)
