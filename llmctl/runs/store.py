"""The folder of all runs: which there are, which is newest, and what a name on the command line means."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.runs.artifact import MANIFEST, Artifact
from llmctl.runs.files import read_json, write_json

RECIPE_FILE = "recipe.json"


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
        found = [Artifact(path) for path in self.folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
        return sorted(found, key=changed)

    @property
    def changed(self) -> float:
        own = self.folder / RECIPE_FILE
        times = [changed(artifact) for artifact in self.artifacts]
        return max([own.stat().st_mtime if own.exists() else 0.0, *times])


def changed(artifact: Artifact) -> float:
    """When the artifact was last worked on, in seconds since the epoch."""
    times = [file.stat().st_mtime for name in (MANIFEST, "state.json") if (file := artifact.folder / name).exists()]
    return max(times, default=0.0)


class RunStore:
    def __init__(self, root: Path) -> None:
        self.root = root

    def artifact(self, run: str, stage: str, key: str) -> Artifact:
        return Artifact(self.root / run / f"{stage}-{key}")

    def runs(self) -> list[Run]:
        """Newest first."""
        if not self.root.is_dir():
            return []
        return sorted((Run(path) for path in self.root.iterdir() if path.is_dir()), key=lambda run: run.changed, reverse=True)

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

    def recorded_recipe(self, run: str) -> dict[str, Any]:
        file = self.root / run / RECIPE_FILE
        if not file.is_file():
            raise UserError(f"{file}: missing; name the recipe on the command line")
        return read_json(file)

    def checkpoints(self, run: Run | None = None) -> list[Artifact]:
        """Finished artifacts that hold a model, newest first; of one run, or of all."""
        runs = [run] if run is not None else self.runs()
        found = [a for r in runs for a in r.artifacts if a.done and (a.folder / "model").is_dir()]
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
        path = Path(text).expanduser()
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

    def owner(self, path: Path) -> Artifact | None:
        """The finished artifact that a model folder belongs to; a kept model lies a folder deeper."""
        for folder in (path, path.parent, *([path.parent.parent] if path.parent.name == "kept" else [])):
            if (folder / MANIFEST).is_file():
                return Artifact(folder)
        return None

    def parents(self, artifact: Artifact) -> dict[str, Artifact]:
        return {name: Artifact(self.root / parent["folder"]) for name, parent in artifact.manifest["parents"].items()}

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
            queue += [parent for parent in parents.values() if parent.done]
        return None
