"""Locks on open files, which the system lets go of when the process dies, however it dies."""

from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

FAR = 1 << 40
"""Where the byte lies that is locked on Windows: a process cannot read what another has locked."""


def lock(file: IO[Any], wait: bool) -> None:
    """Hold `file` until it is closed.

    Raises:
        BlockingIOError: another process holds it, and it was not to be waited for.
    """
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    else:
        _lock_on_windows(file, wait)


def _lock_on_windows(file: IO[Any], wait: bool) -> None:
    from importlib import import_module

    windows: Any = import_module("msvcrt")
    place = file.tell()
    file.seek(FAR)
    try:
        while True:
            try:
                windows.locking(file.fileno(), windows.LK_LOCK if wait else windows.LK_NBLCK, 1)
                return
            except OSError as error:
                if not wait:
                    raise BlockingIOError(*error.args) from None  # while it waits, it gives up after ten seconds, and asks again
    finally:
        file.seek(place)
