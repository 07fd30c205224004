"""[model]."""

from pydantic import Field

from llmctl.recipe.fields import Table


class ModelTable(Table):
    """[model]: the shape of a new model, an Olmo 3. A preset, and keys over it."""

    preset: str | None = None
    """A published shape: olmo3_190m, olmo3_1b, olmo3_7b, olmo3_32b and others."""
    hidden_size: int | None = Field(default=None, ge=8)
    """Width of the residual stream."""
    layers: int | None = Field(default=None, ge=1)
    """Layers; every fourth and the last see the whole context, the others a window."""
    heads: int | None = Field(default=None, ge=1)
    """Query heads."""
    kv_heads: int | None = Field(default=None, ge=1)
    """Key and value heads; `heads` must be a multiple. Left out: as many as `heads`."""
    head_size: int | None = Field(default=None, ge=2)
    """Width of a head. Left out: hidden_size / heads."""
    ffn_size: int | None = Field(default=None, ge=8)
    """Inner width of the SwiGLU feed-forward."""
    window: int | None = Field(default=None, ge=1)
    """Tokens that a sliding-window layer sees, the current one included."""
    rope_theta: float = 500_000.0
    """Base of the rotary position embedding."""
    vocab_size: int | None = Field(default=None, ge=256)
    """Rows of the embedding. Left out: the tokenizer's vocabulary, padded to a multiple of 128."""
    tie_embeddings: bool = False
    """Whether the output head shares the input embedding's weights."""
    norm_eps: float = 1e-6
    """Epsilon of the RMS norms."""
    init_std: float = 0.02
    """Standard deviation of the truncated normal that every matrix starts from."""
    embedding_std: float | None = Field(default=None, gt=0)
    """The same for the input embedding. Left out: init_std, as Olmo 3. Olmo 3 norms what a block adds and not what it
    reads, so that short runs learn faster from embeddings near the size of what the blocks add, 1."""
