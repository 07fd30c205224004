"""The stages that train: what they share. What is special about each is in its own file.

A stage takes weights from a parent (a stage of the recipe, a folder, a hub model), trains on a mix of the run's sources,
and leaves `model/` (a Hugging Face folder), `trainer/` (fp32 weights and moments) and for LoRA `adapter/`.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl import events
from llmctl.errors import UserError
from llmctl.interrupts import raise_if_asked
from llmctl.preflight.ladder import filled_in
from llmctl.preflight.plan import plan_stage
from llmctl.recipe.chat_schema import ChatTable, LoraTable
from llmctl.recipe.graph import identity
from llmctl.recipe.schema import LongContextTable, Recipe, TrainTable
from llmctl.runs.artifact import Artifact
from llmctl.runs.files import read_json
from llmctl.runs.keys import fingerprint_path
from llmctl.stages.node import Context, Node, Outcome

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ANSWERS = ("answers.html", "answers.json")
ON_TEXT = ("pretrain", "midtrain", "longctx")


@dataclass(frozen=True, slots=True)
class Specialty:
    """What is special about a kind of stage: the data it trains on, additions to the job, and what it reports."""

    data: Callable[["Stage"], list[Any]]
    """The `DataPart`s of the stage."""
    additions: Callable[["Stage"], dict[str, Any]]
    """Further fields of the `TrainJob`."""
    report: Callable[["Stage"], dict[str, float]]
    """Measure the model that was left against where it came from; emits tables, returns metrics."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A training stage at work."""

    context: Context
    table: TrainTable
    name: str

    @property
    def recipe(self) -> Recipe:
        return self.context.recipe

    @property
    def folder(self) -> Path:
        return self.context.artifact.folder

    @property
    def reference_source(self) -> str:
        """Of the stages that train on text: they have at least the sources of their mix."""
        source = self.recipe.reference_source
        assert source is not None
        return source

    @property
    def corpus(self) -> Path:
        return self.context.parents["corpus"].folder

    @property
    def run_tokenizer(self) -> Path:
        return self.context.parents["tokenizer"].folder / "tokenizer"

    @property
    def own_tokenizer(self) -> Path:
        """Of a stage that asks for tokens or a chat template."""
        return self.folder / "data" / "tokenizer"

    @property
    def tokenizer(self) -> Path:
        return self.own_tokenizer if self.own_tokenizer.exists() else self.run_tokenizer

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def parent(self) -> Artifact | None:
        """The stage of the recipe that this one starts from."""
        return self.context.parents.get(self.table.from_ or "")

    @property
    def parent_model(self) -> str | None:
        """What `from` names, as a folder or a hub name; None where the stage builds a new model."""
        if self.parent is not None:
            return str(self.parent.folder / "model")
        return self.table.from_

    @property
    def seed(self) -> int:
        return self.recipe.seed if self.table.seed is None else self.table.seed

    def plain_shards(self, source: str) -> Path:
        """Token shards of a source of text, as its documents are."""
        return self.context.parents["tokens"].folder / "shards" / source

    def shards(self, source: str) -> Path:
        """The same; of a source whose middles are moved, made in the stage's own folder."""
        infilling = self.table.infilling
        if infilling is None or source not in infilling.sources:
            return self.plain_shards(source)
        from llmctl.stages.tokens import tokenise

        return tokenise(self.corpus, source, str(self.tokenizer), self.folder / "data" / "train" / source, infilling)


def specialty(kind: str) -> Specialty:
    """The file of the kind. Imported when the stage runs: they measure models, and so import torch."""
    from llmctl.stages import longctx, lora, midtrain, pretrain, sft

    return {
        "pretrain": pretrain.SPECIALTY,
        "midtrain": midtrain.SPECIALTY,
        "longctx": longctx.SPECIALTY,
        "sft": sft.SPECIALTY,
        "lora": lora.SPECIALTY,
    }[kind]


