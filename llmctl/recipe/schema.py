"""The recipe: every table and key, with what it means. The docstring of a field is what `llmctl explain` prints.

A field is part of a stage's identity (it decides the outcome, and so the key of the artifact) unless it is marked as
execution (how the work is done: ranks, micro-batch, checkpoints).
"""

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from llmctl.recipe.corpus_schema import TEXT_BUILTINS, CorpusTable
from llmctl.recipe.execution_schema import CheckpointTable, TrackingTable
from llmctl.recipe.fields import NAME, Place, Rate, Share, Table, execution
from llmctl.recipe.model_schema import ModelTable
from llmctl.recipe.quantities import Length, Size, Tokens
from llmctl.recipe.tokenizer_schema import TokenizerTable

RESERVED = ("corpus", "tokenizer", "tokens", "eval")
"""Names of what a run makes beside the stages."""

TOKENS = TypeAdapter(Tokens)
MOST_REPETITIONS = 8.0

StageKind = Literal["pretrain", "midtrain", "longctx", "sft", "lora", "average"]


class StageTable(Table):
    """What every stage has."""

    name: str = Field(pattern=NAME)
    """Of the stage; the table's own name."""
    kind: StageKind
    """What the stage does. The plain tables [pretrain], [midtrain], ... are of the kind of their name."""
    from_: Place | None = Field(default=None, alias="from")
    """Where the weights come from: a stage, a model folder, a GGUF file or a hub name.
    Left out: the nearest stage before it; pretrain makes a new model."""


class InfillingTable(Table):
    """[STAGE.infilling]: documents with their middle moved to the end (PSM, SPM), for code."""

    sources: list[str] = Field(min_length=1)
    """Sources of the mix whose documents are transformed."""
    rate: Share = 0.5
    """Share of their documents."""
    spm_rate: Share = 0.5
    """Share of these that begins with the suffix."""
    min_characters: int = Field(default=100, ge=3)
    """Shorter documents stay as they are."""


class TrainTable(StageTable):
    """What every stage that trains has."""

    tokens: Tokens | None = Field(default=None, gt=0)
    """Budget in tokens; rounded down to whole steps."""
    epochs: float | None = Field(default=None, gt=0)
    """Budget in passes over the mix, instead of `tokens`."""
    seq_len: Length = Field(default=8192, ge=8)
    """Tokens in a row."""
    batch_tokens: Tokens = Field(default=4_194_304, gt=0)
    """Tokens in a step, over all ranks; a multiple of seq_len."""
    micro_batch: int | None = execution(None, ge=1)
    """Rows in one forward pass of a rank. Left out: the largest that fits."""
    mix: dict[str, float] = {}
    """Share of the tokens from each source; the shares sum to 1. Or tokens of each, as in "3B": then `tokens` may be left out."""
    seed: int | None = None
    """Of the order of the rows, and of new weights. Left out: the recipe's."""
    max_repetition: float | dict[str, float] = MOST_REPETITIONS
    """How often the rows of a source may be repeated before the stage refuses the mix; a number, or one for each source."""
    packing: Literal["concat", "best_fit"] = "concat"
    """concat: documents one after the other, cut into rows. best_fit: whole documents fitted into rows, padded."""
    document_boundaries: bool = False
    """Whether attention, positions and loss stop at document boundaries inside a row."""
    infilling: InfillingTable | None = None
    """Documents with their middle moved to the end. Left out: as they are."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon: Muon on the matrices of the blocks, AdamW on the rest."""
    lr: float = Field(3e-4, gt=0)
    """Peak learning rate of AdamW."""
    muon_lr: float = Field(default=0.02, gt=0)
    """Peak learning rate of Muon."""
    muon_momentum: float = Field(default=0.95, ge=0, lt=1)
    """Decay rate of Muon's momentum."""
    betas: tuple[Rate, Rate] = (0.9, 0.95)
    """AdamW's decay rates of the moments."""
    eps: float = 1e-8
    """AdamW's epsilon."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Decoupled weight decay; input embeddings are left out."""
    decay_embeddings: bool = False
    """Whether input embeddings are decayed too."""
    schedule: Literal["constant", "linear", "cosine", "wsd"] = "cosine"
    """How the rate falls after the warmup; wsd is flat until its last `decay_fraction`."""
    schedule_tokens: Tokens | None = Field(default=None, gt=0)
    """Tokens at which the schedule ends, when planned longer than the budget."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps of linear warmup from zero."""
    decay_fraction: float = Field(default=0.2, gt=0, le=1)
    """Share of the steps in which wsd decays."""
    final_lr_fraction: float = Field(default=0.0, ge=0, le=1)
    """Rate at the end, as a share of the peak."""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """Global norm that gradients are clipped to, those of Muon's matrices apart, which are not; 0 does not clip."""
    z_loss: float = Field(1e-5, ge=0)
    """Weight of the squared log-partition, kept out of the reported loss."""
    skip_sigmas: float = Field(default=6.0, ge=0)
    """A step whose loss is this many standard deviations above the mean of the last 128 is left out (Olmo 3: 6); 0: none is."""
    max_rollbacks: int = Field(default=2, ge=0)
    """How often a stage whose loss is no number any more goes back to a checkpoint and past the steps that did it."""
    carry_optimizer: bool = False
    """Whether the parent's optimizer moments come along; steps and schedule start anew."""
    zero_stage: Literal[0, 1, 2, 3] = execution(0)
    """DeepSpeed ZeRO: 1 shards optimizer states, 2 gradients too, 3 weights too."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Of the products; master weights are fp32 always. auto: bf16 where the hardware multiplies it, else fp32."""
    offload_optimizer: bool = execution(False)
    """Keep optimizer states in the host's memory (ZeRO 1 to 3)."""
    activation_checkpointing: bool | Annotated[int, Field(ge=1)] = execution(False)
    """Recompute activations in the backward pass: less memory, about a third more time. A number: of every so many layers one."""
    compile: Literal["auto"] | bool = execution("auto")
    """torch.compile of every layer. auto: on a GPU."""
    processes: int = execution(1, ge=1)
    """Ranks to start when the command line names none."""
    checkpoint: CheckpointTable = execution(CheckpointTable())
    """When the trainer's state is written."""

    @model_validator(mode="before")
    @classmethod
    def _mix_in_tokens(cls, values: Any) -> Any:
        mix = values.get("mix") if isinstance(values, dict) else None
        if not isinstance(mix, dict) or not any(isinstance(part, str) for part in mix.values()):
            return values
        try:
            tokens = {name: TOKENS.validate_python(part) for name, part in mix.items()}
        except ValidationError:
            raise ValueError('mix: expected a share for every source, or tokens for every source, as in "3B"') from None
        total = sum(tokens.values())
        budget = {} if "tokens" in values or "epochs" in values else {"tokens": total}
        return values | budget | {"mix": {name: part / max(1, total) for name, part in tokens.items()}}

    def most_repetitions(self, source: str) -> float:
        """How often the rows of a source may be repeated."""
        if isinstance(self.max_repetition, dict):
            return self.max_repetition.get(source, MOST_REPETITIONS)
        return self.max_repetition


