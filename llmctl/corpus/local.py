"""Files and folders of the user's own: JSON lines (plain, gzip, zstandard), Parquet, WARC, plain text."""

import gzip
import io
import json
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

import zstandard

from llmctl import events
from llmctl.corpus.warc import SUFFIXES as WARC
from llmctl.corpus.warc import read_warc
from llmctl.errors import UserError

TEXT_SUFFIXES = (".txt", ".md", ".rst", ".py")
ROW_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json.gz", ".json.zst", ".parquet", *WARC)

Place = str
"""`file:line` or `file:row`."""


class Faults:
    """What to do at a row that cannot be read: stop with its place, or count it and go on."""

    def __init__(self, on_error: Literal["stop", "skip"]) -> None:
        self.on_error = on_error
        self.skipped = 0

    def __call__(self, place: Place, what: str) -> None:
        """Raises:
        UserError: naming `place`, unless faults are to be skipped.
        """
        if self.on_error == "stop":
            raise UserError(f'{place}: {what}. Mend it, or set on_error = "skip" for this source to leave such rows out.')
        self.skipped += 1
        if self.skipped <= 5:
            events.warn(f"{place}: {what}; skipped")


def files_of(path: Path, patterns: Sequence[str] = ()) -> list[Path]:
    """The readable files that `path` names, sorted; below a folder those that match one of the patterns.

    Raises:
        UserError: there is none.
    """
    path = path.expanduser()
    found = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    readable = [file for file in found if file.name.endswith(TEXT_SUFFIXES + ROW_SUFFIXES)]
    if patterns and readable and path.is_dir():
        names = [file.relative_to(path).as_posix() for file in readable]
        readable = [f for f, name in zip(readable, names, strict=True) if any(fnmatch(name, pattern) for pattern in patterns)]
        if not readable:
            raise UserError(f"{path}: none of {len(names):,} files matches {', '.join(patterns)}; the first is {names[0]}")
    if not readable:
        raise UserError(
            f"{path}: {'no such file or folder' if not path.exists() else 'nothing readable'}; expected "
            f"{', '.join(ROW_SUFFIXES + TEXT_SUFFIXES)}"
        )
    return readable


def read_rows(path: Path, faults: Faults, patterns: Sequence[str] = ()) -> Iterator[tuple[Place, dict[str, Any]]]:
    """(place, row) of every row below `path`; a text file is one row {"text": ...}."""
    for file in files_of(path, patterns):
        if file.stat().st_size == 0:
            faults(str(file), "an empty file")
        elif file.name.endswith(TEXT_SUFFIXES):
            yield from _text_file(file, faults)
        elif file.name.endswith(".parquet"):
            yield from _parquet(file, faults)
        elif file.name.endswith(WARC):
            yield from read_warc(file, faults)
        else:
            yield from _json_lines(file, faults)


def _text_file(file: Path, faults: Faults) -> Iterator[tuple[Place, dict[str, Any]]]:
    try:
        yield str(file), {"text": file.read_text(encoding="utf-8")}
    except UnicodeDecodeError as error:
        faults(str(file), f"not UTF-8 at byte {error.start:,}")


def _json_lines(file: Path, faults: Faults) -> Iterator[tuple[Place, dict[str, Any]]]:
    number = 0
    try:
        with _opened(file) as lines:
            for number, raw in enumerate(lines, 1):
                place = f"{file}:{number}"
                try:
                    line = raw.decode("utf-8")
                    row = json.loads(line) if line.strip() else None
                except UnicodeDecodeError as error:
                    faults(place, f"not UTF-8 at byte {error.start:,} of the line")
                    continue
                except json.JSONDecodeError as error:
                    faults(place, f"not JSON: {error.msg} at column {error.colno}")
                    continue
                if isinstance(row, dict):
                    yield place, row
                elif row is not None:
                    faults(place, f"expected a JSON object, found a {type(row).__name__}")
    except (OSError, EOFError, zstandard.ZstdError) as error:
        faults(f"{file}:{number + 1}", f"broken or truncated: {error}")


def _opened(file: Path) -> Any:
    if file.suffix == ".gz":
        return gzip.open(file, "rb")
    if file.suffix == ".zst":
        return io.BufferedReader(zstandard.open(file, "rb"))  # type: ignore[arg-type]
    return file.open("rb")


def _parquet(file: Path, faults: Faults) -> Iterator[tuple[Place, dict[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield f"{file}:{number}", row
    except (OSError, pyarrow.ArrowException) as error:
        faults(f"{file}:{number + 1}", f"broken Parquet: {str(error).splitlines()[0]}")