def node(recipe: Recipe, table: TrainTable) -> Node:
    outside: dict[str, str] = {}
    parents = ["corpus", "tokenizer"]
    if table.kind in ON_TEXT:
        parents.append("tokens")
    if table.from_ in recipe.stages:
        parents.append(str(table.from_))
    elif table.from_ is not None and Path(table.from_).exists():
        outside[table.from_] = fingerprint_path(Path(table.from_))
    if isinstance(table, ChatTable) and table.template is not None and Path(table.template).is_file():
        outside[table.template] = fingerprint_path(Path(table.template))
    if isinstance(table, LongContextTable) and Path(table.synthetic.generator).exists():
        outside[table.synthetic.generator] = fingerprint_path(Path(table.synthetic.generator))
    decides = {
        "stage": identity(table),
        "model": recipe.model.model_dump(mode="json") if recipe.model and table.from_ is None else None,
        "seed": recipe.seed,
        "outside": outside,
    }
    if table.early_stopping is not None:  # what is measured then decides which model is left
        decides["measured"] = {"every_steps": table.eval.every_steps, "rows": table.eval.rows}

    def work(context: Context) -> Outcome:
        return _train(Stage(context, table, table.name))

    version = 2 if isinstance(table, ChatTable) else 1
    return Node(table.name, table.kind, version, tuple(parents), decides, work, trains=True)


def _train(stage: Stage) -> Outcome:
    from llmctl.stages.mix import show_mix
    from llmctl.train.distributed import launched_rank, launched_world_size, start_ranks
    from llmctl.train.job import JOB_FILE, TrainJob
    from llmctl.train.run import run_job

    joined, rank, ranks = launched_world_size(), launched_rank(), stage.context.ranks or stage.table.processes
    trained = stage.model.exists()  # written aside and renamed; only the measuring is left
    if rank > 0:
        if not trained:
            run_job(lambda: TrainJob.read(stage.folder / JOB_FILE))
        return Outcome([])
    if not trained:
        job = make_job(stage, joined if joined > 1 else ranks)
        show_mix(stage, job)
        file = job.write()
        if joined == 1 and ranks > 1:
            start_ranks(file, ranks)
        else:
            run_job(lambda: job)
        raise_if_asked()  # a signal of the last step; the model is there, and is measured another time
    for left in ("checkpoints", "best"):
        shutil.rmtree(stage.folder / left, ignore_errors=True)  # a kill may have come before they were removed
    metrics = tokens_consumed(stage) | expected_and_measured(stage) | specialty(stage.table.kind).report(stage)
    kept = ["trainer", *(name for name in ("kept", "long", *ANSWERS) if (stage.folder / name).exists())]
    if not (stage.folder / "adapter").exists():
        return Outcome(["model"], kept=kept, metrics=metrics)
    # The adapter's config names its base by an absolute path, which is no part of what was made.
    return Outcome(["model", f"adapter/{ADAPTER_WEIGHTS}"], kept=[*kept, "adapter"], metrics=metrics)


def tokens_consumed(stage: Stage) -> dict[str, float]:
    """Tokens that the model which the stage leaves was trained on, padding included, of each part of its mix."""
    from llmctl.tokens.order import deal
    from llmctl.train.checkpoint import SavedState
    from llmctl.train.job import JOB_FILE, TrainJob

    job = TrainJob.read(stage.folder / JOB_FILE)
    made = SavedState(stage.folder / "trainer").position.step
    rows = deal(job.settings.steps.rows_before(made), [part.share for part in job.parts])
    return {f"tokens/{part.name}": count * stage.table.seq_len for part, count in zip(job.parts, rows, strict=True)}


def expected_and_measured(stage: Stage) -> dict[str, float]:
    """Speed, time and memory as they were told before training, and as they were."""
    from llmctl.train.forecast import FORECAST_FILE

    file = stage.folder / FORECAST_FILE
    if not file.is_file():  # trained by a version that told nothing
        return {}
    return {f"{when}/{what}": value for when, found in read_json(file).items() for what, value in found.items()}


