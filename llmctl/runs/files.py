"""Files that are whole or not there: written aside, synced, renamed."""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from llmctl.errors import UserError

BLOCK = 1 << 20
LEFT_ASIDE = (".*.tmp-*", ".*.tmp", ".*.old")
"""What a process that was killed while it wrote leaves."""


def expanded(place: str | Path) -> Path:
    """A path with its `~` written out; one of a home folder that there is not stays as it is."""
    return Path(os.path.expanduser(place))  # Path.expanduser raises RuntimeError for those


def alive(pid: int) -> bool:
    """Whether this machine has a process of that number."""
    import psutil  # os.kill(pid, 0) would stop the process on Windows

    return pid > 0 and psutil.pid_exists(pid)


def left_aside(path: Path) -> bool:
    """Whether a file or folder was left by a process that was killed while it wrote."""
    pid = path.name.rpartition("-")[2]
    return any(path.match(pattern) for pattern in LEFT_ASIDE) and not (pid.isdecimal() and alive(int(pid)))


def sync(path: Path) -> None:
    """Flush a file, or a folder's list of entries, to the disk; not on Windows, which takes neither opened to be read."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def staged_file(final: Path) -> Iterator[IO[bytes]]:
    """A file to write into that becomes `final`, whole and synced, when the block ends without an error."""
    final.parent.mkdir(parents=True, exist_ok=True)
    aside = final.with_name(f".{final.name}.tmp-{os.getpid()}")
    try:
        with aside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, final)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync(final.parent)


def require_writable(file: Path) -> None:
    """Raises:
    UserError: no file of that name can be written.
    """
    if file.is_dir():
        raise UserError(f"{file} is a folder; expected the name of a file to write")
    if not file.parent.is_dir():
        raise UserError(f"{file}: there is no folder {file.parent}")
    if not os.access(file.parent, os.W_OK):
        raise UserError(f"{file}: nothing can be written in {file.parent.resolve()}")


def require_writable_folder(folder: Path) -> None:
    """Raises:
    UserError: no files can be written in a folder of that name, there or yet to be made.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    if not there.is_dir():
        raise UserError(f"{folder}: {there} is a file; expected a folder to write in")
    if not os.access(there, os.R_OK | os.W_OK | os.X_OK):
        raise UserError(f"{folder}: nothing can be written in {there.resolve()}")


def write_text(path: Path, text: str) -> None:
    with staged_file(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def finite(value: Any) -> Any:
    """Nested values as JSON has them, which knows neither nan nor infinity: those are null."""
    if isinstance(value, dict):
        return {str(key): finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def sha256_file(path: Path, read: Callable[[int], None] | None = None) -> str:
    """`read` is told the bytes of each block."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            if read is not None:
                read(len(block))
    return digest.hexdigest()


@contextmanager
def staged_folder(final: Path) -> Iterator[Path]:
    """A folder to write into that becomes `final`, whole and synced, when the block ends without an error.

    A `final` that is there already is replaced. What a killed process left aside is removed.
    """
    aside = final.with_name(f".{final.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    for path in aside.rglob("*"):
        sync(path)
    sync(aside)
    if final.exists():
        old = final.with_name(f".{final.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        os.rename(final, old)
        os.rename(aside, final)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.rename(aside, final)
    sync(final.parent)
