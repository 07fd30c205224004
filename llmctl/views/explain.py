"""What a key of the recipe means, from the schema itself."""

import difflib
import json
import types
import typing
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from llmctl.errors import UserError
from llmctl.recipe.quantities import Duration, Length, Size, Tokens
from llmctl.recipe.schema import STAGE_TABLES, Recipe

QUANTITIES = {
    'tokens of a row, as 4096 or "64k"': Length,
    'tokens, as 1500000 or "5B"': Tokens,
    'bytes, as 1000000 or "2GiB"': Size,
    'seconds, or "90m"': Duration,
}
ROLES = {
    "identity": "decides the outcome; changing it makes a new artifact",
    "execution": "how the work is done; changing it goes on with the same artifact",
}


def tables() -> dict[str, type[BaseModel]]:
    """Every table by the name it has in a recipe."""
    found: dict[str, type[BaseModel]] = {"": Recipe, **{k: t for k, t in STAGE_TABLES.items() if k != "average"}}
    queue = list(found.items())
    while queue:
        name, model = queue.pop()
        for field, info in model.model_fields.items():
            for inner in models_in(info.annotation):
                if inner in STAGE_TABLES.values():
                    continue
                is_dict = typing.get_origin(info.annotation) is dict
                full = ".".join(part for part in (name, field, "NAME" if is_dict else "") if part)
                if full not in found:
                    found[full] = inner
                    queue.append((full, inner))
    return found


def models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in models_in(part)]


def keys() -> dict[str, tuple[str, Any]]:
    """Every key by its dotted name, with (table, field)."""
    found = {}
    for table, model in tables().items():
        for field, info in model.model_fields.items():
            if is_value(info):
                found[".".join(part for part in (table, info.alias or field) if part)] = (table, info)
    return found


def is_value(info: Any) -> bool:
    """Whether a field is a key, and not a table whose keys stand for themselves."""
    return not models_in(info.annotation) or typing.get_origin(info.annotation) is types.UnionType


def list_tables() -> str:
    """The text of `llmctl explain` without a key: every table, each once, with what it is."""
    places: dict[type[BaseModel], list[str]] = {}
    for name, model in tables().items():
        places.setdefault(model, []).append(name)
    named = {least_deep(names): model for model, names in places.items()}
    rows = [f"  {name or '(top level)':<40} {meaning_of(model)}" for name, model in named.items()]
    return "\n".join(["tables of a recipe; `llmctl explain TABLE` lists the keys of one:", "", *rows])


def least_deep(names: list[str]) -> str:
    return min(reversed(names), key=lambda name: name.count("."))


def meaning_of(model: type[BaseModel]) -> str:
    """The first line of a table's docstring, without the names that it begins with."""
    line = (model.__doc__ or "").strip().splitlines()[0]
    return line.partition("]: ")[2] or line


def explain(key: str) -> str:
    """The text of `llmctl explain KEY`.

    Raises:
        UserError: no such key; with the nearest ones.
    """
    all_tables, all_keys = tables(), keys()
    if key in all_tables and key:
        model = all_tables[key]
        head = [f"[{key}]: {meaning_of(model)}"]  # a table may stand in several places
        if key in all_keys and (meaning := all_keys[key][1].description):  # a table that may be left out
            head += ["", *(f"  {line}" for line in meaning.splitlines())]
        rows = [
            f"  {info.alias or field:<24} {(info.description or '').splitlines()[0]}"
            for field, info in model.model_fields.items()
        ]
        return "\n".join([*head, "", *rows])
    if key in all_keys:
        return explain_field(key, all_keys[key][1])
    leaf = key.rsplit(".", 1)[-1]
    near = difflib.get_close_matches(key, [*all_keys, *all_tables], n=3, cutoff=0.6)
    near += [name for name in all_keys if name.rsplit(".", 1)[-1] == leaf and name not in near][:4]
    hint = f"; did you mean {', '.join(near)}?" if near else f"; tables are {', '.join(t for t in all_tables if t)}"
    raise UserError(f"{key!r} is no key of a recipe{hint}")


def explain_field(key: str, info: Any) -> str:
    return "\n".join(
        [
            f"{key}",
            "",
            *(f"  {line}" for line in (info.description or "").splitlines()),
            "",
            f"  type     {type_of(info)}",
            f"  default  {default_of(info)}",
            f"  role     {role_of(info)}: {ROLES[role_of(info)]}",
        ]
    )


def role_of(info: Any) -> str:
    extra = info.json_schema_extra
    return str(extra.get("role", "identity")) if isinstance(extra, dict) else "identity"


def default_of(info: Any) -> str:
    if info.default is PydanticUndefined and info.default_factory is None:
        return "required"
    return shown(info.get_default(call_default_factory=True))


def type_of(info: Any) -> str:
    return (quantity_in(info.metadata) or type_name(info.annotation)) + limits(info)


def quantity_in(metadata: typing.Iterable[Any]) -> str | None:
    """What kind of quantity a type's annotations make of it."""
    readers = [getattr(item, "func", None) for item in metadata]
    found = (words for words, quantity in QUANTITIES.items() if typing.get_args(quantity)[1].func in readers)
    return next(found, None)


def shown(value: Any) -> str:
    """A value as TOML has it."""
    return "left out" if value is None else json.dumps(value)


def limits(info: Any) -> str:
    signs = {"Ge": "at least", "Gt": "above", "Le": "at most", "Lt": "below"}
    parts = []
    for item in info.metadata:
        for name, word in signs.items():
            if type(item).__name__ == name:
                parts.append(f"{word} {getattr(item, name.lower()):g}")
    return f", {', '.join(parts)}" if parts else ""


def type_name(annotation: Any) -> str:
    """The type in words that fit TOML."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return quantity_in(arguments[1:]) or type_name(arguments[0])
    if origin is typing.Literal:
        return " | ".join(shown(value) for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(type_name(part) for part in arguments if part is not type(None))
    if origin in (list, tuple):
        return f"array of {type_name(arguments[0])}"
    if origin is dict:
        return f"table of {type_name(arguments[-1])}"
    if models_in(annotation):
        return "table"
    names = {int: "whole number", float: "number", str: "text", bool: "true or false", Any: "anything"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))
