"""Keys by content: an artifact's folder is named by what decides its outcome."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmctl.runs.files import sha256_file

KEY_LENGTH = 12  # hex characters: 48 bits, for the few artifacts of one stage of one run


def digest(value: Any) -> str:
    """sha256 of a plain value in canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def content_key(kind: str, version: int, identity: dict[str, Any], parents: dict[str, str]) -> str:
    """Key of what `kind` at `version` makes from `identity` (plain values) and parents with these output hashes."""
    return digest({"kind": kind, "version": version, "identity": identity, "parents": parents})[:KEY_LENGTH]


def fingerprint_path(path: Path, read: Callable[[int], None] | None = None) -> str:
    """sha256 of a file, or of a folder's files with their names. `read` is told the bytes as they are hashed."""
    path = path.expanduser()
    if path.is_file():
        return sha256_file(path, read)
    files = sorted(p for p in path.rglob("*") if p.is_file())
    return digest([(str(p.relative_to(path)), sha256_file(p, read)) for p in files])
