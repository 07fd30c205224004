"""From the command line to the stages: which recipe, which run, which checkpoint."""

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.preflight.plan import check_groups, check_shared
from llmctl.recipe.check import looks_like_hub_name
from llmctl.recipe.load import dump_recipe, load_recipe, restore_recipe
from llmctl.recipe.schema import AverageTable, Recipe, TrainTable
from llmctl.runs.artifact import Artifact
from llmctl.runs.files import write_json
from llmctl.runs.store import Run, RunStore, default_root
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
        runner = Runner(self.recipe, self.store, show, ranks, rank)
        for name, artifact in runner.to_make(targets).items():
            trained = artifact is not None and (artifact.folder / "model").exists()  # the measuring is left, which is rank 0's
            if isinstance(table := self.recipe.stages.get(name), TrainTable) and not trained:
                check = check_groups if table.batch_tokens is None else check_shared
                check(table, joined if joined > 1 else ranks or table.processes)
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


def open_run(recipe: Path | None, overrides: list[str], runs: Path | None, smoke: bool) -> OpenRun:
    """The run of a recipe file, or, with none given, the newest run, which is named."""
    store = RunStore(runs or default_root())
    if recipe is not None:
        origin = {"path": str(recipe.resolve()), "overrides": overrides, "smoke": smoke}
    else:
        newest = store.newest_run()
        origin = store.recorded_recipe(newest.name)
        if launched()[1] == 0:
            print(f"no recipe given: the newest run is {newest.name!r}, made from {origin['path']}", file=sys.stderr)
        # The keys that the run was made with go on: `sft --set sft.lr=1e-3`, and then `sft --lora` on top of that very sft.
        origin |= {"overrides": origin["overrides"] + overrides, "smoke": smoke or origin["smoke"]}
    return OpenRun(load_recipe(Path(origin["path"]), origin["overrides"], smoke=origin["smoke"]), store, origin)


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


@dataclass(frozen=True, slots=True)
class Measures:
    """What `llmctl eval` measures."""

    suites: bool = True
    few_shot: bool = False
    shots: int | None = None
    """Examples in the prompts; None: the recipe's."""
    long: bool = False
    plots: Path | None = None
    """Where the pictures of `long` go."""


def evaluate_checkpoint(checkpoint: str | None, wanted: Measures, json_file: Path | None, runs: Path | None) -> None:
    """Score a checkpoint beside its parent on the held-out text of the newest run that it belongs to."""
    from llmctl.stages.evaluate import score
    from llmctl.stages.long_eval import evaluate_long

    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise UserError(f"--json {json_file}: there is no folder {json_file.parent}")
    compared, corpus, recipe = beside_parent(checkpoint, runs)
    scores: dict[str, Any] = {"model": compared[-1].model}
    if wanted.suites:
        shots = [0, wanted.shots or recipe.eval.shots] if wanted.few_shot else [wanted.shots or 0]
        scores |= score(compared, corpus, recipe, recipe.eval, shots)
    if wanted.long:
        scores["long"] = evaluate_long(compared, corpus, recipe, wanted.plots)
    if json_file is not None:
        write_json(json_file, scores)


def beside_parent(checkpoint: str | None, runs: Path | None) -> tuple[list[Any], Path, Recipe]:
    """The `Checkpoint`s of a model's parent, if it has one, and of the model; the corpus and the recipe of their run.

    Raises:
        UserError: the run has no corpus.
    """
    from llmctl.stages.evaluate import Checkpoint

    store = RunStore(runs or default_root())
    model = find_or_newest(store, checkpoint)
    owner = store.owner(Path(model))
    if owner is not None:  # which may be of another folder of runs than the one that is set
        store = RunStore(owner.folder.parent.parent)
    run = Run(owner.folder.parent) if owner is not None else store.newest_run()
    recipe = restore_recipe(store.recorded_recipe(run.name)["resolved"])
    compared = [Checkpoint(label(Path(model), owner), model)]
    corpora = [artifact for artifact in run.artifacts if artifact.done and artifact.stage == "corpus"]
    if owner is not None:
        parents = store.parents(owner)
        corpus = store.ancestor(owner, "corpus")
        corpora = [corpus] if corpus is not None else corpora
        for parent in [p for p in parents.values() if (p.folder / "model").is_dir()][-1:]:
            compared = [Checkpoint(parent.stage, str(parent.folder / "model")), replace(compared[0], parent=parent.stage)]
    if not corpora:
        raise UserError(f"{run.folder}: no finished corpus to take held-out questions from; run `llmctl curate` first")
    return compared, corpora[-1].folder, recipe


def label(model: Path, owner: Artifact | None) -> str:
    """What tables call a model: its stage, and of one that the stage keeps the step, too."""
    if owner is None:
        return model.name
    return f"{owner.stage}/{model.name}" if model.parent.name == "kept" else owner.stage


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
