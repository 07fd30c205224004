"""The folder of all runs: which there are, which is newest, and what a name on the command line means."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.runs.artifact import MANIFEST, Artifact
from llmctl.runs.files import expanded, read_json, write_json
from llmctl.runs.keys import KEY_LENGTH, digest
from llmctl.runs.state import status

RECIPE_FILE = "recipe.json"
RECIPES = ".recipes"
"""Folder of a run with every recipe that it was ever made from; `recipe.json` is the newest."""


def default_root() -> Path:
    return Path(os.environ.get("LLMCTL_RUNS") or "runs")


@dataclass(frozen=True)
class Run:
    """One recipe's artifacts."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def artifacts(self) -> list[Artifact]:
        """Oldest first."""
        found = [Artifact(path) for path in entries(self.folder) if path.is_dir() and not path.name.startswith(".")]
        return sorted(found, key=changed)

    @property
    def changed(self) -> float:
        return max([modified(self.folder / RECIPE_FILE), *(changed(artifact) for artifact in self.artifacts)])


def entries(folder: Path) -> list[Path]:
    """What is in a folder; nothing in one that was removed since it was listed."""
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []


def modified(file: Path) -> float:
    """In seconds since the epoch; 0 for a file that is not there."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def changed(artifact: Artifact) -> float:
    """When the artifact was last worked on, in seconds since the epoch."""
    return max(modified(artifact.folder / name) for name in (MANIFEST, "state.json"))


def unfinished(artifact: Artifact) -> UserError:
    return UserError(f"{artifact.folder}: not finished yet ({status(artifact)}); there is nothing to look at until it is")


class RunStore:
    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def of(cls, artifact: Artifact) -> "RunStore":
        """The folder of runs that an artifact lies in."""
        return cls(artifact.folder.parent.parent)

    def artifact(self, run: str, stage: str, key: str) -> Artifact:
        return Artifact(self.root / run / f"{stage}-{key}")

    def runs(self) -> list[Run]:
        """Newest first."""
        if not self.root.is_dir():
            return []
        found = [Run(path) for path in entries(self.root) if path.is_dir()]
        return sorted(found, key=lambda run: run.changed, reverse=True)

    def newest_run(self) -> Run:
        runs = self.runs()
        if not runs:
            raise UserError(f"{self.root}: no runs yet; start one with `llmctl run recipes/olmo_small.toml`")
        return runs[0]

    def record_recipe(self, run: str, origin: dict[str, Any]) -> None:
        """Note what the run is made from, so that commands without a recipe can go on with it."""
        folder = self.root / run
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / RECIPE_FILE, origin)
        kept = folder / RECIPES / f"{digest(origin)[:KEY_LENGTH]}.json"
        if not kept.exists():
            write_json(kept, origin)

    def recorded_recipe(self, run: str) -> dict[str, Any]:
        """Raises:
        UserError: none is recorded, or it cannot be read.
        """
        file = self.root / run / RECIPE_FILE
        if not file.is_file():
            raise UserError(f"{file}: missing; name the recipe on the command line")
        try:
            return read_json(file)
        except (OSError, ValueError) as error:
            raise UserError(f"{file}: cannot be read: {error}; name the recipe on the command line") from None

    def recorded_recipes(self, run: str) -> list[dict[str, Any]]:
        """Every recipe that the run was ever made from and that can be read, the newest first."""
        older = sorted(entries(self.root / run / RECIPES), key=modified, reverse=True)
        found: list[dict[str, Any]] = []
        for file in (self.root / run / RECIPE_FILE, *older):
            try:
                origin = read_json(file)
            except (OSError, ValueError):
                continue
            if isinstance(origin, dict) and origin not in found:
                found.append(origin)
        return found

    def checkpoints(self, run: Run | None = None) -> list[Artifact]:
        """Finished artifacts that hold a model, newest first; of one run, or of all."""
        runs = [run] if run is not None else self.runs()
        found = [a for r in runs for a in r.artifacts if (a.folder / "model").is_dir() and a.readable]
        return sorted(found, key=lambda a: a.manifest["ended"], reverse=True)

    def newest_checkpoint(self, run: Run | None = None) -> Artifact:
        found = self.checkpoints(run)
        if not found:
            raise UserError(
                f"{run.folder if run else self.root}: no finished checkpoint yet; make one with "
                "`llmctl pretrain recipes/olmo_small.toml`, or name a model folder"
            )
        return found[0]

    def find_checkpoint(self, text: str) -> Path:
        """The model folder that `text` means: a model folder, a stage's folder, RUN/STAGE, or STAGE of the newest run.

        Raises:
            UserError: nothing of that name; the message lists what there is.
        """
        path = expanded(text)
        for candidate in (path / "model", path):
            if (candidate / "config.json").is_file():
                return candidate
        if path.suffix == ".gguf" and path.is_file():
            return path
        for artifact in self.checkpoints_named(text):
            return artifact.folder / "model"
        known = ", ".join(dict.fromkeys(f"{a.run}/{a.stage}" for a in self.checkpoints())) or "none"
        raise UserError(f"{text!r} is no model folder and no checkpoint of a run in {self.root}; there are: {known}")

    def checkpoints_named(self, text: str) -> list[Artifact]:
        """The finished artifacts with a model that RUN/STAGE, or STAGE of any run, may mean, newest first."""
        run, _, stage = text.rpartition("/")
        return [a for a in self.checkpoints() if run in ("", a.run) and stage in (a.stage, a.name)]

    def find_artifact(self, text: str | None) -> Artifact:
        """The artifact that `text` means: as `find_checkpoint`; further the folder of any stage, RUN/STAGE of a stage without a
        model, and RUN, which is its newest finished one. None: of the newest run.

        Raises:
            UserError: it belongs to no run, or nothing is finished yet.
        """
        if text is None:
            return self.newest_finished(self.newest_run())
        path = expanded(text)
        if (path / MANIFEST).is_file():
            return Artifact(path.resolve())
        if (path / "state.json").is_file():
            raise unfinished(Artifact(path))
        if (self.root / text).is_dir() and (self.root / text).parent == self.root:
            return self.newest_finished(Run(self.root / text))
        run, _, stage = text.rpartition("/")
        named = [a for r in self.runs() if run in ("", r.name) for a in r.artifacts if stage in (a.stage, a.name)]
        if done := [artifact for artifact in named if artifact.done]:
            return max(done, key=changed)
        if named:
            raise unfinished(named[-1])
        owner = self.owner(self.find_checkpoint(text))
        if owner is None:
            raise UserError(f"{text}: a model folder without a manifest; only what llmctl made has a lineage")
        return owner

    def newest_finished(self, run: Run) -> Artifact:
        """Raises:
        UserError: nothing of the run is finished.
        """
        finished = [artifact for artifact in run.artifacts if artifact.readable]
        if not finished:
            raise UserError(f"{run.folder}: nothing is finished yet; `llmctl runs` shows where it stands")
        return max(finished, key=lambda artifact: artifact.manifest["ended"])

    def owner(self, path: Path) -> Artifact | None:
        """The finished artifact that a model folder belongs to; a kept model lies a folder deeper."""
        for folder in (path, path.parent, *([path.parent.parent] if path.parent.name == "kept" else [])):
            if (folder / MANIFEST).is_file():
                return Artifact(folder)
        return None

    def parents(self, artifact: Artifact) -> dict[str, Artifact]:
        """The artifacts that one is made of, by the names it knows them by; they need not be there any more."""
        root = artifact.folder.parent.parent  # which may be another folder of runs than this
        return {name: Artifact(root / parent["folder"]) for name, parent in artifact.manifest["parents"].items()}

    def ancestry(self, artifact: Artifact) -> list[Artifact]:
        """The artifact and all that it is made of, each once, and before what it is made of."""
        found: dict[Path, Artifact] = {}
        begun: set[Path] = set()

        def visit(one: Artifact) -> None:
            if one.folder not in begun:
                begun.add(one.folder)
                for parent in self.parents(one).values() if one.readable else ():
                    visit(parent)
                found[one.folder] = one

        visit(artifact)
        return list(found.values())[::-1]

    def model_parent(self, artifact: Artifact) -> Artifact | None:
        """The artifact of the model that another began with, where it is still there: of an average the first, of a merge the
        base."""
        parents, stage = self.parents(artifact), artifact.manifest["recipe"].get("stage")
        if stage is None:  # of a command: `llmctl average`, `llmctl merge`
            return next((parent for parent in parents.values() if (parent.folder / "model").is_dir()), None)
        parent = parents.get(stage.get("from") or next(iter(stage.get("of") or ()), ""))
        return parent if parent is not None and (parent.folder / "model").is_dir() else None

    def ancestor(self, artifact: Artifact, stage: str) -> Artifact | None:
        """The nearest artifact of the name `stage` among what an artifact is made of."""
        queue = [artifact]
        while queue:
            parents = self.parents(queue.pop(0))
            if stage in parents:
                return parents[stage]
            queue += [parent for parent in parents.values() if parent.readable]
        return None
