"""What a recipe would make: its artifacts by name, as far as their keys are known. And which recipe made an artifact."""

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from llmctl.errors import UserError
from llmctl.recipe.load import restore_recipe
from llmctl.recipe.schema import Recipe
from llmctl.runs.artifact import Artifact
from llmctl.runs.keys import content_key
from llmctl.runs.store import Run, RunStore
from llmctl.stages.graph import build_graph
from llmctl.stages.node import Node

FINGERPRINTS = ("files", "outside", "taken over", "tasks")
"""Keys of an identity with hashes of things from outside, which may have changed since."""


def planned(recipe: Recipe, store: RunStore) -> dict[str, Artifact]:
    """The artifacts of a recipe whose parents are all done, whether they are done themselves or not.

    Raises:
        UserError: a task of an evaluation is not known.
    """
    found: dict[str, Artifact] = {}
    for name, node in build_graph(recipe).items():
        parents = {parent: found.get(parent) for parent in node.parents}
        hashes = {parent: one.output_hash for parent, one in parents.items() if one is not None and one.readable}
        if len(hashes) == len(node.parents):
            found[name] = store.artifact(recipe.name, name, content_key(node.kind, node.version, node.identity, hashes))
    return found


def current(store: RunStore, run: Run) -> dict[str, Artifact]:
    """What the newest recipe of a run makes; nothing where that cannot be told."""
    for origin in store.recorded_recipes(run.name)[:1]:
        try:
            recipe = restore_recipe(origin["resolved"])
            return planned(recipe, store) if recipe.name == run.name else {}
        except (UserError, ValidationError, KeyError, TypeError):  # of another version
            return {}
    return {}


def recipe_of(store: RunStore, artifact: Artifact) -> Recipe:
    """The recipe on record that describes an artifact and all that it is made of as their manifests do, whatever became of the
    files that it names. Where none does, the newest.

    Raises:
        UserError: there are not even manifests enough to make a recipe of.
    """
    line = [one for one in store.ancestry(artifact) if one.run == artifact.run and one.readable and not one.by_command]
    found = list(_candidates(store, artifact.run, line))
    if not found:
        raise UserError(f"{artifact.folder}: no recipe of its run can be read, and its manifests do not make one")
    return next((recipe for recipe in found if not differences(recipe, line)), found[0])


def differences(recipe: Recipe, line: Sequence[Artifact]) -> list[str]:
    """Names of the artifacts that the recipe does not describe as their manifests do."""
    try:
        graph = build_graph(recipe)
    except UserError:  # an evaluation's task that is not there any more
        return [one.stage for one in line]
    return [one.stage for one in line if not _describes(graph.get(one.stage), one)]


def _describes(node: Node | None, artifact: Artifact) -> bool:
    return node is not None and _without_fingerprints(node.identity) == _without_fingerprints(artifact.manifest["recipe"])


def _without_fingerprints(identity: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in identity.items() if key not in FINGERPRINTS}
    if "decontaminated" in kept:
        kept["decontaminated"] = kept["decontaminated"].get("sources")
    return kept


def _candidates(store: RunStore, run: str, line: Sequence[Artifact]) -> Iterator[Recipe]:
    """The recipes on record, the newest first; then one put together from the manifests over the newest."""
    origins = [origin["resolved"] for origin in store.recorded_recipes(run) if isinstance(origin.get("resolved"), dict)]
    for values in [*origins, _of_manifests(run, line, origins[0] if origins else {})]:
        try:
            yield restore_recipe(values)
        except (ValidationError, KeyError, TypeError):  # of an older version
            continue


def _of_manifests(run: str, line: Sequence[Artifact], beneath: dict[str, Any]) -> dict[str, Any]:
    values = {"name": run, "stages": {}} | beneath
    stages = dict(values["stages"])
    for artifact in line[::-1]:
        made = artifact.manifest["recipe"]
        if artifact.stage == "corpus":
            values |= {"corpus": _over(values.get("corpus"), made.get("corpus", {})), "seed": made.get("seed", 1)}
        elif artifact.stage == "tokenizer":
            values["tokenizer"] = made.get("tokenizer")
        elif artifact.stage == "eval":
            values["eval"] = made.get("eval", {})
        elif made.get("stage") is not None:
            stages[artifact.stage] = _over(stages.get(artifact.stage), made["stage"])
            values |= {"model": made["model"]} if made.get("model") is not None else {}
    return values | {"stages": stages}


def _over(below: Any, above: dict[str, Any]) -> dict[str, Any]:
    """`above` with the execution keys of `below`."""
    return {**(below if isinstance(below, dict) else {}), **above}
