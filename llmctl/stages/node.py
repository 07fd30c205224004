"""A node of a recipe's graph: what it is made from, what decides its outcome, and how it is made."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from llmctl.recipe.schema import Recipe
from llmctl.runs.artifact import Artifact


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a node leaves: folders and files that count for its content, others that are only kept, and its numbers."""

    outputs: list[str]
    kept: list[str] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Context:
    """What a node works with."""

    recipe: Recipe
    artifact: Artifact
    parents: dict[str, Artifact]
    """Artifacts of the nodes named in `Node.parents`."""
    ranks: int | None
    """Ranks to train on; None: as the stage's table says."""
    profile: bool = False
    """Whether a few steps are recorded by torch's profiler."""


@dataclass(frozen=True, slots=True)
class Node:
    name: str
    kind: str
    version: int
    """Raised when the code changes what the node makes from the same input."""
    parents: tuple[str, ...]
    identity: dict[str, Any]
    """The part of the recipe, and the fingerprints of files outside the run, that decide the outcome."""
    work: Callable[[Context], Outcome]
    trains: bool = False
    """Whether all ranks of a launcher take part; the others are made by rank 0 alone."""
