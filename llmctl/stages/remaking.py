"""What of a recipe is done already in its run's folder, and why the rest would be made."""

import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from llmctl.recipe.positions import leaves
from llmctl.recipe.schema import Recipe
from llmctl.runs.artifact import Artifact
from llmctl.runs.store import RunStore
from llmctl.stages.graph import build_graph
from llmctl.stages.node import Node
from llmctl.stages.runner import Runner

SHOWN = 4
"""Keys that are named at most."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a node of the graph stands."""

    node: str
    done: bool
    told: str


def standings(recipe: Recipe, store: RunStore) -> Iterator[Standing]:
    """Every node, parents first. Sources of this machine are read for their hashes, if the run has any artifact."""
    runner = Runner(recipe, store, lambda artifact: nullcontext())
    made: dict[str, Artifact] = {}
    for node in build_graph(recipe).values():
        missing = [name for name in node.parents if name not in made]
        if missing:
            yield Standing(node.name, False, f"is made after {', '.join(missing)}")
            continue
        artifact = runner.artifact(node, made)
        if artifact.done:
            made[node.name] = artifact
            yield Standing(node.name, True, "done before")
        else:
            yield Standing(node.name, False, why_made(node, artifact, newest_of(store, recipe.name, node.name), made))


def newest_of(store: RunStore, run: str, stage: str) -> Artifact | None:
    """The newest finished artifact of a stage, whatever it was made from."""
    artifacts = next((found.artifacts for found in store.runs() if found.name == run), [])
    return next((artifact for artifact in reversed(artifacts) if artifact.stage == stage and artifact.done), None)


def why_made(node: Node, artifact: Artifact, before: Artifact | None, made: dict[str, Artifact]) -> str:
    if "step" in artifact.state:
        return f"goes on at step {artifact.state['step']:,}"
    if before is None:
        return "is not there yet"
    changed = changes(node, before.manifest["recipe"])
    if changed:
        more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
        return f"would be made anew: {', '.join(changed[:SHOWN])}{more}"
    parents = before.manifest["parents"]
    other = [name for name in node.parents if parents.get(name, {}).get("output_hash") != made[name].output_hash]
    return f"would be made anew: {', '.join(other)} came out otherwise" if other else "would be made anew by this llmctl"


def changes(node: Node, before: dict[str, Any]) -> list[str]:
    """What decides the outcome and is no longer as it was, in the recipe's own keys."""
    then, now = dict(leaves(before)), dict(leaves(json.loads(json.dumps(node.identity))))
    return [
        f"{name_of(key, node.name)} was {shown(then.get(key))}, is {shown(now.get(key))}"
        if key[0] not in ("files", "outside", "taken over")
        else f"the files of {key[-1]} have changed"
        for key in dict.fromkeys([*now, *then])
        if then.get(key) != now.get(key)
    ]


def name_of(key: tuple[str, ...], node: str) -> str:
    return ".".join((node, *key[1:]) if key[0] == "stage" else key)


def shown(value: Any) -> str:
    text = "left out" if value in (None, {}) else json.dumps(value)
    return text if len(text) < 60 else f"{text[:56]}..."
