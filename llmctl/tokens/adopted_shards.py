"""Token shards that others have written: flat ids of OLMo-core and dolma, with the rows of documents beside them or without, and
the `.bin` and `.idx` of Megatron-LM."""

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
from llmctl.tokens.megatron import read_index
from llmctl.tokens.shards import kind_of_ids, part_name, write_meta


def adopt_shards(folder: Path, tokenizer: Any, out: Path) -> None:
    """Make the token shards `out` of the `.npy` and `.bin` files below `folder`, linked where that can be, else copied.

    Documents of a `.npy` file are those of the `.csv.gz` of the same name, or end with the end-of-text token; of a `.bin` file
    (Megatron-LM) those of its `.idx`.

    Raises:
        UserError: there is none, or its ids are not the tokenizer's.
    """
    files = sorted(file for file in folder.rglob("*") if file.suffix in (".npy", ".bin"))
    if not files:
        raise UserError(f"{folder}: no .npy or .bin file of token ids")
    kind, parts, lengths, open_ended = kind_of_ids(tokenizer), [], [], 0
    with staged_folder(out) as aside:
        for number, file in enumerate(files):
            ids, mine = (_of_megatron if file.suffix == ".bin" else _of_dolma)(file, kind, tokenizer)
            written = aside / f"{part_name(number)}.npy"
            if ids.dtype.itemsize == kind.itemsize:
                _link(file, written)
            else:
                ids.astype(kind).tofile(written)
            if file.suffix == ".npy" and (rows := file.with_suffix(".csv.gz")).exists():
                _link(rows, aside / f"{part_name(number)}.csv.gz")
            counts = {"documents": len(mine), "tokens": len(ids), "bytes": 0}
            parts.append({"name": part_name(number), **counts, "sha256": sha256_file(written)})
            lengths += mine
            open_ended += int((ids[np.cumsum(mine) - 1] != tokenizer.eos_token_id).sum())
            events.progress(f"taking over {out.name}", number + 1, len(files), "files")
        write_meta(aside, kind, parts, lengths)
    if open_ended:
        told = f"{open_ended:,} of {len(lengths):,} documents do not end with {tokenizer.eos_token}"
        events.warn(f"{folder}: {told}: a model trained on them does not learn where a text ends")


def _of_dolma(file: Path, kind: np.dtype, tokenizer: Any) -> tuple[np.ndarray, list[int]]:
    """Ids of a `.npy` file, which are of the `kind` that is the tokenizer's, and tokens of each document."""
    size = file.stat().st_size
    if not size or size % kind.itemsize:
        raise UserError(f"{file}: {size:,} bytes are no whole number of {kind.name} ids")
    ids = _checked(file, kind, tokenizer)
    rows = file.with_suffix(".csv.gz")
    return ids, _lengths_told(rows, len(ids)) if rows.exists() else _lengths_found(ids, tokenizer.eos_token_id)


def _of_megatron(file: Path, _: np.dtype, tokenizer: Any) -> tuple[np.ndarray, list[int]]:
    """Ids of a `.bin` file, and tokens of each document."""
    index_file = file.with_suffix(".idx")
    if not index_file.exists():
        raise UserError(f"{index_file}: not there, and a .bin file of Megatron-LM needs its index")
    index = read_index(index_file)
    tokens, size = sum(index.lengths), file.stat().st_size
    if not tokens or size != tokens * index.kind.itemsize:
        raise UserError(f"{file}: {size // index.kind.itemsize:,} ids, and its index has {tokens:,}")
    return _checked(file, index.kind, tokenizer), index.lengths


def _checked(file: Path, kind: np.dtype, tokenizer: Any) -> np.ndarray:
    ids = np.memmap(file, dtype=kind, mode="r")
    smallest, largest = int(ids.min()), int(ids.max())
    if smallest < 0 or largest >= len(tokenizer):
        raise UserError(
            f"{file}: token {smallest if smallest < 0 else largest:,} as {kind.name}, and the tokenizer has {len(tokenizer):,}; "
            "the file was written by another tokenizer, or in another type"
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
