"""What `llmctl diff` compares: a recipe file, a run or a checkpoint, each as flat values by dotted key."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from llmctl.errors import UserError
from llmctl.recipe.graph import identity
from llmctl.recipe.load import dump_recipe, load_recipe
from llmctl.recipe.positions import leaves
from llmctl.recipe.schema import Recipe
from llmctl.runs.artifact import Artifact
from llmctl.runs.files import expanded, read_json
from llmctl.runs.store import RunStore
from llmctl.stages.graph import build_graph, needed_for
from llmctl.stages.planned import recipe_of

Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Side:
    name: str
    """As it was typed."""
    recipe: Recipe
    artifact: Artifact | None = None
    """None: a recipe alone."""
    line: list[Artifact] = field(default_factory=list)
    """The artifact and all that it is made of, as far as it can be read."""

    @property
    def stages(self) -> list[str]:
        """Stages of the recipe that this is made of; of a recipe alone, all."""
        made = [one.stage for one in self.line]
        return [name for name in self.recipe.stages if self.artifact is None or name in made]

    def narrowed(self, other: "Side") -> list[str]:
        """Of a recipe beside a checkpoint, the stages up to that one, where it has it."""
        if self.artifact is None and other.artifact is not None and other.artifact.stage in build_graph(self.recipe):
            needed = [node.name for node in needed_for(build_graph(self.recipe), [other.artifact.stage])]
            return [name for name in self.recipe.stages if name in needed]
        return self.stages

    @property
    def measures(self) -> bool:
        """Whether [eval] is a part of it, beyond what is kept out of the corpus for it."""
        return self.artifact is None or self.artifact.stage == "eval"


def find_side(store: RunStore, text: str) -> Side:
    """Raises:
    UserError: it is no recipe, no run and no checkpoint, or cannot be read.
    """
    path = expanded(text)
    if path.suffix == ".toml" or path.is_file():
        return Side(text, load_recipe(path, corpus=False))
    try:
        artifact = store.find_artifact(text)
    except UserError as error:
        raise UserError(f"{error}; `llmctl diff` takes recipe files (.toml), runs and checkpoints") from None
    home = RunStore.of(artifact)
    line = [one for one in home.ancestry(artifact) if one.readable]
    return Side(text, recipe_of(home, artifact), artifact, line)


def flat(value: Any, *above: str) -> Values:
    """{"a": {"b": 1}} -> {"a.b": 1}; an empty table is none."""
    return {".".join(key): inner for key, inner in leaves(value, above) if inner != {}}


def configuration(side: Side, stages: list[str], evaluation: bool) -> tuple[Values, set[str]]:
    """Every key of the recipe as far as these stages go, and which of them decide the outcome."""
    values, decides = dump_recipe(side.recipe), identity(side.recipe)
    tables = {name: side.recipe.stages[name] for name in stages}
    for found in (values, decides):
        del found["stages"], found["name"]
        if not evaluation:
            del found["eval"]
    values |= {name: table.model_dump(mode="json", by_alias=True) for name, table in tables.items()}
    decides |= {name: identity(table) for name, table in tables.items()}
    by_command = {one.stage: one.manifest["recipe"] for one in side.line if one.by_command}
    return flat(values | by_command), set(flat(decides | by_command))


def data(side: Side) -> Values:
    """What the corpus holds, what was left out of it, and what each stage trained on."""
    found: Values = {}
    for one in side.line:
        metrics = one.manifest["metrics"]
        if one.stage == "corpus":
            found["corpus"] = one.manifest.get("output_hash", "unknown")[:12]
            found |= flat({name: counts for name, counts in metrics.items() if name != "classifiers"}, "corpus")
            found |= dict(_left_out(one))
        found |= {f"{one.stage}.{name}": value for name, value in metrics.items() if name.startswith("tokens/")}
    return found


def _left_out(corpus: Artifact) -> Iterator[tuple[str, int]]:
    try:
        rows = read_json(corpus.folder / "attrition.json")
        for row in rows:
            if row["rule"] is not None and row["documents"]:
                yield f"corpus.left out.{row['source']}.{row['rule']}", row["documents"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # of an older version, or not there any more


def shape(side: Side) -> Values:
    """The model's `config.json`."""
    if side.artifact is None:
        return {}
    try:
        config = read_json(side.artifact.folder / "model" / "config.json")
    except (OSError, ValueError):
        return {}
    return {key: value for key, value in flat(config).items() if key not in ("transformers_version", "_name_or_path")}


def circumstances(side: Side) -> Values:
    """Versions and hardware."""
    if side.artifact is None:
        return {}
    manifest = side.artifact.manifest
    return manifest["versions"] | {name: manifest["hardware"].get(name) for name in ("system", "processor", "cores", "gpus")}
