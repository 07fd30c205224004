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
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from llmctl.errors import StageFailed
from llmctl.runs.files import read_json, sha256_file, write_json
from llmctl.runs.keys import digest
from llmctl.runs.locks import lock
from llmctl.runs.machine import hardware, versions

MANIFEST = "manifest.json"


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
        return read_json(self.folder / MANIFEST)

    @property
    def output_hash(self) -> str:
        """Hash of what the stage made: the children's keys are built from it."""
        return self.manifest["output_hash"]

    @property
    def metrics_path(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def log_path(self) -> Path:
        return self.folder / "log.jsonl"

    @property
    def state(self) -> dict[str, Any]:
        try:
            return read_json(self.folder / "state.json")
        except (OSError, ValueError):
            return {}

    def set_state(self, **fields: Any) -> None:
        """Note how far the stage is."""
        now = {"stage": self.stage, "pid": os.getpid(), "updated": time.time()}
        write_json(self.folder / "state.json", self.state | now | fields)

    def create(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the artifact for this process. The kernel lets go of it when the process dies, however it dies.

        Raises:
            StageFailed: another process works on it.
        """
        with (self.folder / ".lock").open("a+") as file:
            try:
                lock(file, wait=False)
            except BlockingIOError:
                file.seek(0)
                raise StageFailed(
                    f"{self.folder}: another process ({file.read().strip() or 'unknown'}) works on this stage; "
                    "wait for it, stop it, or use another folder with --runs"
                ) from None
            file.truncate(0)
            file.write(f"pid {os.getpid()}")
            file.flush()
            for left in self.folder.rglob(".*.tmp-*"):  # by a process that was killed while it wrote
                left.unlink()
            yield

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

    def _hashes(self, entries: list[str]) -> dict[str, dict[str, Any]]:
        files: list[Path] = []
        for entry in entries:
            path = self.folder / entry
            files += sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path] * path.exists()
        return {str(file.relative_to(self.folder)): {"sha256": sha256_file(file), "bytes": file.stat().st_size} for file in files}

    def problems(self) -> list[Problem]:
        """Files that are missing or whose bytes are not those of the manifest."""
        found = []
        try:
            files = self.manifest["files"]
        except (OSError, json.JSONDecodeError, KeyError) as error:
            return [Problem(self.folder / MANIFEST, f"cannot be read: {error}")]
        for relative, entry in files.items():
            path = self.folder / relative
            if not path.is_file():
                found.append(Problem(path, "missing"))
            elif path.stat().st_size != entry["bytes"]:
                found.append(Problem(path, f"{path.stat().st_size:,} bytes, was {entry['bytes']:,}"))
            elif sha256_file(path) != entry["sha256"]:
                found.append(Problem(path, "its bytes have changed (sha256 differs)"))
        return found
