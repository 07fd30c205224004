"""One artifact: a stage's folder, done when its manifest is there.

runs/<run>/<stage>-<key>/
  manifest.json    written last: parents, recipe, sha256 of every file, numbers, versions, hardware; evaluations are added later
  state.json       how far it is; what `llmctl runs` shows
  metrics.jsonl    a line per step
  log.jsonl        a line per message, warning and table
  ...              what the stage leaves
"""

import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from llmctl.errors import StageFailed, UserError
from llmctl.runs.files import left_aside, read_json, sha256_file, write_json
from llmctl.runs.keys import digest
from llmctl.runs.locks import lock
from llmctl.runs.machine import hardware, versions

MANIFEST = "manifest.json"
REMOVED = "removed.json"
LOCK = ".lock"


PARTS = ("parents", "recipe", "metrics", "files", "versions", "hardware")
"""Tables of a manifest. One of an older version may lack some."""
HEALED = "; copy it again from where it is whole, or remove this file, and `llmctl run` with the recipe writes it anew"


class BrokenManifest(UserError):
    """A manifest that is not there, cut, or something else."""


OF_THE_WORK = ("tokens/", "predicted/", "measured/")
"""Begin the names of a manifest's numbers that say what was done and what it took, and not how good the model is."""
PATIENCE = 0.5
"""Seconds: who only asks whether a stage is held (`Artifact.held`) lets go at once."""


@dataclass(frozen=True)
class Problem:
    """A file of an artifact that is not as it was written."""

    path: Path
    what: str


