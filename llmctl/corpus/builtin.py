"""The text that every machine with Python holds: the standard library's source and the packages installed beside it."""

import hashlib
import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from llmctl import events
from llmctl.corpus.documents import Document
from llmctl.errors import UserError

SMALLEST, LARGEST = 200, 1_000_000  # bytes: below is nothing to learn, above are generated tables
LONG_BYTES = 25_000  # about 8k tokens of code
ENOUGH_LONG_FILES = 60
OWN_PACKAGE = "llmctl"


def order_of(name: str) -> str:
    """Place of a file in the order that is the same on every machine and spreads over all folders."""
    return hashlib.sha256(name.encode()).hexdigest()


def python_files(root: Path, leave_out: frozenset[str]) -> list[str]:
    """Relative paths of the Python files below `root`; folders of these names are not entered."""
    found = []
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if name not in leave_out]
        base = Path(folder).relative_to(root)
        found += [(base / file).as_posix() for file in files if file.endswith(".py")]
    return sorted(found, key=order_of)


def read_source(file: Path) -> str | None:
    """Text of a Python file, or None where it is too small, too large or not UTF-8 (tests of encodings are not)."""
    try:
        if not SMALLEST <= file.stat().st_size <= LARGEST:
            return None
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return None if "\0" in text else text


def standard_library(max_bytes: int | None = None) -> Iterator[Document]:
    """Documents of the standard library, its tests included where the installation has them."""
    root = Path(sysconfig.get_paths()["stdlib"])
    long_files = 0
    for document in _documents(root, "python-stdlib", frozenset({"site-packages", "dist-packages", "__pycache__"}), max_bytes):
        long_files += len(document.text) >= LONG_BYTES
        yield document
    if max_bytes is None and long_files < ENOUGH_LONG_FILES:
        events.warn(
            f"this Python's standard library has {long_files} files of 8k tokens and more (slim images ship it without its "
            "tests); for long documents the installed packages fill in: keep builtin:python-packages in the mix"
        )


def installed_packages(max_bytes: int | None = None) -> Iterator[Document]:
    """Documents of the packages installed in this environment, without llmctl itself.

    Raises:
        UserError: none is installed.
    """
    paths = sysconfig.get_paths()
    root = Path(paths["purelib"])
    found = False
    for document in _documents(root, "python-packages", frozenset({"__pycache__", OWN_PACKAGE}), max_bytes):
        found = True
        yield document
    if not found:
        raise UserError(f"builtin:python-packages: no Python source in {root}")


def _documents(root: Path, source: str, leave_out: frozenset[str], max_bytes: int | None) -> Iterator[Document]:
    used = 0
    for name in python_files(root, leave_out):
        text = read_source(root / name)
        if text is None:
            continue
        used += len(text.encode())
        if max_bytes is not None and used > max_bytes:
            return
        yield Document(text, f"{source}/{name}", source, name)
