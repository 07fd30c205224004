"""Keys by content: an artifact's folder is named by what decides its outcome."""

import hashlib
import json
import time
from functools import cache
from pathlib import Path
from typing import Any

from llmctl.runs.files import expanded, sha256_file

SETTLED_NANOSECONDS = 2_000_000_000
"""Since a file was changed: within the clock of its disk, another change may leave the same times."""
KEY_LENGTH = 12  # hex characters: 48 bits, for the few artifacts of one stage of one run


def digest(value: Any) -> str:
    """sha256 of a plain value in canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def content_key(kind: str, version: int, identity: dict[str, Any], parents: dict[str, str]) -> str:
    """Key of what `kind` at `version` makes from `identity` (plain values) and parents with these output hashes."""
    return digest({"kind": kind, "version": version, "identity": identity, "parents": parents})[:KEY_LENGTH]


def fingerprint_path(path: Path) -> str:
    """sha256 of a file, or of a folder's files with their names. A file is read once in the life of a process, and again when it
    has changed."""
    path = expanded(path)
    if path.is_file():
        return _sha256(path)
    files = sorted(p for p in path.rglob("*") if p.is_file())
    return digest([(str(p.relative_to(path)), _sha256(p)) for p in files])


def _sha256(file: Path) -> str:
    found = file.stat()
    if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) < SETTLED_NANOSECONDS:
        return sha256_file(file)
    return _sha256_of(file.absolute(), (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns))


@cache
def _sha256_of(file: Path, version: tuple[int, ...]) -> str:
    return sha256_file(file)
