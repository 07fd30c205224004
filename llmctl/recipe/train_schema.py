"""What every stage has, and every stage that trains."""

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from llmctl.recipe.execution_schema import CheckpointTable, KernelSetting, LoopEvalTable
from llmctl.recipe.fields import NAME, Place, Rate, Share, Table, execution
from llmctl.recipe.quantities import Length, Tokens
from llmctl.recipe.steps import Growth, Steps

TOKENS = TypeAdapter(Tokens)
MOST_REPETITIONS = 8.0

StageKind = Literal["pretrain", "midtrain", "longctx", "sft", "lora", "average"]
ScheduleKind = Literal["constant", "linear", "cosine", "wsd"]


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
    batch_tokens: Tokens | None = Field(default=None, gt=0)
    """Tokens in a step, over all ranks; a multiple of seq_len. Left out: by Olmo 3's model ladder, from the model's size."""
    batch_warmup_tokens: Tokens | None = Field(default=None, gt=0)
    """Tokens in which the batch doubles from `batch_warmup_from` to `batch_tokens`. Left out: it is the same from the start."""
    batch_warmup_from: Tokens | None = Field(default=None, gt=0)
    """Tokens in the first steps: batch_tokens halved some times. Left out: an eighth."""
    length_warmup_tokens: Tokens | None = Field(default=None, gt=0)
    """Tokens in which attention's reach doubles from `length_warmup_from` to `seq_len`: rows are seen in pieces until then."""
    length_warmup_from: Length = Field(default=512, ge=8)
    """Tokens that attention sees at most in the first steps."""
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
    lr: float | None = Field(default=None, gt=0)
    """Peak learning rate of AdamW. Left out: by Olmo 3's model ladder, from the model's size."""
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
    schedule: ScheduleKind = "cosine"
    """How the rate falls after the warmup; wsd is flat until its last `decay_fraction`."""
    schedule_tokens: Tokens | None = Field(default=None, gt=0)
    """Tokens at which the schedule ends as it was planned; more than the budget cut it short."""
    stretch_from: Tokens | None = Field(default=None, gt=0)
    """Tokens after which what is left of the schedule is stretched to the end of the budget (Olmo 3: half of its cosine)."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps of linear warmup from zero."""
    warmup_tokens: Tokens | None = Field(default=None, gt=0)
    """The same in tokens, instead of `warmup_steps`."""
    decay_fraction: float = Field(default=0.2, gt=0, le=1)
    """Share of the steps in which wsd decays."""
    final_lr_fraction: float = Field(default=0.0, ge=0, le=1)
    """Rate at the end, as a share of the peak."""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """Global norm that gradients are clipped to, those of Muon's matrices apart, which are not; 0 does not clip."""
    z_loss: float = Field(1e-5, ge=0)
    """Weight of the squared log-partition, kept out of the reported loss."""
    skip_sigmas: float = Field(default=6.0, ge=0)
    """A step whose loss or gradient norm is so many deviations above the last 128 is left out (Olmo 3: 6); 0: none is."""
    max_rollbacks: int = Field(default=2, ge=0)
    """How often a stage whose loss is no number any more goes back to a checkpoint and past the steps that did it."""
    carry_optimizer: bool = False
    """Whether the parent's optimizer moments come along; steps and schedule start anew."""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Share that a running mean of the weights keeps of itself in every step; the stage then leaves the mean as its model."""
    early_stopping: int | None = Field(default=None, ge=1)
    """Measurements of held-out loss in a row without a new lowest, after which the stage ends; it leaves the model of the lowest.
    Needs every_steps in the stage's eval table."""
    zero_stage: Literal[0, 1, 2, 3] = execution(0)
    """DeepSpeed ZeRO: 1 shards optimizer states, 2 gradients too, 3 weights too."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Of the products; master weights are fp32 always. auto: bf16 where the hardware multiplies it, else fp32."""
    offload_optimizer: bool = execution(False)
    """Keep optimizer states in the host's memory (ZeRO 1 to 3)."""
    activation_checkpointing: bool | Annotated[int, Field(ge=1)] = execution(False)
    """Recompute activations in the backward pass: less memory, about a third more time. A number: of every so many layers one."""
    offload_activations: bool = execution(False)
    """Keep what activation checkpointing keeps in the host's memory; needs activation_checkpointing."""
    tiled_mlp: bool = execution(False)
    """Compute the feed-forward layers in tiles of tokens, so that their inner activations are never there in whole."""
    sequence_parallel: int = execution(1, ge=1)
    """Ranks that share each row; every other number of ranks is a multiple of it."""
    sequence_exchange: Literal["auto", "heads", "keys"] = execution("auto")
    """What they exchange in attention. heads: DeepSpeed Ulysses (arXiv 2309.14509), each rank attends with some of the heads to
    the whole row. keys: each rank gathers all keys and values, as Llama 3 does. auto: heads, where they can be shared out."""
    compile: Literal["auto"] | bool = execution("auto")
    """torch.compile of every layer. auto: on a GPU."""
    kernels: KernelSetting = execution("auto")
    """Fused kernels. auto: those that pay, where they run, and the best attention that is installed. torch: none but torch's own.
    Or a list of ours, for trials: kernels/README.md says what each saves."""
    processes: int = execution(1, ge=1)
    """Ranks to start when the command line names none."""
    checkpoint: CheckpointTable = execution(CheckpointTable())
    """When the trainer's state is written."""
    eval: LoopEvalTable = execution(LoopEvalTable())
    """What is measured while the stage runs."""

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

    @property
    def steps(self) -> Steps:
        """How tokens are made into steps. Where the recipe leaves `batch_tokens` out, it has to be filled in before."""
        assert self.batch_tokens is not None
        growth = None
        rows = self.batch_tokens // self.seq_len
        if self.batch_warmup_tokens is not None:
            first = self.batch_warmup_from or self.batch_tokens // 8
            growth = Growth(first // self.seq_len, rows, self.batch_warmup_tokens)
        return Steps(self.seq_len, rows, growth)

    @property
    def reach(self) -> Growth:
        """Tokens that attention sees at most, by the tokens trained on."""
        return Growth(min(self.length_warmup_from, self.seq_len), self.seq_len, self.length_warmup_tokens or 0)

    def most_repetitions(self, source: str) -> float:
        """How often the rows of a source may be repeated."""
        if isinstance(self.max_repetition, dict):
            return self.max_repetition.get(source, MOST_REPETITIONS)
        return self.max_repetition
