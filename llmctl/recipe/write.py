"""A recipe as a TOML file that `load_recipe` reads back to the very same recipe."""

import json
import re
from typing import Any

from pydantic import BaseModel

from llmctl.recipe.load import PLAIN_STAGES
from llmctl.recipe.schema import Recipe

BARE = re.compile(r"[A-Za-z0-9_-]+")


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
    own = [f"{_key(key)} = {_value(value)}" for key, value in table.items() if key not in inner]
    head = ["", f"[{'.'.join(map(_key, path))}]"] if path and (own or not inner) else []
    return [*head, *own, *(line for key, value in inner.items() for line in toml_lines(value, (*path, key)))]


def _key(name: str) -> str:
    return name if BARE.fullmatch(name) else _text(name)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_key(key)} = {_value(inner)}' for key, inner in value.items())}}}"
    return str(value)


def _float(value: float) -> str:
    text = repr(value)
    return text if any(mark in text for mark in ".einf") else f"{text}.0"


def _text(text: str) -> str:
    """JSON's strings are TOML's, but for the delete character, which TOML wants escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
