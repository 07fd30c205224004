"""Rows of files: JSON lines (plain, gzip, zstandard), Parquet, WARC, plain text."""

import gzip
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import zstandard

from llmctl import events
from llmctl.corpus.attrition import Attrition
from llmctl.corpus.files import File, files_of
from llmctl.corpus.warc import SUFFIXES as WARC
from llmctl.corpus.warc import read_warc
from llmctl.errors import UserError

TEXT_SUFFIXES = (".txt", ".md", ".rst", ".py")
ROW_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json.gz", ".json.zst", ".parquet", *WARC)

Place = str
"""`file:line` or `file:row`."""


class Faults:
    """What to do at a row that cannot be read: stop with its place, or count it by its reason and go on."""

    def __init__(self, on_error: Literal["stop", "skip"]) -> None:
        self.on_error = on_error
        self.reasons: Counter[str] = Counter()

    def __call__(self, place: Place, what: str, reason: str = "unreadable") -> None:
        """Raises:
        UserError: naming `place`, unless faults are to be skipped.
        """
        if self.on_error == "stop":
            raise UserError(f'{place}: {what}. Mend it, or set on_error = "skip" for this source to leave such rows out.')
        self.reasons[reason] += 1
        if self.reasons.total() <= 5:
            events.warn(f"{place}: {what}; skipped")

    def tell(self, source: str, attrition: Attrition) -> None:
        """Say what was skipped, by reason, and enter it into the table of what is left out."""
        for reason, count in self.reasons.most_common():
            attrition.add(source, "read", reason, 0, count)
        if skipped := self.reasons.total():
            counted = ", ".join(f"{count:,} {reason}" for reason, count in self.reasons.most_common())
            events.warn(f"{source}: {skipped:,} row{'s' if skipped > 1 else ''} skipped: {counted}")


def read_rows(place: str, faults: Faults, patterns: Sequence[str] = ()) -> Iterator[tuple[Place, dict[str, Any]]]:
    """(place, row) of every row below a path or address; a text file is one row {"text": ...}.

    Raises:
        UserError: nothing readable is there.
    """
    for file in files_of(place, ROW_SUFFIXES + TEXT_SUFFIXES, patterns):
        if file.size == 0:
            faults(file.name, "an empty file")
        elif file.name.endswith(TEXT_SUFFIXES):
            yield from _text_file(file, faults)
        elif file.name.endswith(".parquet"):
            yield from _parquet(file, faults)
        elif file.name.endswith(WARC):
            yield from read_warc(file, faults)
        else:
            yield from _json_lines(file, faults)


def _text_file(file: File, faults: Faults) -> Iterator[tuple[Place, dict[str, Any]]]:
    try:
        with io.TextIOWrapper(file.open(), encoding="utf-8") as opened:
            text = opened.read()
    except UnicodeDecodeError as error:
        faults(file.name, f"not UTF-8 at byte {error.start:,}")
    except OSError as error:
        faults(file.name, str(error))
    else:
        yield file.name, {"text": text}


def _json_lines(file: File, faults: Faults) -> Iterator[tuple[Place, dict[str, Any]]]:
    number = 0
    try:
        with _opened(file) as lines:
            for number, raw in enumerate(lines, 1):
                place = f"{file.name}:{number}"
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
        faults(f"{file.name}:{number + 1}", f"broken or truncated: {error}")


def _opened(file: File) -> Any:
    raw = file.open()
    if file.name.endswith(".gz"):
        return gzip.open(raw, "rb")
    if file.name.endswith(".zst"):
        unpacked: Any = zstandard.open(raw, "rb")
        return io.BufferedReader(unpacked)
    return raw


def _parquet(file: File, faults: Faults) -> Iterator[tuple[Place, dict[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with file.open() as opened:
            for batch in pyarrow.parquet.ParquetFile(opened).iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield f"{file.name}:{number}", row
    except (OSError, pyarrow.ArrowException) as error:
        faults(f"{file.name}:{number + 1}", f"broken Parquet: {str(error).splitlines()[0]}")
