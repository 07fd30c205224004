"""Read a recipe: `extends`, `--set`, the short tables, and every mistake at once with file and line."""

import difflib
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from llmctl.errors import UserError
from llmctl.recipe.check import check
from llmctl.recipe.positions import Key, lines_of_keys, parts
from llmctl.recipe.schema import STAGE_TABLES, Recipe
from llmctl.recipe.shipped import recipe_file
from llmctl.recipe.smoke import shrink

PLAIN_STAGES = ("pretrain", "midtrain", "longctx", "sft", "lora")
ELSEWHERE = {
    "learning_rate": "lr",
    "batch_size": "batch_tokens",
    "train_batch_size": "batch_tokens",
    "per_device_train_batch_size": "micro_batch",
    "block_size": "seq_len",
    "context_length": "seq_len",
    "max_length": "seq_len",
    "max_seq_len": "seq_len",
    "max_seq_length": "seq_len",
    "num_train_epochs": "epochs",
    "num_epochs": "epochs",
    "max_tokens": "tokens",
    "lr_scheduler_type": "schedule",
    "gradient_clipping": "max_grad_norm",
    "gradient_checkpointing": "activation_checkpointing",
    "lora_r": "rank",
    "r": "rank",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "target_modules": "targets",
    "n_layers": "layers",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "intermediate_size": "ffn_size",
}
"""What other trainers call our keys."""
ORDER_BEFORE = {kind: PLAIN_STAGES[:index] for index, kind in enumerate(PLAIN_STAGES)}


class RecipeError(UserError):
    """All mistakes of a recipe, one a line, each with its place."""


@dataclass
class Source:
    """The merged values of a recipe and where each key was written last."""

    file: Path
    values: dict[str, Any]
    places: dict[Key, str] = field(default_factory=dict)

    def place(self, key: Key) -> str:
        """`file:line` of the key, or of the nearest table around it."""
        for length in range(len(key), 0, -1):
            if key[:length] in self.places:
                return self.places[key[:length]]
        return str(self.file)


def load_recipe(file: Path, overrides: Iterable[str] = (), smoke: bool = False, corpus: bool = True) -> Recipe:
    """The recipe in `file` (or the one that ships by that name) with `overrides` ("pretrain.lr=3e-4") on top; shrunk for a
    trial with `smoke`. Without `corpus`, what its sources name need not be there.

    Raises:
        RecipeError: with every mistake that the recipe has, each as `file:line: key = value: what was expected`.
    """
    source = read(recipe_file(file))
    for override in overrides:
        apply_override(source, override)
    if smoke:
        shrink(source.values)
    problems: list[str] = []
    recipe, broken = validate(source, problems)
    if recipe is not None:
        problems += [
            f"{source.place(key)}: {message}" for key, message in check(recipe, broken if corpus else broken | {"corpus"})
        ]
    if problems:
        problems.sort(key=line_of)
        count = f"{len(problems)} mistake{'s' if len(problems) > 1 else ''} in the recipe"
        raise RecipeError("\n  ".join([count + ":", *problems]))
    assert recipe is not None
    return recipe


def line_of(problem: str) -> tuple[str, int]:
    """(file, line) that a message begins with; what has no line comes first."""
    match = re.match(r"(.*?):(\d+): ", problem)
    return (match[1], int(match[2])) if match else ("", 0)


def dump_recipe(recipe: Recipe) -> dict[str, Any]:
    """Plain values of a recipe, every default in them; `restore_recipe` reads them back."""
    return recipe.model_dump(mode="json", by_alias=True)


def restore_recipe(values: dict[str, Any]) -> Recipe:
    stages = {name: STAGE_TABLES[table["kind"]].model_validate(table) for name, table in values["stages"].items()}
    return Recipe.model_validate(values | {"stages": {}}).model_copy(update={"stages": stages})


