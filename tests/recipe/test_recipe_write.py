"""Recipes written as TOML: read back, they are the very same."""

import tomllib

import pytest
from helpers import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st

from llmctl.recipe.load import load_recipe
from llmctl.recipe.write import recipe_text, toml_lines

RECIPES = sorted((REPOSITORY / "recipes").glob("*.toml"))
texts = st.text(st.characters(exclude_categories=("Cs",)))
leaves = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | texts
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8)


@given(st.dictionaries(texts, values, max_size=4))
def test_what_is_written_is_read_back(table):
    assert tomllib.loads("\n".join(toml_lines(table))) == table


@pytest.mark.parametrize("smoke", [False, True])
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_shipped_recipes_are_read_back(path, smoke, tmp_path):
    recipe = load_recipe(path, smoke=smoke, corpus=False)
    (tmp_path / "again.toml").write_text(recipe_text(recipe), encoding="utf-8")
    again = load_recipe(tmp_path / "again.toml", corpus=False)
    assert again == recipe
    assert list(again.stages) == list(recipe.stages)


MORE = """
[stage."second.one"]
kind = "midtrain"
from = "pretrain"
tokens = 1024
seq_len = 64
batch_tokens = 256
carry_optimizer = false
mix = { code = 1.0 }
[stage.mean]
kind = "average"
of = ["pretrain", "second.one"]
weights = [1.0, 2.0]
"""


def test_stages_of_their_own_names_and_averages_are_read_back(small_recipe, tmp_path):
    small_recipe.write_text(small_recipe.read_text() + MORE)
    recipe = load_recipe(small_recipe)
    (tmp_path / "again.toml").write_text(recipe_text(recipe))
    assert load_recipe(tmp_path / "again.toml") == recipe
