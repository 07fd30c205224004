"""Whether artifacts are as they were written, and still belong together."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from llmctl import events
from llmctl.runs.artifact import MANIFEST, Artifact, BrokenManifest, Problem
from llmctl.runs.keys import content_key, digest
from llmctl.runs.state import status
from llmctl.runs.store import RunStore
from llmctl.stages.inputs import Checked, Input, check_input, inputs_of

VERSIONS = range(1, 50)
"""Of the code of a stage. A manifest does not name it; a key that fits none was not made from this manifest."""
MOST_FILES = 2000
"""Of an artifact whose output hash is looked for among the beginnings of its list of files."""


@dataclass(slots=True)
class Verified:
    """What was found of one artifact."""

    artifact: Artifact
    standing: str
    problems: list[Problem] = field(default_factory=list)
    changed: list[Checked] = field(default_factory=list)
    """Inputs from outside that are others now. What was made of them is whole all the same."""


class Progress:
    """Bytes hashed, told as an event."""

    def __init__(self, artifacts: Sequence[Artifact]) -> None:
        sizes = [entry.get("bytes", 0) for one in artifacts if one.readable for entry in one.manifest["files"].values()]
        self.done, self.total = 0, sum(sizes)

    def read(self, size: int) -> None:
        self.done += size
        events.progress("hashing", min(self.done, self.total), self.total, "bytes")


def verify(artifacts: Sequence[Artifact]) -> list[Verified]:
    """Hash every file of these artifacts, and compare hashes and keys along the lineage."""
    progress, inputs = Progress(artifacts), dict[tuple[str, str | None], Checked]()
    return [_verify(artifact, progress, inputs) for artifact in artifacts]


def _verify(artifact: Artifact, progress: Progress, inputs: dict[tuple[str, str | None], Checked]) -> Verified:
    if not artifact.folder.is_dir():
        return Verified(artifact, "missing", [Problem(artifact.folder, "not there any more")])
    if not artifact.done:
        return Verified(artifact, status(artifact))
    found = Verified(artifact, "as written", artifact.problems(progress.read))
    if artifact.readable:
        found.problems += consistency(artifact)
        found.changed = [checked for one in inputs_of(artifact) if (checked := _once(one, inputs)).standing == "changed"]
    if found.problems:
        found.standing = f"{len(found.problems):,} problem{'s' if len(found.problems) > 1 else ''}"
    return found


def _once(one: Input, inputs: dict[tuple[str, str | None], Checked]) -> Checked:
    key = (one.place, one.sha256)
    if key not in inputs:
        inputs[key] = check_input(one)
    return inputs[key]


def consistency(artifact: Artifact) -> list[Problem]:
    """What in a manifest contradicts itself or the manifests of the parents."""
    manifest, file = artifact.manifest, artifact.folder / MANIFEST
    found = []
    for name, parent in RunStore.of(artifact).parents(artifact).items():
        recorded = manifest["parents"][name].get("output_hash")
        try:
            if parent.done and parent.output_hash != recorded:
                found.append(Problem(file, f"was made from another {name} than the one that is there ({parent.name})"))
        except BrokenManifest:  # told of the parent itself
            continue
    if not _key_fits(artifact):
        found.append(Problem(file, "its recipe or its parents are not those that the folder's key was made from"))
    if not _output_hash_fits(artifact):
        found.append(Problem(file, "its output_hash is not that of its files"))
    return found


def _key_fits(artifact: Artifact) -> bool:
    """True where the manifest is too old to tell."""
    manifest = artifact.manifest
    parents = {name: parent.get("output_hash", "") for name, parent in manifest["parents"].items()}
    keys = (content_key(manifest["kind"], version, manifest["recipe"], parents) for version in VERSIONS)
    return not manifest["recipe"] or artifact.key in keys


def _output_hash_fits(artifact: Artifact) -> bool:
    """The files that decide it stand first in the manifest, before those that are only kept."""
    files = [(path, entry.get("sha256")) for path, entry in artifact.manifest["files"].items()]
    if "output_hash" not in artifact.manifest or not 0 < len(files) <= MOST_FILES:
        return True
    return any(digest(sorted(files[:count])) == artifact.output_hash for count in range(len(files), -1, -1))
