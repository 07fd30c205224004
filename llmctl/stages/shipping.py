"""`llmctl recipes`: what each recipe that ships makes, of how much, and what it needs."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llmctl.errors import UserError
from llmctl.recipe.check import looks_like_hub_name
from llmctl.recipe.fields import HUB
from llmctl.recipe.graph import stage_order
from llmctl.recipe.load import load_recipe
from llmctl.recipe.schema import Recipe, TrainTable
from llmctl.recipe.shipped import about
from llmctl.stages.bench import starting_shape
from llmctl.stages.planning import model_at, with_vocabulary


@dataclass(frozen=True, slots=True)
class Shipped:
    name: str
    makes: str
    stages: list[str]
    weights: int | None
    """Of the model, before adapters; None: those of a model that somebody else trained."""
    tokens: int
    """Of all stages, as far as their budgets are in tokens."""
    epochs: bool
    """Whether some are in passes over the data, which come on top."""
    needs: list[str]
    """What comes from elsewhere: data sets, models and tokenizers of the hub."""
    cost: str
    path: str


def described(file: Path) -> Shipped:
    recipe, head = load_recipe(file), about(file)
    tables = [table for table in stage_order(recipe) if isinstance(table, TrainTable)]
    return Shipped(
        recipe.name,
        head.makes,
        [stage.name for stage in stage_order(recipe)],
        weights_of(recipe, tables[0]) if recipe.model is not None and tables else None,
        sum(table.tokens or 0 for table in tables),
        any(table.tokens is None for table in tables),
        list(dict.fromkeys(needs_of(recipe))),
        head.cost,
        str(file),
    )


def weights_of(recipe: Recipe, table: TrainTable) -> int | None:
    """Weights of the model that a recipe makes; None where its vocabulary is not known on this machine."""
    try:
        return model_at(starting_shape(with_vocabulary(recipe)[0], table), None, {})[0].parameters
    except UserError:
        return None


def needs_of(recipe: Recipe) -> Iterator[str]:
    for source in recipe.corpus.sources.values():
        if source.path.startswith(HUB):
            yield source.path
    if recipe.tokenizer is not None and recipe.tokenizer.path is not None and looks_like_hub_name(recipe.tokenizer.path):
        yield f"tokenizer {recipe.tokenizer.path}"
    for stage in recipe.stages.values():
        if stage.from_ is not None and stage.from_ not in recipe.stages and looks_like_hub_name(stage.from_):
            yield f"model {stage.from_}"