def read(file: Path, seen: tuple[Path, ...] = ()) -> Source:
    """Parse `file` and what it extends; tables merge, arrays replace, `name = false` removes a table or a key."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = sorted(str(path) for path in file.parent.glob("*.toml")) if file.parent.is_dir() else []
        raise RecipeError(f"{file}: no such recipe{'; there are ' + ', '.join(near) if near else ''}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{file}: cannot be read: {error}") from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{file}: not valid TOML: {error}") from None
    places = {key: f"{file}:{line}" for key, line in lines_of_keys(text).items()}
    base_name = values.pop("extends", None)
    if base_name is None:
        return Source(file, values, places)
    base_file = file.parent / str(base_name)
    if base_file.resolve() in (path.resolve() for path in (*seen, file)):
        raise RecipeError(f"{places[('extends',)]}: extends = {base_name!r}: the recipes extend each other in a circle")
    base = read(base_file, (*seen, file))
    return Source(file, merge(base.values, values), base.places | places)


REPLACED = {"buckets"}
"""Tables whose keys are data: one that extends a recipe has its own in their place."""


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        if value is False and key in below and not isinstance(below[key], bool):
            merged.pop(key)
        elif isinstance(value, dict) and isinstance(below.get(key), dict) and key not in REPLACED:
            merged[key] = merge(below[key], value)
        else:
            merged[key] = value
    return merged


def apply_override(source: Source, override: str) -> None:
    dotted, separator, written = override.partition("=")
    key = parts(dotted)
    if not separator or not key:
        raise RecipeError(f"--set {override}: expected KEY=VALUE, as in --set pretrain.lr=3e-4")
    try:
        value = tomllib.loads(f"value = {written}")["value"]
    except tomllib.TOMLDecodeError:
        value = written.strip()  # an unquoted word or quantity: --set pretrain.tokens=5M
    table = source.values
    for name in key[:-1]:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise RecipeError(f"--set {override}: {name!r} is a value, not a table")
    if value is False and key[-1] in table and not isinstance(table[key[-1]], bool):
        del table[key[-1]]
    else:
        table[key[-1]] = value
    source.places[key] = f"--set {dotted}"


def validate(source: Source, problems: list[str]) -> tuple[Recipe | None, set[str]]:
    """The typed recipe without the tables that have mistakes of their own, and the names of these.

    Mistakes are appended to `problems`; what is left may be held together all the same.
    """
    values, stages = split_stages(source, problems)
    typed: dict[str, Any] = {}
    for name, (key, table) in stages.items():
        kind = table.get("kind")
        if kind not in STAGE_TABLES:
            problems.append(
                f"{source.place((*key, 'kind'))}: [{'.'.join(key)}] kind = {kind!r}: expected one of {', '.join(STAGE_TABLES)}"
            )
            continue
        with_parent = {"from": default_parent(name, kind, stages)} | table | {"name": name}
        try:
            typed[name] = STAGE_TABLES[kind].model_validate(with_parent)
        except ValidationError as error:
            problems += explain(error, STAGE_TABLES[kind], source, key)
    broken = stages.keys() - typed.keys()
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        problems += explain(error, Recipe, source, ())
        tables = {str(problem["loc"][0]) for problem in error.errors()}
        broken |= tables
        try:
            recipe = Recipe.model_validate({name: value for name, value in values.items() if name not in tables})
        except ValidationError:
            return None, broken
    return recipe.model_copy(update={"stages": typed}), broken


def split_stages(source: Source, problems: list[str]) -> tuple[dict[str, Any], dict[str, tuple[Key, dict[str, Any]]]]:
    """The values without the stages, and the stages' tables by name, each with its key in the file."""
    values = {"name": source.file.stem} | source.values
    stages: dict[str, tuple[Key, dict[str, Any]]] = {}
    for kind in PLAIN_STAGES:
        if isinstance(table := values.pop(kind, None), dict):
            stages[kind] = ((kind,), {"kind": kind} | table)
        elif table is not None:
            problems.append(f"{source.place((kind,))}: {kind} = {table!r}: expected a table [{kind}]")
    named = values.pop("stage", {})
    if not isinstance(named, dict):
        problems.append(f"{source.place(('stage',))}: stage = {named!r}: expected tables [stage.NAME]")
        named = {}
    for name, table in named.items():
        stages[name] = (("stage", name), table if isinstance(table, dict) else {})
    return values, stages


def default_parent(name: str, kind: str, stages: dict[str, Any]) -> str | None:
    """The nearest plain stage before one of this kind."""
    before = [stage for stage in ORDER_BEFORE.get(kind, ()) if stage in stages and stage != name]
    return before[-1] if before else None


def explain(error: ValidationError, model: type[BaseModel], source: Source, table: Key) -> list[str]:
    """Pydantic's errors as `file:line: key = value: what was expected`."""
    lines = []
    for problem in error.errors():
        location = tuple(str(part) for part in problem["loc"] if part not in ("function-plain",))
        key = (*table, *location)
        shown = ".".join(key)
        if problem["type"] == "extra_forbidden":
            near = suggestion(location, model)
            expected = f"unknown key{near}"
        elif problem["type"] == "missing":
            lines.append(f"{source.place(table or key)}: {shown} is missing")
            continue
        else:
            expected = problem["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
        value = "" if isinstance(problem["input"], dict) else f" = {problem['input']!r}"
        lines.append(f"{source.place(key)}: {shown}{value}: {expected}")
    return lines


def suggestion(location: Key, model: type[BaseModel]) -> str:
    known: Any = model
    for part in location[:-1]:
        annotation = known.model_fields[part].annotation if part in known.model_fields else None
        inner = [
            t for t in (annotation, *getattr(annotation, "__args__", ())) if isinstance(t, type) and issubclass(t, BaseModel)
        ]
        if not inner and annotation is None:
            break
        known = inner[0] if inner else known
    names = [f.alias or n for n, f in known.model_fields.items()]
    if known is Recipe:
        names = [n for n in names if n != "stages"] + [*PLAIN_STAGES, "stage", "extends"]
    elsewhere = [ELSEWHERE[location[-1]]] if ELSEWHERE.get(location[-1]) in names else []
    near = elsewhere or difflib.get_close_matches(location[-1], names, n=1, cutoff=0.5)
    by_part = [n for n in names if n in location[-1] or location[-1] in n] if not near else []
    best = near or sorted(by_part, key=len, reverse=True)[:1]
    return f"; did you mean {best[0]!r}?" if best else f"; known are {', '.join(names)}"
