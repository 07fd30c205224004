"""The recipe: every table and key, with what it means. The docstring of a field is what `llmctl explain` prints.

A field is part of a stage's identity (it decides the outcome, and so the key of the artifact) unless it is marked as
execution (how the work is done: ranks, micro-batch, checkpoints).
"""

from typing import Any

from pydantic import Field

from llmctl.recipe.chat_schema import LoraTable, SftTable
from llmctl.recipe.corpus_schema import TEXT_BUILTINS, CorpusTable
from llmctl.recipe.execution_schema import SuiteName, TrackingTable
from llmctl.recipe.fields import NAME, Place, Table, execution
from llmctl.recipe.long_schema import LongContextTable, LongEvalTable
from llmctl.recipe.model_schema import ModelTable
from llmctl.recipe.quantities import Size
from llmctl.recipe.tokenizer_schema import TokenizerTable
from llmctl.recipe.train_schema import ScheduleKind, StageTable, TrainTable

RESERVED = ("corpus", "tokenizer", "tokens", "eval")
"""Names of what a run makes beside the stages."""


class PretrainTable(TrainTable):
    """[pretrain]: a new model on the mix. Olmo 3 packs without document boundaries here."""


class MidtrainTable(TrainTable):
    """[midtrain]: the parent on a better mix, moments carried, rate straight to zero."""

    schedule: ScheduleKind = "linear"
    carry_optimizer: bool = True
    target: str | None = None
    """Source whose held-out bits per byte the stage is to lower. Left out: the largest of the mix."""


class AverageTable(StageTable):
    """A stage of kind "average": the mean of several checkpoints' weights."""

    of: list[Place] = Field(min_length=1)
    """Stages, folders or hub names."""
    weights: list[float] | None = None
    """One for each; they are normalised. Left out: equal."""


class EvalTable(Table):
    """[eval]: how stages and checkpoints are measured, always on held-out text."""

    suites: list[SuiteName] = ["builtin"]
    """Suites and tasks, as `llmctl eval --list` has them. builtin: those made from held-out source. Empty: none."""
    shots: int = Field(default=3, ge=0)
    """Examples in the prompt, beside the zero-shot score, of tasks that do not come with examples of their own."""
    questions: int = Field(default=200, ge=1)
    """Questions of each task at most."""
    bits_per_byte_bytes: Size = 512_000
    """Bytes of held-out text that bits per byte are measured on."""
    long_documents: int = Field(default=16, ge=1)
    """Held-out long documents for the loss by position."""
    generations: int = Field(default=100, ge=1)
    """Held-out prompts that answers are generated for."""
    answer_tokens: int = Field(default=96, ge=1)
    """Tokens of such an answer at most."""
    shown_answers: int = Field(default=20, ge=0)
    """Answers that are kept to be read, beside those of the parent."""
    long: LongEvalTable = LongEvalTable()
    """What a longer context is measured by."""


class Recipe(Table):
    """A recipe: the whole life of a model."""

    name: str = Field(pattern=NAME)
    """Of the run: its artifacts are in runs/NAME."""
    seed: int = 1
    """Of weights, data order and questions."""
    tokenizer: TokenizerTable | None = None
    """Left out: the tokenizer of the model that `from` names."""
    corpus: CorpusTable = CorpusTable()
    """The text of the run."""
    model: ModelTable | None = None
    """Shape of a new model."""
    stages: dict[str, PretrainTable | MidtrainTable | LongContextTable | SftTable | LoraTable | AverageTable] = {}
    """The stages by name."""
    eval: EvalTable = EvalTable()
    """How checkpoints are measured."""
    tracking: TrackingTable = TrackingTable()
    """Loggers."""
    deepspeed: dict[str, Any] = execution({})
    """Further keys of DeepSpeed's configuration, handed on as they are and not vouched for. What a stage's own keys say has no
    place here."""

    @property
    def text_sources(self) -> list[str]:
        return [name for name, source in self.corpus.sources.items() if source.kind == "text"]

    @property
    def token_sources(self) -> list[str]:
        return [name for name, source in self.corpus.sources.items() if source.kind == "tokens"]

    @property
    def reference_source(self) -> str | None:
        """The text that stages are compared on: the standard library where it is there, else the first text source."""
        names = self.text_sources
        return next((name for name in names if self.corpus.sources[name].path == TEXT_BUILTINS[0]), next(iter(names), None))


STAGE_TABLES: dict[str, type[StageTable]] = {
    "pretrain": PretrainTable,
    "midtrain": MidtrainTable,
    "longctx": LongContextTable,
    "sft": SftTable,
    "lora": LoraTable,
    "average": AverageTable,
}
