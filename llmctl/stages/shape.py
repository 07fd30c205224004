"""The shape of a new model: the preset, the recipe's own keys over it, and the tokenizer's vocabulary."""

from typing import Any

from llmctl.recipe.presets import resolve_model
from llmctl.recipe.schema import Recipe


def model_shape(recipe: Recipe, vocabulary: int, max_length: int) -> dict[str, Any]:
    """Fields of `llmctl.model.build.ModelShape` for a tokenizer of `vocabulary` tokens."""
    from llmctl.model.embeddings import padded

    assert recipe.model is not None  # the recipe's check: a stage without `from` needs [model]
    shape = resolve_model(recipe.model)
    if shape.get("vocab_size") is None:
        shape["vocab_size"] = padded(vocabulary)
    return shape | {"max_length": max_length}
