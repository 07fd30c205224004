"""A recipe as a TOML file that `load_recipe` reads back to the very same recipe."""

from typing import Any

from pydantic import BaseModel

from llmctl.recipe.load import PLAIN_STAGES
from llmctl.recipe.schema import Recipe
from llmctl.recipe.toml_text import key_text, written


def recipe_text(recipe: Recipe) -> str:
    """Every key that decides the outcome is written, also where it has its default, as a later version may have another one. Of
    the others those that were set."""
    values, named = without_none(_chosen(recipe) | {"stages": {}}), dict[str, Any]()
    del values["stages"]
    for name, stage in recipe.stages.items():
        table = {key: value for key, value in without_none(_chosen(stage)).items() if key not in ("name", "kind")}
        if name == stage.kind and name in PLAIN_STAGES:
            values[name] = table
        else:
            named[name] = {"kind": stage.kind} | table
    return "\n".join(toml_lines(values | ({"stage": named} if named else {}))) + "\n"


def _chosen(table: BaseModel) -> dict[str, Any]:
    values = table.model_dump(mode="json", by_alias=True)
    for name, info in type(table).model_fields.items():
        extra, key, inner = info.json_schema_extra, info.alias or name, getattr(table, name)
        if isinstance(extra, dict) and extra.get("role") == "execution" and inner == info.default:
            del values[key]
        elif isinstance(inner, BaseModel):
            values[key] = _chosen(inner)
    return values


def without_none(value: Any) -> Any:
    """TOML has no null: a key that is None is left out, which means the same in every table of a recipe."""
    if isinstance(value, dict):
        return {key: without_none(inner) for key, inner in value.items() if inner is not None}
    return [without_none(inner) for inner in value] if isinstance(value, list | tuple) else value


def toml_lines(table: dict[str, Any], path: tuple[str, ...] = ()) -> list[str]:
    """A table of plain values: its own keys first, then the tables in it."""
    inner = {key: value for key, value in table.items() if isinstance(value, dict)}
    own = [f"{key_text(key)} = {written(value)}" for key, value in table.items() if key not in inner]
    head = ["", f"[{'.'.join(map(key_text, path))}]"] if path and (own or not inner) else []
    return [*head, *own, *(line for key, value in inner.items() for line in toml_lines(value, (*path, key)))]
