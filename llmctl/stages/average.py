"""average: the mean of several checkpoints' weights ("souping"). Leaves `model/` like a stage that trains."""

from pathlib import Path
from typing import Any

from llmctl import events
from llmctl.errors import UserError
from llmctl.recipe.graph import identity
from llmctl.recipe.schema import AverageTable, Recipe
from llmctl.runs.keys import fingerprint_path
from llmctl.stages.node import Context, Node, Outcome


def node(recipe: Recipe, table: AverageTable) -> Node:
    parents = tuple(name for name in table.of if name in recipe.stages)
    outside = {name: fingerprint_path(Path(name)) for name in table.of if name not in recipe.stages and Path(name).exists()}
    decides = {"stage": identity(table), "outside": outside}
    return Node(table.name, "average", 1, ("tokenizer", *parents), decides, lambda context: work(context, table))


def work(context: Context, table: AverageTable) -> Outcome:
    import torch

    from llmctl.model.load import load_model, save_model
    from llmctl.tokens.tokenizer import load_tokenizer

    weights = table.weights or [1.0] * len(table.of)
    folders = [str(context.parents[n].folder / "model") if n in context.parents else n for n in table.of]
    mean: Any = load_model(folders[0])
    state = {name: tensor * (weights[0] / sum(weights)) for name, tensor in mean.state_dict().items()}
    for folder, weight in zip(folders[1:], weights[1:], strict=True):
        other = load_model(folder).state_dict()
        different = [name for name in state if name not in other or other[name].shape != state[name].shape]
        if different:
            raise UserError(f"[{table.name}] {folder} is of another shape than {folders[0]}: {different[0]} differs")
        with torch.no_grad():
            for name, tensor in state.items():
                tensor.add_(other[name], alpha=weight / sum(weights))
    mean.load_state_dict(state)
    save_model(mean, load_tokenizer(str(context.parents["tokenizer"].folder / "tokenizer")), context.artifact.folder / "model")
    events.say(f"{table.name}: mean of {len(folders)} checkpoints")
    return Outcome(["model"])
