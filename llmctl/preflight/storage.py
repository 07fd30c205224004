"""What kind of disk a folder lies on: whether other nodes see it, and whether it keeps what artifacts rely on."""

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from llmctl.runs.locks import lock

MOUNTS = Path("/proc/mounts")
SHARED = re.compile(
    r"(fuse\.)?(nfs\d?|lustre|gpfs|beegfs\w*|ceph|cifs|smb\w*|glusterfs|afs|orangefs|pvfs2|juicefs|wekafs|daos|panfs|mfs|moosefs)"
)
"""File systems over a network, by the names that Linux has for them."""


@dataclass(frozen=True, slots=True)
class FileSystem:
    mount: str
    kind: str
    """As ext4 or nfs4."""

    @property
    def shared(self) -> bool:
        """Whether it is one that several nodes may have mounted."""
        return SHARED.fullmatch(self.kind) is not None


def nearest_folder(path: Path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    path = path.expanduser().absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def file_system(path: Path, mounts: Path = MOUNTS) -> FileSystem | None:
    """What a path lies on; None where the system does not tell (no Linux)."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    place = path.resolve()
    found = None
    for line in lines:
        mount, kind = (unescaped(word) for word in line.split(" ")[1:3])
        if place.is_relative_to(mount) and (found is None or len(mount) >= len(found.mount)):  # a later one hides an earlier
            found = FileSystem(mount, kind)
    return found


def unescaped(word: str) -> str:
    r"""A field of /proc/mounts, where a space is \040."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), word)


def faults_of(folder: Path) -> list[str]:
    """What of that which runs rely on this folder does not keep, tried with files that are removed again: it can be written,
    a rename takes the place of what was there, and a lock holds.

    Raises:
        OSError: nothing can be written there.
    """

    with tempfile.TemporaryDirectory(prefix=".llmctl-check-", dir=folder) as trial:
        faults = []
        old, new = Path(trial) / "old", Path(trial) / "new"
        old.write_text("old")
        new.write_text("new")
        try:
            os.replace(new, old)
            if old.read_text() != "new":
                faults.append("a rename does not take the place of an older file")
        except OSError as error:
            faults.append(f"a rename over an older file fails: {error.strerror}")
        with old.open("a") as first, old.open("a") as second:
            try:
                lock(first, wait=False)
                lock(second, wait=False)
                faults.append("a lock (flock) keeps nobody out: two commands could make one stage at once")
            except BlockingIOError:
                pass
            except OSError as error:
                faults.append(f"there are no locks (flock): {error.strerror}")
        return faults
