"""`llmctl merge`: a base with adapters as one model, an artifact of a run or a plain folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl import events
from llmctl.errors import UserError
from llmctl.recipe.schema import Recipe
from llmctl.recipe.strangers import ADAPTER
from llmctl.runs.artifact import Artifact
from llmctl.runs.files import expanded, read_json, write_json
from llmctl.runs.store import RunStore, default_root
from llmctl.stages.averaging import Checkpoint, check_name, numbers_of, owned, parents_by_name, run_of
from llmctl.stages.node import Context, Node, Outcome
from llmctl.stages.runner import Runner
from llmctl.stages.session import Show, find_or_newest

VERSION = 1
RECORD = "merge.json"


@dataclass(frozen=True, slots=True)
class Merge:
    """What is merged, and how."""

    base: Checkpoint
    adapters: list[Checkpoint]
    weights: list[float]
    dtype: str
    tolerance: float | None

    def identity(self) -> dict[str, Any]:
        """Names and hashes of all that decides the outcome."""
        rows = [
            {"adapter": adapter.name, "sha256": adapter.fingerprint(), "weight": weight}
            for adapter, weight in zip(self.adapters, self.weights, strict=True)
        ]
        base = {"checkpoint": self.base.name, "sha256": self.base.fingerprint()}
        return {"base": base, "adapters": rows, "dtype": self.dtype, "tolerance": self.tolerance}

    def write(self, out: Path, record: bool = False) -> dict[str, float]:
        """Write the merged model to `out`, with a record of its origin if asked to; returns what was measured."""
        from llmctl.model.merge import write_merged

        def finish(folder: Path) -> None:
            if record:
                write_json(folder / RECORD, self.identity())

        folders = [adapter.folder for adapter in self.adapters]
        found = write_merged(str(self.base.folder), folders, self.weights, out, self.dtype, self.tolerance, finish)
        events.say(f"merged: {out}")
        events.say(found.told())
        return {"largest_logit_difference": found.off, "adapter_logit_difference": found.moved}


def merge_adapters(
    checkpoint: str,
    adapters: list[str],
    weights: str | None,
    dtype: str,
    tolerance: float | None,
    place: Path | tuple[str, str | None],
    runs: Path | None,
    show: Show,
) -> None:
    """Merge adapters into a base. Without `adapters` the checkpoint is a lora stage, whose adapter and base its manifest knows.

    place: a folder that is written, or the name of an artifact and of its run (None: that of the base, or of an adapter)

    Raises:
        UserError: something is not there or does not fit, or no run is known.
        StageFailed: the merged model computes something else than base and adapters.
    """
    store = RunStore(runs or default_root())
    if adapters:
        base, found = base_of(store, checkpoint), [adapter_of(store, text) for text in adapters]
    else:
        base, found = of_stage(store, checkpoint)
    shares = [1.0] * len(found) if weights is None else numbers_of(weights, len(found), "adapters")
    merge = Merge(base, found, shares, dtype, tolerance)
    if isinstance(place, Path):
        write_folder(merge, expanded(place))
        return
    name, run = place
    home = run_of(store, [base, *found], run, "or write a folder with --out")
    check_name(home, name, "merge")
    parents = parents_by_name([base, *found])
    node = Node(name, "merge", VERSION, tuple(parents), merge.identity(), lambda context: work(context, merge))
    Runner(Recipe(name=home.name), store, show).make_node(node, parents)


def work(context: Context, merge: Merge) -> Outcome:
    return Outcome(["model"], metrics=merge.write(context.artifact.folder / "model"))


def write_folder(merge: Merge, out: Path) -> None:
    """Raises:
    UserError: the folder holds something else already.
    """
    if (out / RECORD).is_file() and read_json(out / RECORD) == merge.identity():
        events.say(f"done before, {out}")
        return
    if out.exists():
        raise UserError(f"--out {out}: is there already, and is not this merge; name a folder that is not there")
    merge.write(out, record=True)


def base_of(store: RunStore, text: str) -> Checkpoint:
    """The model that `text` means: a folder, a GGUF file, RUN/STAGE, or a hub name.

    Raises:
        UserError: there is none.
    """
    from llmctl.model.average import local_folder

    if (expanded(text) / ADAPTER).is_file():
        raise UserError(f"{text} is an adapter; name the model that it belongs to first: llmctl merge BASE {text}")
    found = find_or_newest(store, text)
    return owned(store, Path(found) if found.endswith(".gguf") else local_folder(found))


def adapter_of(store: RunStore, text: str) -> Checkpoint:
    """The adapter that `text` means: a folder in PEFT's format, the folder of a stage, or RUN/STAGE.

    Raises:
        UserError: there is none.
    """
    path = expanded(text)
    for folder in (path, path / "adapter"):
        if (folder / ADAPTER).is_file():
            return owned(store, folder)
    if path.is_dir():
        raise UserError(f"{text}: no adapter in PEFT's format, which has an {ADAPTER}")
    return owned(store, stage_with_adapter(store, text).folder / "adapter")


def stage_with_adapter(store: RunStore, text: str) -> Artifact:
    """Raises:
    UserError: there is no finished stage of that name that left an adapter; the message lists those there are.
    """
    artifacts = [a for a in store.checkpoints() if (a.folder / "adapter" / ADAPTER).is_file()]
    place, named = expanded(text).resolve(), [a.folder for a in store.checkpoints_named(text)]
    for artifact in artifacts:
        if artifact.folder.resolve() in (place, place.parent) or artifact.folder in named:
            return artifact
    known = ", ".join(dict.fromkeys(f"{a.run}/{a.stage}" for a in artifacts)) or "none"
    raise UserError(
        f"{text!r} is no adapter in PEFT's format and no stage of a run in {store.root} that left one; there are: {known}. "
        "A base is followed by its adapters: llmctl merge BASE ADAPTER"
    )


def of_stage(store: RunStore, text: str) -> tuple[Checkpoint, list[Checkpoint]]:
    """Base and adapter of a lora stage.

    Raises:
        UserError: it left no adapter, or its base is not there any more.
    """
    path = expanded(text)
    if (path / ADAPTER).is_file() and store.owner(path) is None:
        raise UserError(f"{text} is an adapter; name the model that it belongs to first: llmctl merge BASE {text}")
    stage = stage_with_adapter(store, text)
    name = stage.manifest["recipe"]["stage"]["from"]
    parents = store.parents(stage)
    base = owned(store, parents[name].folder / "model") if name in parents else base_of(store, name)
    return base, [owned(store, stage.folder / "adapter")]
