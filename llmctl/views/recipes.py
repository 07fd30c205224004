"""`llmctl recipes`: the recipes that ship, a paragraph each."""

import json
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def show_recipes(shipped: Sequence[Any], as_json: bool) -> None:
    """Print `Shipped` recipes, the smallest first."""
    if as_json:
        print(json.dumps([asdict(recipe) for recipe in shipped], indent=2))
        return
    width = max(20, min(110, shutil.get_terminal_size((110, 24)).columns))
    for recipe in sorted(shipped, key=lambda recipe: (recipe.tokens, recipe.name)):
        print(recipe.name)
        for line in paragraph(recipe):
            print(textwrap.fill(line, width, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False))
        print()
    print("run one by its name: llmctl run NAME --smoke, then llmctl run NAME; or write one of your own: llmctl init")


def paragraph(recipe: Any) -> Iterator[str]:
    yield recipe.makes
    weights = f"{amount(recipe.weights)} weights" if recipe.weights is not None else "a model that is there"
    tokens = f"{amount(recipe.tokens)} tokens{' and passes over conversations' if recipe.epochs else ''}"
    yield f"{weights}, {tokens}: {', '.join(recipe.stages)}"
    yield f"needs: {', '.join(recipe.needs) or 'nothing but this machine'}"
    yield f"cost: {recipe.cost}"
    yield recipe.path


def amount(count: float) -> str:
    """A number as people say it: 3.9M."""
    for size, unit in UNITS:
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:g}"
