"""From the command line to the stages: which recipe, which run, which checkpoint."""

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl import events
from llmctl.errors import UserError
from llmctl.preflight.plan import check_groups, check_shared
from llmctl.recipe.check import looks_like_hub_name
from llmctl.recipe.load import dump_recipe, load_recipe
from llmctl.recipe.schema import AverageTable, Recipe, TrainTable
from llmctl.recipe.shipped import recipe_file
from llmctl.runs.artifact import Artifact
from llmctl.runs.store import RunStore, default_root
from llmctl.stages.graph import build_graph
from llmctl.stages.runner import Runner

Show = Callable[[Artifact], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A recipe with the run that its artifacts go to."""

    recipe: Recipe
    store: RunStore
    origin: dict[str, Any]
    """Recipe file and overrides, noted in the run's folder for commands without a recipe."""
    profile: bool = False
    """Whether a few steps of what trains are recorded by torch's profiler."""

    def make(self, kinds: list[str] | None, ranks: int | None, show: Show) -> dict[str, Artifact]:
        """Make the nodes of `kinds`, or all of the recipe.

        Raises:
            UserError: the recipe has no stage of these kinds, or their batches cannot be shared by the ranks. Nothing is
                written then.
        """
        graph = build_graph(self.recipe)
        targets = list(graph) if kinds is None else [name for name, node in graph.items() if node.kind in kinds]
        averages = [stage for stage in self.recipe.stages.values() if isinstance(stage, AverageTable)]
        targets += [a.name for a in averages if kinds is not None and set(a.of) <= set(targets)]
        if not targets:
            raise UserError(
                f"recipe {self.recipe.name!r} has no [{(kinds or [''])[0]}] stage; it has {', '.join(self.recipe.stages)}"
            )
        return self.make_named(targets, ranks, show)

    def make_named(self, targets: list[str], ranks: int | None, show: Show) -> dict[str, Artifact]:
        """Make the nodes of these names.

        Raises:
            UserError: their batches cannot be shared by the ranks. Nothing is written then.
        """
        joined, rank = joined_ranks(ranks)
        runner = Runner(self.recipe, self.store, show, ranks, rank, self.profile)
        trains = False
        for name, artifact in runner.to_make(targets).items():
            trained = artifact is not None and (artifact.folder / "model").exists()  # the measuring is left, which is rank 0's
            if isinstance(table := self.recipe.stages.get(name), TrainTable) and not trained:
                check = check_groups if table.batch_tokens is None else check_shared
                check(table, joined if joined > 1 else ranks or table.processes)
                trains = True
        if self.profile and not trains:
            events.say(
                "--profile: nothing is profiled, for what trains is done; `llmctl bench RECIPE` measures its steps, and a stage "
                "with another value (--set) is a new one"
            )
        if rank == 0:
            self.store.record_recipe(self.recipe.name, self.origin | {"resolved": dump_recipe(self.recipe)})
        return runner.make(targets)


def launched() -> tuple[int, int]:
    """(ranks, this one's number) where torchrun, deepspeed or srun started this process, else (1, 0)."""
    if not {"RANK", "SLURM_STEP_NUM_TASKS"} & set(os.environ):
        return 1, 0
    from llmctl.train.distributed import adopt_slurm_environment, launched_rank, launched_world_size

    adopt_slurm_environment()
    return launched_world_size(), launched_rank()


def joined_ranks(wanted: int | None) -> tuple[int, int]:
    """As `launched`.

    Raises:
        UserError: another number of ranks is wanted than a launcher started.
    """
    joined, rank = launched()
    if joined > 1 and wanted not in (None, joined):
        raise UserError(f"a launcher started {joined} ranks; leave --gpus and --processes out")
    return joined, rank


def open_run(recipe: Path | None, overrides: list[str], runs: Path | None, smoke: bool, profile: bool = False) -> OpenRun:
    """The run of a recipe file, or, with none given, the newest run, which is named."""
    store = RunStore(runs or default_root())
    if recipe is not None:
        origin = {"path": str(recipe_file(recipe).resolve()), "overrides": overrides, "smoke": smoke}
    else:
        newest = store.newest_run()
        origin = store.recorded_recipe(newest.name)
        if launched()[1] == 0:
            print(f"no recipe given: the newest run is {newest.name!r}, made from {origin['path']}", file=sys.stderr)
        # The keys that the run was made with go on: `sft --set sft.lr=1e-3`, and then `sft --lora` on top of that very sft.
        origin |= {"overrides": origin["overrides"] + overrides, "smoke": smoke or origin["smoke"]}
    loaded = load_recipe(Path(origin["path"]), origin["overrides"], smoke=origin["smoke"])
    return OpenRun(loaded, store, origin, profile)


def find_or_newest(store: RunStore, checkpoint: str | None) -> str:
    """The model folder of `checkpoint`; of the newest one, which is named, where it is left out. A hub name stays.

    Raises:
        UserError: there is none.
    """
    if checkpoint is None:
        newest = store.newest_checkpoint(store.newest_run())
        print(f"no checkpoint given: the newest is {newest.run}/{newest.stage} ({newest.folder})", file=sys.stderr)
        return str(newest.folder / "model")
    try:
        return str(store.find_checkpoint(checkpoint))
    except UserError:
        if not looks_like_hub_name(checkpoint) or checkpoint.split("/")[0] in (run.name for run in store.runs()):
            raise
        print(f"{checkpoint!r} is no model folder and no checkpoint of a run in {store.root}; the hub is asked", file=sys.stderr)
        return checkpoint


def open_checkpoint(checkpoint: str | None, runs: Path | None) -> tuple[Any, Any]:
    """Model and tokenizer, ready to generate."""
    folder = find_or_newest(RunStore(runs or default_root()), checkpoint)
    import torch

    from llmctl.model.load import load_model
    from llmctl.tokens.tokenizer import load_tokenizer

    model = load_model(folder, "cuda" if torch.cuda.is_available() else "cpu")
    return model.eval(), load_tokenizer(folder)


def converse(checkpoint: str | None, tokens: int, temperature: float, runs: Path | None) -> None:
    """Read questions from the terminal and print the model's answers, until an empty line or the end of input."""
    from llmctl.model.generate import stream
    from llmctl.tokens.template import render

    model, tokenizer = open_checkpoint(checkpoint, runs)
    if not tokenizer.chat_template:
        raise UserError("this checkpoint's tokenizer has no chat template; `llmctl generate` continues plain text")
    limit = model.config.max_position_embeddings
    messages: list[dict[str, str]] = []
    while True:
        try:
            question = input("you: ")
        except EOFError:
            print()
            return
        if not question.strip():
            return
        messages.append({"role": "user", "content": question})
        while len(tokenizer(render(tokenizer, messages, prompt=True))["input_ids"]) + tokens > limit and len(messages) > 2:
            messages = messages[2:]
            print("(the context is full: the oldest question and answer are forgotten)", file=sys.stderr)
        answer = ""
        print("model: ", end="", flush=True)
        for piece in stream(model, tokenizer, render(tokenizer, messages, prompt=True), tokens, temperature, 0.95, len(messages)):
            answer += piece
            print(piece, end="", flush=True)
        print()
        messages.append({"role": "assistant", "content": answer})
