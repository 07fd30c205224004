"""`llmctl average`: the mean of checkpoints that are there already, as an artifact of a run."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl import events
from llmctl.errors import UserError
from llmctl.recipe.fields import NAME
from llmctl.recipe.schema import RESERVED, Recipe
from llmctl.runs.artifact import Artifact
from llmctl.runs.keys import digest, fingerprint_path
from llmctl.runs.store import Run, RunStore, default_root
from llmctl.stages.average import VERSION
from llmctl.stages.node import Context, Node, Outcome
from llmctl.stages.runner import Runner
from llmctl.stages.session import Show, find_or_newest


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model to average, or an adapter to merge."""

    folder: Path
    owner: Artifact | None
    """The finished artifact of the same store that the folder belongs to."""

    @property
    def name(self) -> str:
        """RUN/STAGE-KEY/FOLDER, or the whole path of a model from outside."""
        if self.owner is None:
            return str(self.folder.resolve())
        inside = self.folder.resolve().relative_to(self.owner.folder.resolve())
        return f"{self.owner.run}/{self.owner.name}/{inside}"

    def fingerprint(self) -> str:
        """sha256 of the files: by the owner's manifest, or else of the bytes that are there."""
        if self.owner is None:
            return fingerprint_path(self.folder)
        inside = f"{self.folder.resolve().relative_to(self.owner.folder.resolve())}/"
        files = {path: entry["sha256"] for path, entry in self.owner.manifest["files"].items() if path.startswith(inside)}
        return digest(sorted(files.items())) if files else fingerprint_path(self.folder)


def average_checkpoints(
    names: list[str], weights: str | None, name: str, run: str | None, runs: Path | None, show: Show
) -> Artifact:
    """Average the checkpoints of these names, and leave the artifact `name` in `run` (None: the run of the first of them that
    belongs to one). The same again does nothing.

    Raises:
        UserError: a checkpoint is not there or does not fit the first one, a weight is wrong, or no run is known.
    """
    store = RunStore(runs or default_root())
    if len(names) < 2:
        raise UserError("an average takes two checkpoints or more")
    shares = shares_of(weights, len(names))
    checkpoints = [find(store, text) for text in names]
    home = run_of(store, checkpoints, run)
    check_name(home, name)
    parents = parents_by_name(checkpoints)
    decides = identity(checkpoints, shares)
    node = Node(name, "average", VERSION, tuple(parents), decides, lambda context: work(context, checkpoints, shares))
    return Runner(Recipe(name=home.name), store, show).make_node(node, parents)


def shares_of(weights: str | None, count: int) -> list[float]:
    """Weights as they are typed ("1,2,3"), normalised; equal ones if there are none.

    Raises:
        UserError: they are no weights of so many checkpoints.
    """
    from llmctl.model.average import normalised

    return normalised([1.0] * count if weights is None else numbers_of(weights, count, "checkpoints"))


def numbers_of(weights: str, count: int, of: str) -> list[float]:
    """Weights as they are typed.

    Raises:
        UserError: they are no numbers, or not so many.
    """
    try:
        numbers = [float(part) for part in weights.split(",")]
    except ValueError:
        raise UserError(f"--weights {weights}: expected numbers with commas between, as in 1,2,3") from None
    if len(numbers) != count:
        raise UserError(f"--weights {weights}: {len(numbers)} weights for {count} {of}")
    return numbers


def find(store: RunStore, text: str) -> Checkpoint:
    from llmctl.model.average import local_folder

    return owned(store, local_folder(find_or_newest(store, text)))


def owned(store: RunStore, folder: Path) -> Checkpoint:
    """A folder of weights with the artifact of the store that it belongs to."""
    owner = store.owner(folder)
    inside = owner is not None and owner.folder.parent.parent.resolve() == store.root.resolve()
    return Checkpoint(folder, owner if inside else None)


def run_of(store: RunStore, checkpoints: list[Checkpoint], run: str | None, otherwise: str = "") -> Run:
    """Raises:
    UserError: there is no run of that name, or none is named and no checkpoint lies in one.
    """
    known = {one.name: one for one in store.runs()}
    listed = ", ".join(known) or "none"
    if run is not None:
        if run not in known:
            raise UserError(f"--run {run}: no such run in {store.root}; there are: {listed}")
        return known[run]
    root = store.root.resolve()
    for checkpoint in checkpoints:  # also one that a stage keeps which is not done yet
        folder = checkpoint.folder.resolve()
        if folder.is_relative_to(root) and (found := folder.relative_to(root).parts[0]) in known:
            return known[found]
    where = f"name the run to put it in with --run: {listed}" + (f"; {otherwise}" if otherwise else "")
    raise UserError(f"no checkpoint here belongs to a run in {store.root}; {where}")


def check_name(run: Run, name: str, kind: str = "average") -> None:
    """Raises:
    UserError: it names no folder, or something of the run of another kind.
    """
    if not re.match(NAME, name):
        raise UserError(f"--name {name}: expected letters, digits, and _ . - between them")
    others = {artifact.stage for artifact in run.artifacts if artifact.state.get("kind", kind) != kind}
    if name in {*RESERVED, *others}:
        raise UserError(f"--name {name}: {run.name} has something else of that name; take another one")


def parents_by_name(checkpoints: list[Checkpoint]) -> dict[str, Artifact]:
    """The artifacts that the checkpoints belong to, each once; by stage, or more exactly where two stages are of one name."""
    owners = {owner.folder.resolve(): owner for checkpoint in checkpoints if (owner := checkpoint.owner) is not None}
    stages = [owner.stage for owner in owners.values()]
    return {o.stage if stages.count(o.stage) == 1 else f"{o.run}/{o.name}": o for o in owners.values()}


def identity(checkpoints: list[Checkpoint], shares: list[float]) -> dict[str, Any]:
    rows = [
        {"checkpoint": checkpoint.name, "sha256": checkpoint.fingerprint(), "weight": share}
        for checkpoint, share in zip(checkpoints, shares, strict=True)
    ]
    return {"checkpoints": rows}


def work(context: Context, checkpoints: list[Checkpoint], shares: list[float]) -> Outcome:
    from llmctl.model.average import write_average
    from llmctl.tokens.tokenizer import load_tokenizer

    folders = [checkpoint.folder for checkpoint in checkpoints]
    write_average(folders, shares, load_tokenizer(str(folders[0])), context.artifact.folder / "model")
    events.say(f"mean of {len(folders)} checkpoints: {context.artifact.folder / 'model'}")
    return Outcome(["model"])
