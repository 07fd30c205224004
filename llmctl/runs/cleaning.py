"""What of the runs may go, and why. Nothing that is finished and current goes, nothing that anything else is made of, nothing
that a process works on, and no model that a stage was told to keep."""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from llmctl.errors import StageFailed
from llmctl.runs.artifact import LOCK, MANIFEST, Artifact
from llmctl.runs.files import expanded, left_aside
from llmctl.runs.state import running, status
from llmctl.runs.store import Run, RunStore, changed, entries

KEPT, TRAINER = "kept", "trainer"


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
                found |= _line(store, store.parents(artifact).values())
                found |= _named(store, artifact.manifest["recipe"])
        for origin in store.recorded_recipes(run.name):
            found |= _named(store, origin)
    return found


def awaited(store: RunStore, without: Set[Path]) -> set[Path]:
    """Folders of everything that a stage is made of which is not finished: where it goes on, it begins with them."""
    begun = [one for run in store.runs() for one in run.artifacts if not one.done and one.folder.resolve() not in without]
    parents = [store.root / str(name) for one in begun for name in one.state.get("parents", [])]
    return _line(store, map(Artifact, parents))


def _line(store: RunStore, artifacts: Iterable[Artifact]) -> set[Path]:
    """Folders of these artifacts, and of all that they are made of."""
    return {one.folder.resolve() for artifact in artifacts for one in store.ancestry(artifact)}


def _named(store: RunStore, values: Any) -> set[Path]:
    """Artifacts that a text somewhere in these values is a path into, with all that they are made of. A relative path may be
    seen from another folder than this one: any that goes through RUN/STAGE-KEY of the store counts."""
    root, found = store.root.resolve(), set[Path]()
    for text in _texts(values):
        if "/" in text:
            path = expanded(text)
            resolved = path.resolve()
            inside = resolved.relative_to(root).parts[:2] if resolved.is_relative_to(root) else ()
            named = {Path(*pair) for pair in [*pairwise(path.parts), inside] if len(pair) == 2}
            found |= _line(store, [Artifact(store.root / one) for one in named if os.path.isdir(store.root / one)])
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
    carried_on = needed(store, gone) - awaited(store, gone)
    parts = [
        part
        for run in runs
        for artifact in run.artifacts
        if artifact.folder.resolve() not in gone and not running(artifact)
        for part in _parts(artifact, trainers and artifact.folder.resolve() in carried_on)
    ]
    return whole + parts


def _whole(store: RunStore, runs: Sequence[Run], current: Mapping[str, Mapping[str, Artifact]]) -> list[Removable]:
    certain = _certain(store)
    found: dict[Path, Removable] = {}
    while True:
        held, before = needed(store, found.keys()) | awaited(store, found.keys()), len(found)
        for run in runs:
            now = current.get(run.name, {})
            for artifact in run.artifacts:
                why = _superseded(artifact, now) if artifact.done and certain else _given_up(artifact, run.artifacts, now)
                folder = artifact.folder.resolve()
                if why is not None and folder not in held and not (folder / KEPT).exists():
                    found.setdefault(folder, Removable(artifact.folder, artifact, why, artifact.done))
        if len(found) == before:
            return list(found.values())


def _certain(store: RunStore) -> bool:
    """Whether everything tells what it is made of. A manifest that cannot be read does not; where a process works, neither does
    what it makes next."""
    everything = [artifact for run in store.runs() for artifact in run.artifacts]
    return not any((artifact.done and not artifact.readable) or running(artifact) for artifact in everything)


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
        if left_aside(path):
            yield path
        elif path.is_dir() and not path.is_symlink() and path.name != KEPT:
            yield from _left_aside(path)


def remove(found: Removable) -> int:
    """Remove it, the artifact held by this process meanwhile; returns the bytes that were there.

    Raises:
        StageFailed: a process works on the artifact or has finished it since it was listed, or something is made of it now.
    """
    artifact = found.artifact
    _require_unneeded(found)
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
            if path.name != LOCK:
                _remove(path)
        if os.name != "nt":  # where no open file can be removed
            (artifact.folder / LOCK).unlink()
    if os.name == "nt":
        (artifact.folder / LOCK).unlink()
    if not entries(artifact.folder):  # the stage has not been begun again
        artifact.folder.rmdir()
    return freed


def _require_unneeded(found: Removable) -> None:
    """Raises:
    StageFailed: what held when it was listed does not hold any more.
    """
    store, folder = RunStore.of(found.artifact), found.artifact.folder.resolve()
    whole = found.path == found.artifact.folder
    if running(found.artifact) or (whole and found.done and not _certain(store)):
        raise StageFailed("a process has begun to work in these runs meanwhile")
    if whole and folder in needed(store, {folder}):
        raise StageFailed("something that is still there is made of it")
    if (whole or found.path.name == TRAINER) and folder in awaited(store, {folder}):
        raise StageFailed("a stage that is not finished begins with it")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
