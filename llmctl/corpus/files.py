"""Files to read documents from: on this machine's disks, in object stores (s3://, gs://, az://, hf://), or on the web."""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, BinaryIO

from llmctl.errors import UserError
from llmctl.recipe.fields import is_address

BLOCK = 8_000_000  # bytes that are fetched at a time


@dataclass(frozen=True, slots=True)
class File:
    name: str
    """Its path or address."""
    below: str
    """Its path below the folder that was asked for; of a file that was asked for, its name."""
    size: int
    """Bytes."""
    open: Callable[[], BinaryIO]


def files_of(place: str, suffixes: Sequence[str], patterns: Sequence[str] = ()) -> list[File]:
    """The files below a path or address that end in one of `suffixes`, sorted; below a folder those that match one of
    the patterns.

    Raises:
        UserError: there is none, or the address does not answer.
    """
    found = _remote(place) if is_address(place) else _local(Path(place).expanduser())
    readable = [file for file in found if file.name.endswith(tuple(suffixes))]
    matching = [file for file in readable if not patterns or any(fnmatch(file.below, pattern) for pattern in patterns)]
    if not readable:
        raise UserError(f"{place}: {'nothing readable' if found else 'no such file or folder'}; expected {', '.join(suffixes)}")
    if not matching and readable[0].name != place:
        raise UserError(
            f"{place}: none of {len(readable):,} files matches {', '.join(patterns)}; the first is {readable[0].below}"
        )
    return sorted(matching or readable, key=lambda file: file.name)


def _local(path: Path) -> list[File]:
    found = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return [
        File(str(file), file.relative_to(path).as_posix() if file != path else path.name, file.stat().st_size, _opener(file))
        for file in found
    ]


def _opener(file: Path) -> Callable[[], BinaryIO]:
    return lambda: file.open("rb")


def _remote(address: str) -> list[File]:
    folder = address.rstrip("/")
    rows = _listed(address)
    if [row["path"] for row in rows] != [address]:  # a folder, of which daft lists what is in it and nothing deeper
        rows = _listed(f"{folder}/**")
    found = []
    for row in rows:
        name = row["path"]
        below = name.removeprefix(f"{folder}/") if name != address else name.rsplit("/", 1)[-1]
        found.append(File(name, below, row["size"] or 0, _fetcher(name)))
    return found


def _listed(pattern: str) -> list[dict[str, Any]]:
    import daft

    try:
        # Not all at once: daft (0.7) cannot join no batches, which is what it has where nothing is.
        return [row for batch in daft.from_glob_path(pattern).to_arrow_iter() for row in batch.to_pylist()]
    except FileNotFoundError:
        return []
    except Exception as error:  # one class for each store
        raise UserError(f"{pattern}: cannot be listed: {_reason(error)}") from None


def _fetcher(address: str) -> Callable[[], BinaryIO]:
    return lambda: io.BufferedReader(Fetched(address), BLOCK)


def _reason(error: Exception) -> str:
    """The cause that daft names last, as in "5: failed to lookup address information"."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return re.sub(r"^\d+: ", "", lines[-1]) if lines else type(error).__name__


class Fetched(io.RawIOBase):
    """A remote file, fetched by ranges as it is read.

    Raises:
        OSError: from `readinto`, when it cannot be fetched.
    """

    def __init__(self, address: str) -> None:
        import daft

        self._opened = daft.File(address).open()
        try:
            self._file = self._opened.__enter__()
        except Exception as error:
            raise OSError(f"cannot be opened: {_reason(error)}") from None

    def close(self) -> None:
        if not self.closed:
            self._opened.__exit__(None, None, None)
        super().close()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._file.read(len(buffer))
        except Exception as error:
            raise OSError(f"cannot be fetched: {_reason(error)}") from None
        buffer[: len(data)] = data
        return len(data)