class Artifact:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def run(self) -> str:
        return self.folder.parent.name

    @property
    def stage(self) -> str:
        return self.name.rpartition("-")[0]

    @property
    def key(self) -> str:
        return self.name.rpartition("-")[2]

    @property
    def done(self) -> bool:
        return (self.folder / MANIFEST).is_file()

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What the stage left on record. Tables that an older version did not write are empty.

        Raises:
            BrokenManifest: it cannot be read.
        """
        path = self.folder / MANIFEST
        try:
            found = read_json(path)
        except (OSError, ValueError) as error:
            raise BrokenManifest(f"{path}: cannot be read: {error}{HEALED if self.done else ''}") from None
        if not _is_manifest(found):
            raise BrokenManifest(f"{path}: is no manifest{HEALED}")
        return {"kind": self.stage, "seconds": 0.0, "ended": 0.0} | {part: {} for part in PARTS} | found

    @property
    def readable(self) -> bool:
        """Whether it is done, and its manifest can be read."""
        try:
            return bool(self.manifest)
        except BrokenManifest:
            return False

    @property
    def by_command(self) -> bool:
        """Whether `llmctl average` or `llmctl merge` made it, and no recipe."""
        return bool({"checkpoints", "adapters"} & self.manifest["recipe"].keys())

    @property
    def output_hash(self) -> str:
        """Hash of what the stage made: the children's keys are built from it.

        Raises:
            BrokenManifest: the manifest does not have it.
        """
        if "output_hash" not in self.manifest:
            raise BrokenManifest(f"{self.folder / MANIFEST}: has no output_hash{HEALED}")
        return self.manifest["output_hash"]

    @property
    def scores(self) -> dict[str, float]:
        """What was measured of the model: the manifest's numbers but for the time and memory that the work took."""
        numbers = {name: value for name, value in self.manifest["metrics"].items() if isinstance(value, float)}
        return {name: value for name, value in numbers.items() if not name.startswith(OF_THE_WORK)}

    @property
    def metrics_path(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def log_path(self) -> Path:
        return self.folder / "log.jsonl"

    @property
    def state(self) -> dict[str, Any]:
        try:
            found = read_json(self.folder / "state.json")
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def set_state(self, **fields: Any) -> None:
        """Note how far the stage is."""
        now = {"stage": self.stage, "host": platform.node(), "pid": os.getpid(), "updated": time.time()}
        write_json(self.folder / "state.json", self.state | now | fields)

    def create(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the artifact for this process. The kernel lets go of it when the process dies, however it dies.

        Raises:
            StageFailed: another process works on it.
        """
        with (self.folder / LOCK).open("a+") as file:
            try:
                _lock_patiently(file)
            except BlockingIOError:
                file.seek(0)
                raise StageFailed(
                    f"{self.folder}: another process ({file.read().strip() or 'unknown'}) works on this stage; "
                    "wait for it, stop it, or use another folder with --runs"
                ) from None
            file.truncate(0)
            file.write(f"pid {os.getpid()}")
            file.flush()
            for left in filter(left_aside, self.folder.rglob(".*.tmp-*")):
                left.unlink()
            yield

    @property
    def held(self) -> bool:
        """Whether a process holds the artifact, this one too."""
        try:
            with (self.folder / LOCK).open("r+") as file:
                lock(file, wait=False)
        except BlockingIOError:
            return True
        except OSError:  # nobody ever did, or those who may write here would have to tell
            return False
        return False

    def commit(
        self,
        kind: str,
        parents: dict[str, "Artifact"],
        recipe: dict[str, Any],
        outputs: list[str],
        kept: list[str],
        metrics: dict[str, Any],
        started: float,
    ) -> None:
        """Write the manifest. `outputs` decide the output hash; `kept` files are only recorded (what depends on
        ranks or time, as a trainer's shards do)."""
        counted = self._hashes(outputs)
        ended = time.time()
        manifest = {
            "format": 1,
            "run": self.run,
            "stage": self.stage,
            "kind": kind,
            "key": self.key,
            "output_hash": digest(sorted((path, entry["sha256"]) for path, entry in counted.items())),
            "parents": {
                name: {"folder": f"{parent.run}/{parent.name}", "key": parent.key, "output_hash": parent.output_hash}
                for name, parent in parents.items()
            },
            "recipe": recipe,
            "metrics": metrics,
            "files": counted | self._hashes(kept),
            "versions": versions(),
            "hardware": hardware(),
            "started": started,
            "ended": ended,
            "seconds": ended - started,
        }
        write_json(self.folder / MANIFEST, manifest)

    def note_evaluations(self, entries: Sequence[dict[str, dict[str, Any]]]) -> bool:
        """Add to the manifest what was measured of a model of this finished artifact; False where it cannot be written.

        entries: each with "asked" (task, shots, and all else that decides the outcome, the model's folder in the artifact too)
        and "found" (value, stderr, ...); one takes the place of an older one that was asked the same

        What the artifact is stays: its hashes, its children's keys, and when it was last worked on.
        """
        path = self.folder / MANIFEST
        try:
            with (self.folder / ".evaluations.lock").open("a") as file:
                lock(file, wait=True)
                before, manifest = path.stat(), read_json(path)
                asked = [json.loads(json.dumps(entry["asked"])) for entry in entries]
                older = [one for one in manifest.get("evaluations", []) if one["asked"] not in asked]
                manifest["evaluations"] = older + [{**entry, "noted": time.time()} for entry in entries]
                write_json(path, manifest)
                os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        except OSError:  # the run of someone else, or on a disk that is full
            return False
        self.__dict__.pop("manifest", None)  # read before it changed
        return True

    @property
    def removed(self) -> list[str]:
        """Folders of the artifact that were removed on purpose since it was finished (`llmctl clean`)."""
        try:
            return list(read_json(self.folder / REMOVED))
        except (OSError, ValueError):
            return []

    def note_removed(self, name: str) -> None:
        """Note that a folder goes on purpose. It is no longer missed; the manifest still tells what was in it."""
        write_json(self.folder / REMOVED, sorted({*self.removed, name}))

    def _hashes(self, entries: list[str]) -> dict[str, dict[str, Any]]:
        files: list[Path] = []
        for entry in entries:
            path = self.folder / entry
            files += sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path] * path.exists()
        return {str(file.relative_to(self.folder)): {"sha256": sha256_file(file), "bytes": file.stat().st_size} for file in files}

    def problems(self, read: Callable[[int], None] | None = None) -> list[Problem]:
        """Files that are missing or whose bytes are not those of the manifest. `read` is told the bytes as they are hashed."""
        try:
            files = self.manifest["files"]
        except BrokenManifest as error:
            return [Problem(self.folder / MANIFEST, str(error).removeprefix(f"{self.folder / MANIFEST}: "))]
        gone = tuple(f"{name}/" for name in self.removed)
        if not files:
            return [Problem(self.folder / MANIFEST, "names no files, so that nothing can be compared")]
        there = {self.folder / relative: entry for relative, entry in files.items() if not relative.startswith(gone)}
        found = [(path, _problem(path, entry, read)) for path, entry in there.items()]
        return [Problem(path, what) for path, what in found if what is not None]


def _lock_patiently(file: IO[Any]) -> None:
    """Raises:
    BlockingIOError: it is still held after a while.
    """
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return lock(file, wait=False)
        except BlockingIOError:
            if time.monotonic() > until:
                raise
            time.sleep(PATIENCE / 10)


def _is_manifest(found: Any) -> bool:
    """Whether a manifest has what every command that reads one takes for granted."""
    if not isinstance(found, dict) or not all(isinstance(found.get(part, {}), dict) for part in PARTS):
        return False
    parents, files = (list(found.get(part, {}).values()) for part in ("parents", "files"))
    return all(isinstance(one, dict) and isinstance(one.get("folder"), str) for one in parents) and all(
        isinstance(one, dict) and isinstance(one.get("bytes"), int) and isinstance(one.get("sha256"), str) for one in files
    )


def _problem(path: Path, entry: dict[str, Any], read: Callable[[int], None] | None) -> str | None:
    try:
        if not path.is_file():
            return "missing"
        if path.stat().st_size != entry["bytes"]:
            return f"{path.stat().st_size:,} bytes, was {entry['bytes']:,}"
        return None if sha256_file(path, read) == entry["sha256"] else "its bytes have changed (sha256 differs)"
    except OSError as error:  # removed while it is read, or on a disk that fails
        return f"cannot be read: {error.strerror or error}"
