"""`llmctl eval`: which checkpoints are measured, by what, and where the numbers go."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

from llmctl import events
from llmctl.errors import UserError
from llmctl.recipe.load import restore_recipe
from llmctl.recipe.schema import EvalTable, Recipe
from llmctl.runs.artifact import Artifact
from llmctl.runs.files import write_json
from llmctl.runs.store import Run, RunStore, default_root
from llmctl.stages.adapters import find_adapter
from llmctl.stages.measure import Precision
from llmctl.stages.scoring import Checkpoint, Request, score
from llmctl.stages.session import find_or_newest


@dataclass(frozen=True, slots=True)
class Compared:
    """Checkpoints beside each other, and the run whose held-out text they are measured on."""

    checkpoints: list[Checkpoint]
    owners: dict[str, Artifact]
    """By the checkpoint's name: the finished artifact that it belongs to, if any."""
    corpus: Path | None
    recipe: Recipe | None

    @property
    def subject(self) -> Checkpoint:
        """The checkpoint that was asked for; with several the last."""
        return self.checkpoints[-1]


@dataclass(frozen=True, slots=True)
class Measures:
    """What `llmctl eval` measures; None: as the recipe says, or else its defaults."""

    names: tuple[str, ...] = ()
    """Suites and tasks; empty: the recipe's."""
    tasks: bool = True
    few_shot: bool = False
    shots: int | None = None
    questions: int | None = None
    """0: all."""
    seed: int | None = None
    chat: bool = False
    allow_code: bool = False
    show: int = 0
    precision: Precision = "auto"
    harness_tasks: Path | None = None
    long: bool = False
    plots: Path | None = None

    def request(self, recipe: Recipe | None) -> Request:
        table = recipe.eval if recipe is not None else EvalTable()
        questions = table.questions if self.questions is None else self.questions or None
        seed = self.seed if self.seed is not None else recipe.seed if recipe is not None else 1
        drawn = tuple(sorted({0, table.shots})) if self.few_shot and self.shots is None else (0,)
        return Request(
            self.names or tuple(table.suites),
            seed,
            questions,
            self.shots,
            drawn,
            self.chat,
            self.allow_code,
            self.show,
            self.precision,
            self.harness_tasks,
        )


def questions_of(text: str | None) -> int | None:
    """The number that `--questions` means; 0: all.

    Raises:
        UserError: it is none.
    """
    if text is None or text == "all":
        return None if text is None else 0
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"--questions {text}: expected a number from 1 on, or all")
    return int(text)


def precision_of(text: str) -> Precision:
    """Raises:
    UserError: it is no precision.
    """
    if text not in get_args(Precision):
        raise UserError(f"--precision {text}: expected {', '.join(get_args(Precision))}")
    return cast(Precision, text)


def evaluate_checkpoints(
    names: Sequence[str], wanted: Measures, against: str | None, base: str | None, json_file: Path | None, runs: Path | None
) -> None:
    """Score checkpoints beside a parent or another one: tables, JSON, a note in the manifests of those that belong to a run."""
    from llmctl.stages.score_tables import plain, show, show_prompts

    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise UserError(f"--json {json_file}: there is no folder {json_file.parent}")
    compared = resolve(names, against, base, runs)
    values: dict[str, Any] = {"model": compared.subject.model}
    if wanted.tasks:
        scores = score(compared.checkpoints, wanted.request(compared.recipe), compared.corpus, compared.recipe)
        show_prompts(scores)
        show(scores)
        values |= plain(scores)
        for row in values["results"]:
            if row["checkpoint"] in compared.owners:
                compared.owners[row["checkpoint"]].note_evaluation(row)
    if wanted.long:
        from llmctl.stages.long_eval import evaluate_long

        if compared.corpus is None or compared.recipe is None:
            raise UserError("--long measures on the held-out text of a run, and there is none")
        values["long"] = evaluate_long(compared.checkpoints, compared.corpus, compared.recipe, wanted.plots)
    if json_file is not None:
        write_json(json_file, values)


