"""Order of a recipe's stages, and the part of a stage that decides its outcome."""

from typing import Any, TypeVar

from pydantic import BaseModel

from llmctl.errors import UserError
from llmctl.recipe.schema import AverageTable, Recipe, StageTable, TrainTable

Stages = TypeVar("Stages", bound=StageTable)


def parents_of(stage: StageTable, recipe: Recipe) -> list[str]:
    """Names of the stages that this one is made from."""
    named = stage.of if isinstance(stage, AverageTable) else [stage.from_]
    return [name for name in named if name is not None and name in recipe.stages]


def line_of(recipe: Recipe, table: StageTable) -> list[StageTable]:
    """The stage, its parent, and so on to the one whose weights are new or from outside; of an average, the first. A circle ends
    where it closes, and is told elsewhere."""
    line = [table]
    while True:
        parent = line[-1].of[0] if isinstance(line[-1], AverageTable) else line[-1].from_
        if parent not in recipe.stages or parent in [stage.name for stage in line]:
            return line
        line.append(recipe.stages[parent])


def has_new_weights(stage: StageTable, recipe: Recipe) -> bool:
    """Whether a stage's weights go back to a model that the recipe makes, and not to one from outside."""
    first = line_of(recipe, stage)[-1]
    return first.from_ is None and not isinstance(first, AverageTable)


def stage_order(recipe: Recipe) -> list[Any]:
    """Stages, parents before children, otherwise as they are written. Stages in a circle are left out (see `check`)."""
    ordered: dict[str, StageTable] = {}
    while True:
        ready = [
            stage
            for name, stage in recipe.stages.items()
            if name not in ordered and all(parent in ordered for parent in parents_of(stage, recipe))
        ]
        if not ready:
            return list(ordered.values())
        ordered[ready[0].name] = ready[0]


def training_stage(recipe: Recipe, name: str | None) -> TrainTable:
    """The stage of that name; the first that trains, where none is named.

    Raises:
        UserError: the recipe has no such stage, or it does not train.
    """
    return named_or_first([table for table in recipe.stages.values() if isinstance(table, TrainTable)], name, "that trains")


def named_or_first(stages: list[Stages], name: str | None, what: str) -> Stages:
    """Raises:
    UserError: there is none of that name, or none at all.
    """
    known = [stage.name for stage in stages]
    if not stages or name not in (None, *known):
        raise UserError(f"the recipe has no stage {name or ''!r} {what}; it has {', '.join(known) or 'none'}")
    return stages[0] if name is None else stages[known.index(name)]


def identity(table: BaseModel) -> dict[str, Any]:
    """The fields that decide the outcome, as plain values."""
    values = table.model_dump(mode="json", by_alias=True)
    for name, info in type(table).model_fields.items():
        extra, key, inner = info.json_schema_extra, info.alias or name, getattr(table, name)
        if isinstance(extra, dict) and extra.get("role") == "execution":
            values.pop(key, None)
        elif isinstance(inner, BaseModel):
            values[key] = identity(inner)
    return values
