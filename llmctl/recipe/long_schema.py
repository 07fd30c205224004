"""[longctx] and its tables: how positions are scaled, which long documents are trained on, and what must not suffer."""

from typing import Literal

from pydantic import Field

from llmctl.recipe.execution_schema import SuiteName
from llmctl.recipe.fields import Place, Share, Table, execution
from llmctl.recipe.quantities import Length
from llmctl.recipe.train_schema import ScheduleKind, TrainTable

LongTask = Literal["needle", "needle_multikey", "needle_multivalue", "variables", "common_words", "frequent_words", "aggregation"]


class RopeTable(Table):
    """[longctx.rope]: how positions are scaled to the longer context."""

    method: Literal["yarn", "linear", "ntk", "llama3", "base", "none"] = "yarn"
    """yarn (arXiv 2309.00071), linear interpolation of positions (arXiv 2306.15595), ntk: a base that grows with the factor,
    llama3: as Llama 3.1 has it, base: `theta` set outright (arXiv 2309.16039), or none."""
    factor: float = Field(default=8.0, ge=1)
    """New length over original length; base and none have none."""
    theta: float | None = Field(default=None, gt=1)
    """The new base of method "base"."""
    original_length: Length | None = None
    """Context that the positions were trained for. Left out: the parent's."""
    beta_fast: float = Field(default=32.0, gt=0)
    """yarn: rotations in the original context above which a dimension is left as it is."""
    beta_slow: float = Field(default=1.0, gt=0)
    """yarn: rotations below which a dimension is interpolated in full."""
    attention_factor: float | None = Field(default=None, gt=0)
    """yarn: what sines and cosines are multiplied by. Left out: 0.1 ln(factor) + 1."""
    low_frequency_factor: float = Field(default=1.0, gt=0)
    """llama3: rotations in the original context below which a dimension is interpolated in full."""
    high_frequency_factor: float = Field(default=4.0, gt=0)
    """llama3: rotations above which a dimension is left as it is."""
    layers: Literal["full", "sliding", "all"] = "full"
    """Layers whose positions are scaled: those that see the whole context, as Olmo 3; those that see a window; or all."""

    @property
    def told(self) -> str:
        """The method with its one number, and the layers."""
        if self.method == "none":
            return "no scaling"
        size = f"a base of {self.theta or 0:,.0f}" if self.method == "base" else f"{self.method} x {self.factor:g}"
        return f"{size} on all layers" if self.layers == "all" else f"{size} on the {self.layers}-attention layers"

    def too_short(self, original: int, length: int) -> str:
        """What is wrong with a factor that does not reach."""
        return (
            f"factor = {self.factor:g} x {original:,} tokens reaches {original * self.factor:,.0f}, "
            f"and seq_len = {length:,} needs a factor of {length / original:g}"
        )


class SyntheticTable(Table):
    """[longctx.synthetic]: long documents with tasks woven in that need what stands far apart, as Olmo 3 has them."""

    cwe_share: Share = 0.0
    """Share of the stage's tokens from documents with questions on how often words occur in them (Olmo 3: 0.0388)."""
    rex_share: Share = 0.0
    """Share of the tokens from documents with passages that share a phrase, rewritten in twelve kinds of text (Olmo 3: 0.122)."""
    generator: Place = "template"
    """Who writes: template (no model), a model's folder or hub name, or the http address of an OpenAI-compatible endpoint."""
    model: str | None = None
    """Name of the model at an endpoint."""
    api_key_variable: str = execution("OPENAI_API_KEY")
    """Environment variable that holds the key of an endpoint; it may be unset."""
    min_document_tokens: Length | None = None
    """Documents from this length on are taken. Left out: half of seq_len."""
    max_documents: int = Field(default=100_000, ge=1)
    """Documents of each kind at most."""


class GuardTable(Table):
    """[longctx.guard]: what must not suffer at the parent's length."""

    policy: Literal["warn", "stop"] = execution("warn")
    """What happens where it did: a warning, or the stage fails."""
    bits_per_byte: float = execution(0.02, ge=0)
    """Rise of the bits per byte that is allowed, as a share of the parent's."""
    accuracy: float = execution(0.03, ge=0)
    """Fall of each task's accuracy that is allowed."""
    suites: list[SuiteName] = execution(["builtin"])
    """Few-shot suites and tasks that are compared with the parent. Empty: bits per byte alone."""
    questions: int = execution(100, ge=1)
    """Questions of each task at most."""
    shots: int = execution(0, ge=0)
    """Examples in their prompts."""


class LongEvalTable(Table):
    """[eval.long]: what a longer context is measured by, after the stage and with `llmctl eval --long`."""

    tasks: list[LongTask] = [
        "needle",
        "needle_multikey",
        "needle_multivalue",
        "variables",
        "common_words",
        "frequent_words",
        "aggregation",
    ]
    """Tasks made here after RULER (arXiv 2404.06654). Empty: none."""
    lengths: list[Length] = []
    """Tokens of their contexts. Left out: powers of two from the parent's length to the model's."""
    questions: int = Field(default=5, ge=1)
    """Questions of each task at each length."""
    depths: int = Field(default=5, ge=0)
    """Depths at which the needle of the map is hidden; 0: no map."""
    needles: int = Field(default=2, ge=1)
    """Questions at each depth and length of the map."""


class LongContextTable(TrainTable):
    """[longctx]: a longer context, on packed long documents beside the mix."""

    schedule: ScheduleKind = "linear"
    carry_optimizer: bool = True
    packing: Literal["concat", "best_fit"] = "best_fit"
    document_boundaries: bool = True
    rope: RopeTable = RopeTable()
    """How positions are scaled."""
    long_share: Share = 0.339
    """Share of the tokens from long documents; the rest is the mix. Olmo 3: 33.9 %."""
    long_mix: list[str] = []
    """Sources that long documents are taken from, each as far as it has them. Empty: those of the mix."""
    buckets: dict[Length, float] = {}
    """Long documents by length: the least tokens of each bucket, and its part of what they share. Olmo 3 has
    { 8k = 2.27, 16k = 1.85, 32k = 4.81 }. Left out: powers of two from an eighth of seq_len, in the parts that there are."""
    too_long: Literal["truncate", "fragment", "drop"] = "truncate"
    """Documents longer than a row: their beginning (as Olmo 3), all of them in pieces, or none."""
    drop_most_compressible: Share = 0.2
    """Share of each bucket's documents that gzip makes smallest: they repeat themselves. Olmo 3: 0.2."""
    drop_least_compressible: Share = 0.2
    """Share of each bucket's documents that gzip makes least smaller: tables, noise. Olmo 3: 0.2."""
    synthetic: SyntheticTable = SyntheticTable()
    """Long documents with tasks woven in."""
    guard: GuardTable = execution(GuardTable())
    """What must not suffer at the parent's length."""

    @property
    def bucket_edges(self) -> list[int]:
        """The least tokens of each bucket, ascending."""
        return sorted(self.buckets) or [max(1, self.seq_len >> halvings) for halvings in (3, 2, 1)]
