"""What is made from the schema of a recipe: docs/recipe.md, every table and key, and the JSON schema for editors."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel

from llmctl.recipe.chat_schema import ChatTable
from llmctl.recipe.json_schema import file_schema
from llmctl.recipe.schema import STAGE_TABLES, AverageTable, Recipe, StageTable, TrainTable
from llmctl.views.explain import default_of, is_value, meaning_of, role_of, tables, type_of

HEAD = """# Recipe reference

    llmctl explain                 # the tables
    llmctl explain pretrain.lr     # one key
    llmctl schema --out recipe.schema.json

This page and the JSON schema are made from the code by `llmctl schema --out docs/recipe.md --out recipes/recipe.schema.json`.

A recipe is a TOML file. `extends = "FILE"` takes another recipe, seen from this one's folder, and changes it: tables merge,
arrays replace, and `KEY = false` takes a key or a table away. The stages are the tables `[pretrain]`, `[midtrain]`,
`[longctx]`, `[sft]` and `[lora]`, and `[stage.NAME]` with a `kind`, as many as you like. Quantities are numbers or text: of
lengths `"64k"` is 65,536, of token budgets `"5B"` is 5,000,000,000, sizes are as `"20MB"` or `"2GiB"`, times as `"90m"`.

The role of a key is **identity** where it decides the outcome (another value makes a new artifact) or **execution** where it
says how the work is done (another value goes on with the same artifact).

In an editor: Even Better TOML and other tools built on taplo show these meanings, complete keys and mark mistakes where the
first line of the file names the schema, by a path seen from the file or an address:

    #:schema ./recipe.schema.json

The recipes that ship have it. `llmctl schema --out recipe.schema.json` writes the schema beside a recipe of yours; `llmctl
check RECIPE` finds more than an editor can.
"""
FIXED: dict[type[BaseModel], str] = {
    Recipe: "Top level",
    TrainTable: "Every stage that trains",
    ChatTable: "[sft] and [lora]",
    AverageTable: '[stage.NAME] of kind "average"',
}
"""Headings of what is no table by itself, or stands under any name."""
SHARED = (ChatTable, TrainTable)
"""What several stages have, told once."""
COLUMNS = ("key", "type", "default", "role", "meaning")


def reference() -> str:
    """The page, as Markdown."""
    places: dict[type[BaseModel], list[str]] = {}
    for name, model in tables().items():
        places.setdefault(model, []).append(name)
    headings = {model: heading_of(names) for model, names in places.items()} | FIXED
    return HEAD + "".join(section(model, headings) for model in in_order(headings))


def heading_of(names: list[str]) -> str:
    """Of a table, which may stand in several places."""
    if len(names) > 1 and {name.split(".")[0] for name in names} <= STAGE_TABLES.keys():
        return f"[STAGE.{names[0].partition('.')[2]}]"
    return " and ".join(f"[{name}]" for name in sorted(names, key=len))


def in_order(headings: dict[type[BaseModel], str]) -> list[type[BaseModel]]:
    """Stages in the order of a model's life, what they share before them, and the other tables by name."""

    def beginning(start: str) -> list[type[BaseModel]]:
        found = (model for model in headings if headings[model].startswith(start))
        return sorted(found, key=lambda model: headings[model].replace("]", ""))

    stages = [*beginning("[pretrain"), *beginning("[midtrain"), *beginning("[longctx"), ChatTable]
    stages += [*beginning("[sft]"), *beginning("[lora"), AverageTable]
    first = list(dict.fromkeys([Recipe, TrainTable, *beginning("[STAGE."), *stages]))
    return first + [model for model in beginning("[") if model not in first]


def section(model: type[BaseModel], headings: dict[type[BaseModel], str]) -> str:
    found, base = list(own_keys(model)), base_of(model)
    lines = ["", f"## {headings[model]}", "", sentence(meaning_of(model))]
    if base is not None:
        place = headings[base][0].lower() + headings[base][1:]
        lines[-1] += f" It has the keys of {place}" + (", and these of its own, or with another default:" if found else ".")
    if found:
        lines += ["", markdown_row(COLUMNS), markdown_row(("---",) * len(COLUMNS)), *(row(*key) for key in found)]
    return "\n".join(lines) + "\n"


def base_of(model: type[BaseModel]) -> type[BaseModel] | None:
    return next((base for base in model.__mro__[1:] if base in SHARED), None)


def own_keys(model: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    """The keys of a table that those it shares with others do not have, or have with another default."""
    base = base_of(model)
    above = base.model_fields if base is not None else {}
    for name, info in model.model_fields.items():
        if not is_value(info) or (name == "name" and issubclass(model, StageTable)):
            continue
        if name not in above or default_of(above[name]) != default_of(info):
            yield info.alias or name, info


def row(key: str, info: Any) -> str:
    return markdown_row((f"`{key}`", type_of(info), default_of(info), role_of(info), info.description or ""))


def markdown_row(cells: Iterable[str]) -> str:
    escaped = (cell.replace("|", "\\|").replace("\n", " ") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def sentence(text: str) -> str:
    whole = text[:1].upper() + text[1:]
    return whole if whole.endswith(".") else f"{whole}."


def schema_text() -> str:
    """The JSON schema of a recipe's file."""
    return json.dumps(file_schema(), indent=1, ensure_ascii=False) + "\n"
