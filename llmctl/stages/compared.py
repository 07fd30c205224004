"""Which checkpoints `llmctl eval` puts beside each other, and the run whose held-out text they are measured on."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from llmctl import events
from llmctl.errors import UserError
from llmctl.recipe.load import restore_recipe
from llmctl.recipe.schema import Recipe
from llmctl.runs.artifact import Artifact
from llmctl.runs.store import RECIPE_FILE, Run, RunStore, default_root
from llmctl.stages.adapters import adapted, find_adapter
from llmctl.stages.scoring import Checkpoint
from llmctl.stages.session import find_or_newest


@dataclass(frozen=True, slots=True)
class Located:
    name: str
    model: str
    owner: Artifact | None = None
    """The finished artifact that the model belongs to."""
    base: str | None = None
    """Of an adapter; None: as `stages.adapters` finds it."""
    adapter: bool = False
    beside: str | None = None
    """Model that it is compared with."""


@dataclass(frozen=True, slots=True)
class Compared:
    checkpoints: list[Checkpoint]
    owners: dict[str, Artifact]
    """By the checkpoint's name: the finished artifact that it belongs to, if any."""
    corpus: Path | None
    recipe: Recipe | None

    @property
    def subject(self) -> Checkpoint:
        """The checkpoint that was asked for; of several the last."""
        return self.checkpoints[-1]


def resolve(names: Sequence[str], against: str | None, base: str | None, runs: Path | None) -> Compared:
    """One checkpoint is put beside its parent; several are each compared with their parent if it is among them, and else with the
    first; with `against` all are compared with that one.

    Raises:
        UserError: there is no such checkpoint.
    """
    store = RunStore(runs or default_root())
    found = [located(store, name, base) for name in names or (None,)]
    if base is not None and not any(one.adapter for one in found):
        raise UserError(f"--base {base}: {', '.join(names) or 'the newest checkpoint'} is no adapter in PEFT's format")
    last = found[-1]
    if against is not None:
        other = located(store, against, None)
        found = [other, *(replace(one, beside=other.model) for one in found)]
    elif len(found) > 1:
        found = [found[0], *(replace(one, beside=parent_among(found, one) or found[0].model) for one in found[1:])]
        found[0] = replace(found[0], beside=parent_among(found, found[0]))
    elif (parent := parent_of(store, last)) is not None:
        found = [parent, replace(last, beside=parent.model)]
    found = list({one.model: one for one in found}.values())  # the same one twice is one
    names_by_model = unique_names(found)
    corpus, recipe = text_of(store, last.owner)
    return Compared(
        [Checkpoint(names_by_model[one.model], one.model, names_by_model.get(one.beside or ""), one.base) for one in found],
        {names_by_model[one.model]: one.owner for one in found if one.owner is not None and not one.adapter},
        corpus,
        recipe,
    )


def located(store: RunStore, name: str | None, base: str | None) -> Located:
    """A checkpoint with the artifact that it belongs to. An adapter is scored as it is, on its base."""
    adapter = find_adapter(store, name) if name is not None else None
    if adapter is not None:
        stage = store.owner(adapter)
        shown = f"{stage.stage}/adapter" if stage is not None else adapter.name
        return Located(shown, str(adapter), stage, base, adapter=True)
    model = find_or_newest(store, name)
    owner = store.owner(Path(model))
    return Located(label(Path(model), owner), model, owner)


def parent_of(store: RunStore, one: Located) -> Located | None:
    """What a checkpoint began as; of an adapter its base."""
    if one.adapter:
        found = adapted(one.model, one.base)
        return None if found is None else located(store, found.base, None)
    parent = model_parent(one)
    return None if parent is None else Located(parent.stage, str(parent.folder / "model"), parent)


def model_parent(one: Located) -> Artifact | None:
    return None if one.owner is None else RunStore(one.owner.folder.parent.parent).model_parent(one.owner)


def parent_among(found: list[Located], one: Located) -> str | None:
    """The parent's model, where it is one of those found."""
    parent = None if one.adapter else model_parent(one)
    if parent is None:
        return None
    wanted = (parent.folder / "model").resolve()
    return next((other.model for other in found if Path(other.model).resolve() == wanted), None)


def unique_names(found: list[Located]) -> dict[str, str]:
    """What tables call each model: where two have the same name, their folders."""
    names = [one.name for one in found]
    return {one.model: one.name if names.count(one.name) == 1 else one.model for one in found}


def text_of(store: RunStore, owner: Artifact | None) -> tuple[Path | None, Recipe | None]:
    """The corpus and the recipe of a checkpoint's run, or else of the newest; which that is, is said aloud."""
    if owner is not None:  # which may be of another folder of runs than the one that is set
        store = RunStore(owner.folder.parent.parent)
        run = Run(owner.folder.parent)
    elif runs := [run for run in store.runs() if (run.folder / RECIPE_FILE).is_file()]:
        run = runs[0]
        print(f"held-out text, seed and tasks are those of the newest run, {run.name!r}", file=sys.stderr)
    else:
        return None, None
    corpus = store.ancestor(owner, "corpus") if owner is not None else None
    corpora = [artifact for artifact in run.artifacts if artifact.done and artifact.stage == "corpus"]
    if corpus is None and not corpora:
        events.warn(f"{run.folder}: no finished corpus, so that there is no held-out text; `llmctl curate` makes one")
    folder = corpus.folder if corpus is not None else corpora[-1].folder if corpora else None
    return folder, restore_recipe(store.recorded_recipe(run.name)["resolved"])


def label(model: Path, owner: Artifact | None) -> str:
    """What tables call a model: its stage, and of one that the stage keeps the step, too."""
    if owner is None:
        return model.name
    return f"{owner.stage}/{model.name}" if model.parent.name == "kept" else owner.stage