def make_job(stage: Stage, ranks: int) -> Any:
    """The `TrainJob` of a stage on `ranks` ranks; tokenises chat data if the stage has any."""
    from llmctl.stages.shape import model_shape
    from llmctl.tokens.tokenizer import load_tokenizer
    from llmctl.train.data import rows_of
    from llmctl.train.job import TrainJob

    recipe, special = stage.recipe, specialty(stage.table.kind)
    if isinstance(stage.table, LoraTable) and stage.table.quantize != "none":
        from llmctl.model.quantized import require_nf4

        require_nf4()  # before anything is tokenised
    parts, shape = special.data(stage), None
    if stage.parent_model is None:
        shape = model_shape(recipe, len(load_tokenizer(str(stage.tokenizer))), stage.table.seq_len)
    rows = sum(len(rows_of(part, stage.table)) for part in parts) if stage.table.epochs is not None else 0
    budget = stage.table.tokens or round(rows * (stage.table.epochs or 1.0)) * stage.table.seq_len
    table = by_ladder(stage.table, shape, stage.parent_model, budget)
    plan = plan_stage(table, ranks)
    steps = max(1, plan.shape.within_tokens(budget))
    events.say(plan.line(steps))
    return TrainJob(
        folder=str(stage.folder),
        stage=stage.name,
        steps=steps,
        table=table.model_dump(mode="json", by_alias=True),
        tokenizer=str(stage.tokenizer),
        parts=parts,
        **while_running(stage),
        shape=shape,
        parent=stage.parent_model,
        moments=moments(stage),
        seed=stage.seed,
        deepspeed=recipe.deepspeed,
        profile=stage.context.profile,
        **special.additions(stage),
    )


def moments(stage: Stage) -> str | None:
    """The trainer state whose moments the stage goes on with.

    Raises:
        UserError: it was removed on purpose.
    """
    if not stage.table.carry_optimizer:
        return None
    if stage.parent is None:
        events.say(f"{stage.table.from_} is no stage of this run and has no trainer state; moments start at zero")
        return None
    trainer = stage.parent.folder / "trainer"
    if trainer.name in stage.parent.removed:
        raise UserError(
            f"{trainer} was removed (`llmctl clean --trainers`), and {stage.name} goes on with its moments; remove "
            f"{stage.parent.folder} to have it made again, or set {stage.name}.carry_optimizer = false"
        )
    if not trainer.is_dir():
        events.warn(f"{stage.parent.name} left no trainer state; moments start at zero")
        return None
    return str(trainer)


def while_running(stage: Stage) -> dict[str, Any]:
    """The held-out shards and suites that are measured while the stage runs, made in its own folder."""
    from llmctl.stages.questions import tasks_of
    from llmctl.stages.tokens import tokenise
    from llmctl.suites.task import write_tasks
    from llmctl.train.job import DataPart

    table, found = stage.table, {}
    if table.eval.every_steps is None:
        return found
    parts = []
    for source, share in table.mix.items():
        out = stage.folder / "data" / "heldout" / source
        if source in stage.recipe.text_sources:
            tokenise(stage.corpus, source, str(stage.tokenizer), out, part="heldout")
        elif not out.exists():  # conversations have theirs by now
            continue  # of token ids nothing is held out
        parts.append(DataPart(source, str(out), share, table.packing))
    found["heldout"] = parts
    if table.eval.suites:
        file = stage.folder / "data" / "tasks.json"
        write_tasks(file, *tasks_of(table.eval.suites, stage.corpus, stage.recipe, table.eval.questions))
        found["tasks"] = str(file)
    return found


def by_ladder(table: TrainTable, shape: dict[str, Any] | None, place: str | None, budget: int) -> TrainTable:
    """The table of a stage with what it leaves out of rate and batch by the rules of Olmo 3's model ladder, said aloud. The
    model is a new one of `shape`, or that of `place`."""
    if table.lr is not None and table.batch_tokens is not None:
        return table
    from llmctl.model.build import ModelShape, body_parameters, model_config
    from llmctl.model.load import load_config

    config = model_config(ModelShape(**shape)) if shape is not None else load_config(str(place))
    parameters = body_parameters(config)
    filled = filled_in(table, parameters, budget)
    assert filled.lr is not None
    found = [f"lr = {filled.lr:g}"] if table.lr is None else []
    found += [f"batch_tokens = {filled.batch_tokens:,}"] if table.batch_tokens is None else []
    events.say(
        f"{table.name}: {' and '.join(found)} by Olmo 3's model ladder, for {parameters:,} weights without the input embedding"
    )
    return filled
