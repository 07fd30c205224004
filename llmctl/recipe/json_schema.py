"""The JSON schema of a recipe's file, for editors: what a person writes, which is not quite what `Recipe` holds.

Draft 7, the newest that TOML's language servers read in common. Nothing is required, since a recipe that extends another has
only what differs; and every key may be `false`, which takes away what the other one has.
"""

from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from llmctl.recipe.filter_schema import PROFILES
from llmctl.recipe.load import PLAIN_STAGES
from llmctl.recipe.quantities import Tokens
from llmctl.recipe.schema import STAGE_TABLES, Recipe

DRAFT = "http://json-schema.org/draft-07/schema#"
REFERENCE = "#/definitions/{model}"
SHORT_FORMS: dict[str, dict[str, Any]] = {
    "mix": {"additionalProperties": {"anyOf": [{"type": "number"}, TypeAdapter(Tokens).json_schema()]}, "type": "object"},
    "filter": {"anyOf": [{"$ref": REFERENCE.format(model="FilterTable")}, {"enum": list(PROFILES)}]},
    "targets": {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"enum": ["all_linear", "all-linear"]}]},
}
"""What may be written for a key beside what its type says."""
LIMITS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


def file_schema() -> dict[str, Any]:
    """The schema of a recipe's file, as plain values."""
    models = (Recipe, *STAGE_TABLES.values())
    _, found = models_json_schema([(model, "validation") for model in models], ref_template=REFERENCE)
    tables = {name: table_schema(table) for name, table in found["$defs"].items()}
    stages: dict[str, dict[str, Any]] = {}
    for kind, model in STAGE_TABLES.items():
        keys = tables[model.__name__]["properties"]
        keys.pop("name")  # it is that of the table
        keys["kind"] = {"description": keys["kind"]["description"], "const": kind}
        stages[kind] = {"$ref": REFERENCE.format(model=model.__name__)}
    recipe = tables.pop(Recipe.__name__)
    keys = recipe["properties"]
    keys.pop("stages")
    keys["extends"] = {"type": "string", "description": "A recipe that this one changes, seen from this one's folder."}
    keys |= {kind: stages[kind] for kind in PLAIN_STAGES}
    described = {"description": "Further stages, [stage.NAME]; each says its kind."}
    keys["stage"] = described | or_false({"type": "object", "additionalProperties": {"anyOf": list(stages.values())}})
    return {"$schema": DRAFT, "title": "Recipe of llmctl", **recipe, "type": "object", "definitions": tables}


def table_schema(table: dict[str, Any]) -> dict[str, Any]:
    """What pydantic says of a table, as it may stand in a file."""
    keys = {name: key_schema(name, key) for name, key in table["properties"].items()}
    return or_false({"type": "object", "description": table["description"], "properties": keys, "additionalProperties": False})


def key_schema(name: str, key: dict[str, Any]) -> dict[str, Any]:
    about = {word: key[word] for word in ("description", "default") if key.get(word) is not None}
    if isinstance(key.get("default"), dict):
        del about["default"]  # it stands with the keys of the table
    value = plain(SHORT_FORMS.get(name, {word: part for word, part in key.items() if word not in ("description", "default")}))
    if isinstance(inner := value.get("additionalProperties"), dict):
        value["additionalProperties"] = or_false(inner)
    if "$ref" in value:  # draft 7 reads nothing beside it
        return about | {"allOf": [value]}
    return about | or_false(value)


def or_false(schema: dict[str, Any]) -> dict[str, Any]:
    """A value, or `false` in its place. Of a table this is said so that a mistake inside it is found at its own key, which no
    editor does below `anyOf`."""
    if schema.get("type") == "object":
        return schema | {"type": ["object", "boolean"], "not": {"const": True}}
    forms = alternatives(schema)
    if "$ref" in schema or any(form.get("type") == "boolean" for form in forms):
        return schema
    return {"anyOf": [*forms, {"const": False}]}


def plain(schema: Any) -> Any:
    """In the words of draft 7, without null, which TOML has not, and without what only pydantic reads."""
    if isinstance(schema, list):
        return [plain(part) for part in schema if part != {"type": "null"}]
    if not isinstance(schema, dict):
        return schema
    found = {word: plain(part) for word, part in schema.items() if word not in ("title", "role", *LIMITS)}
    if "prefixItems" in found:
        found["items"] = found.pop("prefixItems")
    limits = {LIMITS[word]: limit for word, limit in schema.items() if word in LIMITS}
    if "anyOf" in found:
        found["anyOf"] = [part | limits if part.get("type") == "number" else part for part in alternatives(found)]
        if len(found["anyOf"]) == 1:
            found |= found.pop("anyOf")[0]
    return found


def alternatives(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The forms that a value may have, nested ones side by side."""
    if "anyOf" not in schema:
        return [schema]
    return [form for part in schema["anyOf"] for form in alternatives(part)]
