"""average: the mean of several checkpoints' weights ("souping"). Leaves `model/` like a stage that trains."""

from pathlib import Path

from llmctl import events
from llmctl.recipe.graph import identity
from llmctl.recipe.schema import AverageTable, Recipe
from llmctl.runs.keys import fingerprint_path
from llmctl.stages.node import Context, Node, Outcome

VERSION = 3  # 2: sums in fp64; 3: the first one's tokenizer


def node(recipe: Recipe, table: AverageTable) -> Node:
    parents = tuple(name for name in table.of if name in recipe.stages)
    outside = {name: fingerprint_path(Path(name)) for name in table.of if name not in recipe.stages and Path(name).exists()}
    decides = {"stage": identity(table), "outside": outside}
    return Node(table.name, "average", VERSION, ("tokenizer", *parents), decides, lambda context: work(context, table))


def work(context: Context, table: AverageTable) -> Outcome:
    from llmctl.model.average import local_folder, write_average
    from llmctl.tokens.tokenizer import load_tokenizer

    folders = [context.parents[n].folder / "model" if n in context.parents else local_folder(n) for n in table.of]
    tokenizer = load_tokenizer(str(folders[0]))  # with the tokens and the template that it was tuned with
    write_average(folders, table.weights or [1.0] * len(folders), tokenizer, context.artifact.folder / "model")
    events.say(f"{table.name}: mean of {len(folders)} checkpoints")
    return Outcome(["model"])