class PretrainTable(TrainTable):
    """[pretrain]: a new model on the mix. Olmo 3 packs without document boundaries here."""


class MidtrainTable(TrainTable):
    """[midtrain]: the parent on a better mix, moments carried, rate straight to zero."""

    schedule: Literal["constant", "linear", "cosine", "wsd"] = "linear"
    carry_optimizer: bool = True
    target: str | None = None
    """Source whose held-out bits per byte the stage is to lower. Left out: the largest of the mix."""


class RopeTable(Table):
    """[longctx.rope]: how positions are scaled to the longer context."""

    method: Literal["yarn", "linear", "none"] = "yarn"
    """yarn (arXiv 2309.00071), linear position interpolation, or none."""
    factor: float = Field(default=8.0, ge=1)
    """New length over original length."""
    original_length: Length | None = None
    """Context that the positions were trained for. Left out: the parent's."""
    beta_fast: float = 32.0
    """Rotations in the original context above which a dimension is left as it is."""
    beta_slow: float = 1.0
    """Rotations below which a dimension is interpolated in full."""
    layers: Literal["full", "all"] = "full"
    """Scale full-attention layers alone, as Olmo 3, or all."""


class LongContextTable(TrainTable):
    """[longctx]: a longer context, on packed long documents beside the mix."""

    schedule: Literal["constant", "linear", "cosine", "wsd"] = "linear"
    carry_optimizer: bool = True
    packing: Literal["concat", "best_fit"] = "best_fit"
    document_boundaries: bool = True
    rope: RopeTable = RopeTable()
    """How positions are scaled."""
    min_document_tokens: Length = 8192
    """Documents from this length on count as long."""
    long_share: float = Field(default=0.34, ge=0, le=1)
    """Share of the tokens from long documents; the rest is the mix. Olmo 3: 33.9 %."""
    long_mix: list[str] = []
    """Sources that long documents are taken from, each as far as it has them. Empty: those of the mix."""


class ChatTable(TrainTable):
    """What sft and lora share."""

    schedule: Literal["constant", "linear", "cosine", "wsd"] = "linear"
    packing: Literal["concat", "best_fit"] = "best_fit"
    document_boundaries: bool = True
    weight_decay: float = Field(default=0.0, ge=0)
    z_loss: float = Field(default=0.0, ge=0)
    loss_on: Literal["assistant", "last_turn"] = "assistant"
    """Train on every assistant turn and its closing token, or on the last one alone."""


class SftTable(ChatTable):
    """[sft]: conversations, prompts masked."""


class LoraTable(ChatTable):
    """[lora]: a low-rank adapter on frozen weights."""

    rank: int = Field(default=16, ge=1)
    """Rank of the adapter's matrices."""
    alpha: float = Field(default=32.0, gt=0)
    """The update is scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout before the adapter."""
    targets: list[str] | Literal["all_linear"] = "all_linear"
    """Names of the linear layers to adapt. all_linear: those of the blocks, not the output head."""


class AverageTable(StageTable):
    """A stage of kind "average": the mean of several checkpoints' weights."""

    of: list[Place] = Field(min_length=1)
    """Stages, folders or hub names."""
    weights: list[float] | None = None
    """One for each; they are normalised. Left out: equal."""


class EvalTable(Table):
    """[eval]: how stages and checkpoints are measured, always on held-out text."""

    suites: list[Literal["builtin", "docstring", "next_line", "module", "copy", "pattern"]] = ["builtin"]
    """Few-shot suites, made from held-out source. builtin: all of them. Empty: no few-shot evaluation."""
    shots: int = Field(default=3, ge=0)
    """Examples in the prompt, beside the zero-shot score."""
    questions: int = Field(default=200, ge=1)
    """Questions of each suite at most."""
    bits_per_byte_bytes: Size = 512_000
    """Bytes of held-out text that bits per byte are measured on."""
    long_documents: int = Field(default=16, ge=1)
    """Held-out long documents for the loss by position."""
    generations: int = Field(default=100, ge=1)
    """Held-out prompts that answers are generated for."""


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
