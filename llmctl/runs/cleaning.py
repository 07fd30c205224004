"""What of the runs may go, and why. Nothing that is finished and current goes, nothing that anything else is made of, nothing
that a process works on, and no model that a stage was told to keep."""

import shutil
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.errors import StageFailed
from llmctl.runs.artifact import MANIFEST, Artifact
from llmctl.runs.state import alive, running, status
from llmctl.runs.store import Run, RunStore, changed, entries

KEPT, TRAINER = "kept", "trainer"
LEFT_ASIDE = (".*.tmp-*", ".*.tmp", ".*.old")
"""What a process that was killed while it wrote leaves (`runs.files`)."""


@dataclass(frozen=True, slots=True)
class Removable:
    path: Path
    artifact: Artifact
    """That it is, or is a part of."""
    why: str
    done: bool
    """Whether the artifact was finished when this was listed."""

    @property
    def bytes(self) -> int:
        return size_of(self.path)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder; what goes while it is looked at counts nothing."""
    try:
        files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
        return sum(one.stat().st_size for one in files)
    except OSError:
        return 0


def needed(store: RunStore, without: Set[Path]) -> set[Path]:
    """Folders of everything that a finished artifact of any run is made of, however far back, and of what a recipe of a run on
    record names by its path. `without`: artifacts that go, and need nothing any more."""
    found: set[Path] = set()
    for run in store.runs():
        for artifact in run.artifacts:
            if artifact.readable and artifact.folder.resolve() not in without:
                found |= {one.folder.resolve() for one in store.ancestry(artifact)[1:]}
                found |= _named(store, artifact.manifest["recipe"])
        for origin in store.recorded_recipes(run.name):
            found |= _named(store, origin)
    return found


def _named(store: RunStore, values: Any) -> set[Path]:
    """Artifacts that a text somewhere in these values is a path into, with all that they are made of."""
    root, found = store.root.resolve(), set[Path]()
    for text in _texts(values):
        if "/" in text and (path := Path(text).expanduser().resolve()).is_relative_to(root):
            parts = path.relative_to(root).parts
            if len(parts) > 1:
                found |= {one.folder.resolve() for one in store.ancestry(Artifact(store.root / parts[0] / parts[1]))}
    return found


def _texts(values: Any) -> Iterator[str]:
    if isinstance(values, str):
        yield values
    elif isinstance(values, dict):
        for key, value in values.items():
            yield key
            yield from _texts(value)
    elif isinstance(values, list):
        for value in values:
            yield from _texts(value)


def removable(
    store: RunStore, runs: Sequence[Run], current: Mapping[str, Mapping[str, Artifact]], trainers: bool = False
) -> list[Removable]:
    """What of these runs may go, children before what they are made of.

    current: by run and stage, the artifacts that the run's newest recipe makes, as far as that is known
    trainers: also the trainers' states of finished stages that another one has begun from
    """
    whole = _whole(store, runs, current)
    gone = {one.path.resolve() for one in whole}
    held = needed(store, gone)
    parts = [
        part
        for run in runs
        for artifact in run.artifacts
        if artifact.folder.resolve() not in gone and not running(artifact)
        for part in _parts(artifact, trainers and artifact.folder.resolve() in held)
    ]
    return whole + parts


def _whole(store: RunStore, runs: Sequence[Run], current: Mapping[str, Mapping[str, Artifact]]) -> list[Removable]:
    everything = [artifact for run in store.runs() for artifact in run.artifacts]
    # A manifest that cannot be read does not tell what it is made of; where a process works, neither does what it makes.
    certain = not any((artifact.done and not artifact.readable) or running(artifact) for artifact in everything)
    found: dict[Path, Removable] = {}
    while True:
        held, before = needed(store, found.keys()), len(found)
        for run in runs:
            now = current.get(run.name, {})
            for artifact in run.artifacts:
                why = _superseded(artifact, now) if artifact.done and certain else _given_up(artifact, run.artifacts, now)
                folder = artifact.folder.resolve()
                if why is not None and folder not in held and not (folder / KEPT).exists():
                    found.setdefault(folder, Removable(artifact.folder, artifact, why, artifact.done))
        if len(found) == before:
            return list(found.values())


def _superseded(artifact: Artifact, current: Mapping[str, Artifact]) -> str | None:
    """Finished, as is what the newest recipe of the run makes in its place."""
    now = current.get(artifact.stage)
    if not artifact.readable or artifact.by_command or now is None or not now.readable or now.name == artifact.name:
        return None
    return f"the recipe makes {now.name} now, and nothing is made of this one"


def _given_up(artifact: Artifact, others: Sequence[Artifact], current: Mapping[str, Artifact]) -> str | None:
    """Not finished, no process works on it, and the same stage has been finished since."""
    now = current.get(artifact.stage)
    if artifact.done or not artifact.state or running(artifact) or (now is not None and now.name == artifact.name):
        return None  # of the recipe's own the same command goes on from here
    finished = [one for one in others if one.stage == artifact.stage and one.done and changed(one) > changed(artifact)]
    return f"{status(artifact)}; {finished[-1].name} is finished since" if finished else None


def _parts(artifact: Artifact, trainer: bool) -> Iterator[Removable]:
    if artifact.done:
        for name in ("checkpoints", "best"):
            if (artifact.folder / name).is_dir():
                yield Removable(artifact.folder / name, artifact, "to go on from, and the stage is finished", True)
        if trainer and (artifact.folder / TRAINER).is_dir():
            yield Removable(artifact.folder / TRAINER, artifact, "the optimizer's moments: no new stage can carry them on", True)
    for path in _left_aside(artifact.folder):
        yield Removable(path, artifact, "left by a process that was killed while it wrote", artifact.done)


def _left_aside(folder: Path) -> Iterator[Path]:
    for path in entries(folder):
        if any(path.match(pattern) for pattern in LEFT_ASIDE):
            pid = path.name.rpartition("-")[2]
            if not pid.isdecimal() or not alive(int(pid)):
                yield path
        elif path.is_dir() and not path.is_symlink() and path.name != KEPT:
            yield from _left_aside(path)


def remove(found: Removable) -> int:
    """Remove it, the artifact held by this process meanwhile; returns the bytes that were there.

    Raises:
        StageFailed: another process works on the artifact, or has finished it since it was listed.
    """
    artifact = found.artifact
    with artifact.lock():
        if artifact.done != found.done:
            raise StageFailed("it has been finished meanwhile" if artifact.done else "it is made again meanwhile")
        freed = found.bytes
        if found.path != artifact.folder:
            if found.path.name == TRAINER:
                artifact.note_removed(TRAINER)
            _remove(found.path)
            return freed
        (artifact.folder / MANIFEST).unlink(missing_ok=True)  # what is half removed is not finished any more
        for path in entries(artifact.folder):
            if path.name != ".lock":
                _remove(path)
    shutil.rmtree(artifact.folder, ignore_errors=True)
    return freed


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
