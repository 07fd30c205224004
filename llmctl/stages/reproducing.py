"""`llmctl reproduce`: the recipe and the commands that make a checkpoint again, and whether what it was made from is the same."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.recipe.fields import is_path
from llmctl.recipe.schema import Recipe
from llmctl.recipe.write import recipe_text
from llmctl.runs.artifact import Artifact
from llmctl.runs.files import expanded, require_writable_folder, write_text
from llmctl.runs.machine import hardware, versions
from llmctl.runs.store import RunStore
from llmctl.stages.commands import requirements, script
from llmctl.stages.inputs import Checked, all_inputs, check_input
from llmctl.stages.planned import planned, recipe_of

SCRIPT, REQUIREMENTS = "commands.sh", "requirements.txt"
OF_MACHINE = ("processor", "cores", "gpus")


@dataclass(frozen=True, slots=True)
class Reproduction:
    artifact: Artifact
    folder: Path
    files: list[str]
    inputs: list[Checked]
    other_keys: list[str]
    """Stages that the recipe written would make under another key than they have."""
    environment: list[str]
    """What is another version or machine here than there: the bits may differ."""

    @property
    def same(self) -> bool:
        """Whether all that decides the outcome is as it was."""
        return not self.other_keys and all(one.standing != "changed" for one in self.inputs)


def reproduce(store: RunStore, checkpoint: str | None, out: Path | None) -> Reproduction:
    """Write the recipes, the commands and the versions of what `checkpoint` means.

    Raises:
        UserError: there is none, something that it is made of cannot be read, or the folder holds something else.
    """
    artifact = store.find_artifact(checkpoint)
    store = RunStore.of(artifact)
    line = store.ancestry(artifact)[::-1]
    if missing := [one for one in line if not one.readable]:
        raise UserError(
            f"{missing[0].folder}: {'its manifest cannot be read' if missing[0].done else 'not there any more'}, and "
            f"{artifact.name} is made of it; without it nothing tells how it was made"
        )
    recipes = recipes_for(store, targets_in(line))
    texts = {file: recipe_text(recipe) for file, (recipe, _) in recipes.items()}
    inputs = [check_input(one) for one in all_inputs(line)]
    relative = [one.input.place for one in inputs if is_path(one.input.place) and _is_relative_here(one.input.place)]
    commands = script(artifact, line, {file: made for file, (_, made) in recipes.items()}, str(Path.cwd()) if relative else None)
    texts |= {SCRIPT: commands, REQUIREMENTS: requirements(artifact)}
    folder = out or Path(f"reproduce-{artifact.run}-{artifact.stage}")
    write_folder(folder, texts)
    keys = [key for recipe, _ in recipes.values() for key in other_keys(store, recipe, line)]
    return Reproduction(artifact, folder, list(texts), inputs, list(dict.fromkeys(keys)), list(environment_changes(artifact)))


def targets_in(line: Sequence[Artifact]) -> list[Artifact]:
    """What recipes must make: the artifact itself, or what a chain of averages and merges begins with."""
    last = line[-1]
    if not last.by_command:
        return [last]
    hand = [one for one in line if one.by_command]
    parents = {parent.folder for one in hand for parent in RunStore.of(one).parents(one).values()}
    return [one for one in line if one.folder in parents and not one.by_command]


def recipes_for(store: RunStore, targets: Sequence[Artifact]) -> dict[str, tuple[Recipe, list[Artifact]]]:
    """By file name, each recipe that is needed with the targets that it makes."""
    found: list[tuple[Recipe, list[Artifact]]] = []
    for target in targets:
        recipe = recipe_of(store, target)
        for known, made in found:
            if known == recipe:
                made.append(target)
                break
        else:
            found.append((recipe, [target]))
    return {f"recipe{'' if number == 1 else f'-{number}'}.toml": one for number, one in enumerate(found, start=1)}


def write_folder(folder: Path, texts: dict[str, str]) -> None:
    """Raises:
    UserError: nothing can be written there, or it holds files that are none of these.
    """
    require_writable_folder(folder)
    others = sorted(path.name for path in folder.iterdir() if path.name not in texts or path.is_dir()) if folder.is_dir() else []
    if others:
        raise UserError(f"--out {folder}: holds something else already ({', '.join(others[:3])}); name another folder")
    for name, text in texts.items():
        write_text(folder / name, text)


def other_keys(store: RunStore, recipe: Recipe, line: Sequence[Artifact]) -> Iterator[str]:
    """Stages of the line that the recipe gives another key, as far as their parents' are the same."""
    there = {one.stage: one for one in line if one.run == recipe.name and not one.by_command}
    for name, artifact in planned(recipe, store).items():
        if name in there and artifact.key != there[name].key and artifact.folder not in [one.folder for one in line]:
            yield name


def environment_changes(artifact: Artifact) -> Iterator[str]:
    there = artifact.manifest
    for name, then in there["versions"].items():
        if (now := versions().get(name)) != then:
            yield f"{name} {now or 'is not installed'}; was {then}"
    here: dict[str, Any] = hardware()
    for name in OF_MACHINE:
        if name in there["hardware"] and here[name] != there["hardware"][name]:
            yield f"{name} {_told(here[name])}; was {_told(there['hardware'][name])}"


def _told(value: Any) -> str:
    return ", ".join(value) or "none" if isinstance(value, list) else str(value)


def _is_relative_here(place: str) -> bool:
    path = expanded(place)
    return not path.is_absolute() and path.exists()
