"""`llmctl diff`: in what two recipes, runs or checkpoints differ."""

from dataclasses import dataclass, field
from typing import Any

from llmctl.runs.artifact import Artifact
from llmctl.stages.score_difference import ScoreRow, compare_scores
from llmctl.stages.sides import Side, Values, circumstances, configuration, data, shape
from llmctl.stages.weight_difference import MOST_BYTES, compare_weights, weight_bytes


@dataclass(frozen=True, slots=True)
class Changed:
    key: str
    first: Any
    second: Any
    decides: bool = True
    """Of a recipe's key: whether it decides the outcome."""


@dataclass(frozen=True, slots=True)
class Difference:
    first: Side
    second: Side
    only: dict[str, str] = field(default_factory=dict)
    """Stages that one side alone has, with its name."""
    recipe: list[Changed] = field(default_factory=list)
    data: list[Changed] = field(default_factory=list)
    shape: list[Changed] = field(default_factory=list)
    scores: list[ScoreRow] = field(default_factory=list)
    circumstances: list[Changed] = field(default_factory=list)
    weights: dict[str, float | None] | None = None
    """Relative distance by kind of tensor; None where they were not compared."""

    @property
    def deciding(self) -> list[Changed]:
        return [one for one in self.recipe if one.decides]

    @property
    def same(self) -> bool:
        """Whether they are the same bits; of a recipe, whether it makes the same."""
        one, other = self.first.artifact, self.second.artifact
        if one is not None and other is not None:
            return one.output_hash == other.output_hash
        return not self.only and not self.deciding

    @property
    def verdict(self) -> str:
        one, other = self.first.artifact, self.second.artifact
        count = len(self.deciding)
        if one is not None and other is not None and self.same:
            return "the same bits" + (", though their recipes differ" if count else "")
        if self.only or count:
            told = [f"stage {name} is in {side} alone" for name, side in self.only.items()]
            if count:
                told.append(
                    f"{count:,} keys that decide the outcome differ" if count > 1 else "one key that decides the outcome differs"
                )
            return f"another recipe: {', '.join(told)}"
        if one is None or other is None:
            return "the same recipe" + ("; what differs changes nothing of the outcome" if self.recipe else "")
        if any(row.key == "corpus" for row in self.data):
            return "the same recipe, other data"
        return "the same recipe and the same data, other bits" + ("; versions or hardware differ" if self.circumstances else "")


def compare(first: Side, second: Side) -> Difference:
    stages = [first.narrowed(second), second.narrowed(first)]
    only = {name: first.name for name in stages[0] if name not in stages[1]}
    only |= {name: second.name for name in stages[1] if name not in stages[0]}
    shared = [name for name in stages[0] if name in stages[1]]
    artifacts = [side.artifact for side in (first, second) if side.artifact is not None]
    both = len(artifacts) == 2
    return Difference(
        first,
        second,
        only,
        compare_recipes(first, second, shared),
        changes(data(first), data(second)) if both else [],
        changes(shape(first), shape(second)) if both else [],
        _scores(*artifacts) if both else [],
        changes(circumstances(first), circumstances(second)) if both else [],
        _weights(*artifacts) if both else None,
    )


def compare_recipes(first: Side, second: Side, stages: list[str]) -> list[Changed]:
    evaluation = first.measures and second.measures
    (one, decides), (other, too) = (configuration(side, stages, evaluation) for side in (first, second))
    return [Changed(row.key, row.first, row.second, row.key in decides | too) for row in changes(one, other)]


def changes(first: Values, second: Values) -> list[Changed]:
    """Keys with other values; one that is not there is None."""
    keys = dict.fromkeys([*first, *second])
    return [Changed(key, first.get(key), second.get(key)) for key in keys if first.get(key) != second.get(key)]


def _scores(first: Artifact, second: Artifact) -> list[ScoreRow]:
    """Of the same bits, only what was found otherwise all the same."""
    rows = compare_scores(first, second)
    return rows if first.output_hash != second.output_hash else [row for row in rows if row.first != row.second]


def _weights(first: Artifact, second: Artifact) -> dict[str, float | None] | None:
    models = [one.folder / "model" for one in (first, second)]
    if not all(model.is_dir() for model in models) or first.output_hash == second.output_hash:
        return None
    if max(map(weight_bytes, models)) > MOST_BYTES:
        return None
    return compare_weights(*models)
