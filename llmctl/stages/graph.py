"""The graph of a recipe: corpus, tokenizer and tokens before the stages that train, evaluation after them."""

from collections.abc import Callable
from typing import Any

from llmctl.errors import UserError
from llmctl.recipe.graph import stage_order
from llmctl.recipe.schema import Recipe
from llmctl.stages import average, corpus, evaluate, tokenizer, tokens, training
from llmctl.stages.node import Node
from llmctl.stages.questions import asked_in, check_questions

WITHOUT_TRAINING: dict[str, Callable[[Recipe, Any], Node]] = {"average": average.node}
"""Kinds of stages that do not train, each with what makes its node."""


def build_graph(recipe: Recipe) -> dict[str, Node]:
    """Every node of the recipe by name, parents before children.

    Raises:
        UserError: a task of an evaluation is not known.
    """
    check_questions(recipe)
    nodes = [corpus.node(recipe)]
    if recipe.tokenizer is not None or recipe.stages:
        nodes.append(tokenizer.node(recipe))
    if any(stage.kind in training.ON_TEXT for stage in recipe.stages.values()):
        nodes.append(tokens.node(recipe))
    nodes += [WITHOUT_TRAINING.get(stage.kind, training.node)(recipe, stage) for stage in stage_order(recipe)]
    if recipe.stages and asked_in(recipe, recipe.eval.suites):
        nodes.append(evaluate.node(recipe))
    return {node.name: node for node in nodes}


def needed_for(graph: dict[str, Node], targets: list[str]) -> list[Node]:
    """`targets` and all that they are made from, parents first.

    Raises:
        UserError: a target is no node of the recipe.
    """
    wanted: set[str] = set()
    queue = list(targets)
    while queue:
        name = queue.pop()
        if name not in graph:
            raise UserError(f"the recipe has no stage {name!r}; it has {', '.join(graph)}")
        if name not in wanted:
            wanted.add(name)
            queue.extend(graph[name].parents)
    return [node for name, node in graph.items() if name in wanted]
