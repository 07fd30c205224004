"""eval: few-shot tasks on the checkpoints of a run, each beside its parent and beside chance.

Takes: the model of every stage of the recipe, and the corpus for questions. Leaves: `scores.json`.
"""

from llmctl.recipe.graph import stage_order
from llmctl.recipe.schema import AverageTable, Recipe
from llmctl.runs.files import write_json
from llmctl.stages.node import Context, Node, Outcome
from llmctl.stages.questions import asked_in
from llmctl.stages.scoring import Checkpoint, Request, score
from llmctl.suites import catalog


def node(recipe: Recipe) -> Node:
    stages = tuple(stage.name for stage in stage_order(recipe))
    tasks = catalog.fingerprint(asked_in(recipe, recipe.eval.suites))
    identity = {"eval": recipe.eval.model_dump(mode="json"), "seed": recipe.seed, "tasks": tasks}
    return Node("eval", "eval", 2, ("corpus", "tokenizer", *stages), identity, work)


def work(context: Context) -> Outcome:
    from llmctl.stages.score_tables import plain, show

    recipe, table = context.recipe, context.recipe.eval
    checkpoints = checkpoints_of(recipe, {name: str(a.folder / "model") for name, a in context.parents.items()})
    scores = score(checkpoints, request_of(recipe, (0, table.shots)), context.parents["corpus"].folder, recipe)
    show(scores)
    values = plain(scores)
    for row in values["results"]:  # the folder of the runs is no part of what was found
        del row["model"]
    write_json(context.artifact.folder / "scores.json", values)
    metrics = {f"{row['checkpoint']}/{row['task']}/{row['shots']}-shot": row["value"] for row in values["results"]}
    metrics |= {f"{row['checkpoint']}/{row['aggregate']}": row["value"] for row in values["aggregates"]}
    return Outcome(["scores.json"], metrics=metrics)


def request_of(recipe: Recipe, shots: tuple[int, ...]) -> Request:
    """What a recipe's [eval] asks."""
    names = asked_in(recipe, recipe.eval.suites)
    return Request(tuple(names), recipe.seed, recipe.eval.questions, drawn_shots=tuple(sorted(set(shots))))


def checkpoints_of(recipe: Recipe, models: dict[str, str]) -> list[Checkpoint]:
    """Every stage's model beside its parent; a model from outside that a stage starts from is scored too."""
    found: dict[str, Checkpoint] = {}
    for stage in stage_order(recipe):
        origin = stage.of[0] if isinstance(stage, AverageTable) else stage.from_
        if origin is not None and origin not in recipe.stages:
            found.setdefault(origin, Checkpoint(origin, origin))
        found[stage.name] = Checkpoint(stage.name, models[stage.name], origin)
    return list(found.values())