def resolve(names: Sequence[str], against: str | None, base: str | None, runs: Path | None) -> Compared:
    """One checkpoint is put beside its parent, several are each compared with their parent if it is among them, and else with the
    first; with `against` all are compared with that one.

    Raises:
        UserError: there is no such checkpoint.
    """
    store = RunStore(runs or default_root())
    found = [located(store, name, base) for name in names or (None,)]
    first, owner = found[-1]
    if against is not None:
        other = located(store, against, None)
        found = [other, *((replace(one, parent=other[0].name), its) for one, its in found if one.model != other[0].model)]
    elif len(found) > 1:
        found = [(replace(one, parent=parent_among(found, one, its)), its) for one, its in found]
    elif owner is not None and (parent := parent_model(owner)) is not None and first.base is None:
        found = [(Checkpoint(parent.stage, str(parent.folder / "model")), parent), (replace(first, parent=parent.stage), owner)]
    found = with_own_names(found)
    corpus, recipe = text_of(store, owner)
    return Compared([one for one, _ in found], {one.name: its for one, its in found if its is not None}, corpus, recipe)


def located(store: RunStore, name: str | None, base: str | None) -> tuple[Checkpoint, Artifact | None]:
    """A checkpoint with the artifact that it belongs to; an adapter is scored as it is."""
    adapter = find_adapter(store, name) if name is not None else None
    if adapter is not None:
        owner = store.owner(adapter)
        return Checkpoint(f"{owner.stage}/adapter" if owner is not None else adapter.name, str(adapter), base=base), None
    if base is not None:
        raise UserError(f"--base {base}: {name or 'the newest checkpoint'} is no adapter in PEFT's format")
    model = find_or_newest(store, name)
    owner = store.owner(Path(model))
    return Checkpoint(label(Path(model), owner), model), owner


def parent_model(owner: Artifact) -> Artifact | None:
    """The model that an artifact was made from."""
    parents = RunStore(owner.folder.parent.parent).parents(owner)
    return next((parent for parent in reversed(parents.values()) if (parent.folder / "model").is_dir()), None)


def parent_among(found: list[tuple[Checkpoint, Artifact | None]], one: Checkpoint, owner: Artifact | None) -> str | None:
    """The name of the parent of a checkpoint, where it is one of those found; else the first's, and none for the first."""
    parent = parent_model(owner) if owner is not None else None
    if parent is not None:
        for other, its in found:
            if its is not None and its.folder.resolve() == parent.folder.resolve() and other is not one:
                return other.name
    return None if one is found[0][0] else found[0][0].name


def with_own_names(found: list[tuple[Checkpoint, Artifact | None]]) -> list[tuple[Checkpoint, Artifact | None]]:
    """Checkpoints whose names are the same get those of their folders."""
    names = [one.name for one, _ in found]
    if len(set(names)) == len(names):
        return found
    longer = {one.name: one.model for one, _ in found if names.count(one.name) > 1}
    unique = [
        (replace(one, name=one.model if one.name in longer else one.name, parent=longer.get(one.parent or "", one.parent)), its)
        for one, its in found
    ]
    return list({one.model: (one, its) for one, its in unique}.values())


def text_of(store: RunStore, owner: Artifact | None) -> tuple[Path | None, Recipe | None]:
    """The corpus and the recipe of a checkpoint's run, or else of the newest; which that is, is said aloud."""
    if owner is not None:  # which may be of another folder of runs than the one that is set
        store = RunStore(owner.folder.parent.parent)
        run = Run(owner.folder.parent)
    elif runs := store.runs():
        run = runs[0]
        print(f"held-out text, seed and tasks are those of the newest run, {run.name!r}", file=sys.stderr)
    else:
        return None, None
    corpora = [artifact for artifact in run.artifacts if artifact.done and artifact.stage == "corpus"]
    corpus = store.ancestor(owner, "corpus") if owner is not None else None
    corpora = [corpus] if corpus is not None else corpora
    if not corpora:
        events.warn(f"{run.folder}: no finished corpus, so that there is no held-out text; `llmctl curate` makes one")
    recipe = restore_recipe(store.recorded_recipe(run.name)["resolved"])
    return (corpora[-1].folder if corpora else None), recipe


def label(model: Path, owner: Artifact | None) -> str:
    """What tables call a model: its stage, and of one that the stage keeps the step, too."""
    if owner is None:
        return model.name
    return f"{owner.stage}/{model.name}" if model.parent.name == "kept" else owner.stage
