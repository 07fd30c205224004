"""The numbers of a decoder that decide what memory its training takes, read off a model that may be on the meta device."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from llmctl.errors import UserError
from llmctl.preflight.flops import Work


@dataclass(frozen=True, slots=True)
class Decoder:
    """A decoder of blocks with attention and a gated feed-forward, every number per model and not per rank."""

    hidden_size: int
    windows: tuple[int | None, ...]
    """Of each block, the keys that a query sees at most; None: all before it."""
    heads: int
    kv_heads: int
    head_size: int
    ffn_size: int
    vocab_size: int
    """Rows of the output head."""
    parameters: int
    trained: int
    block_matrices: int
    """Weights of the matrices in all blocks, an adapter's among them."""
    muon_matrices: int
    """Those that are trained, and so Muon's where it is the optimizer."""
    largest_alike: int
    """Trained weights of the blocks in matrices of one shape, the shape that has most: Muon takes them together."""
    query_key_norm: bool
    """Whether queries and keys are normed, as in Olmo 3."""
    head_trained: bool
    blocks_trained: bool
    """Whether the blocks' own weights are; below an adapter they are not."""
    adapter_ranks: int = 0
    """Ranks of the adapters of all layers of a block, added up; of blocks that differ, on average."""

    @property
    def query_size(self) -> int:
        return self.heads * self.head_size

    @property
    def key_size(self) -> int:
        return self.kv_heads * self.head_size

    @property
    def work(self) -> Work:
        """What a token costs."""
        head = self.vocab_size * self.hidden_size
        trained = self.muon_matrices + (head if self.head_trained else 0)
        return Work(trained, self.block_matrices + head - trained, self.windows, self.heads, self.head_size)


def decoder_of(model: Any) -> Decoder:
    """Read the numbers off a causal language model of `transformers`, with or without an adapter.

    Raises:
        UserError: a mixture of experts, or attention of another kind; what these keep is not known here.
    """
    from llmctl.model.loss import base_model

    base = base_model(model)
    config = base.config.get_text_config()
    layers = getattr(base, base.base_model_prefix).layers
    kinds = getattr(config, "layer_types", None) or ["window"] * config.num_hidden_layers
    unknown = {*kinds} - {"full_attention", "sliding_attention", "window"}
    experts = [name for name, parameter in model.named_parameters() if parameter.ndim > 2 or ".experts." in name]
    if unknown or experts:
        raise UserError(f"{config.model_type}: memory is not told ahead for {', '.join(unknown) or experts[0]}")
    window = getattr(config, "sliding_window", None)
    matrices = [parameter for parameter in layers.parameters() if parameter.ndim == 2]
    alike: Counter[tuple[int, ...]] = Counter()
    for parameter in matrices:
        if parameter.requires_grad:
            alike[tuple(parameter.shape)] += parameter.numel()
    head = base.get_output_embeddings().weight
    return Decoder(
        hidden_size=config.hidden_size,
        windows=tuple(None if kind == "full_attention" else window for kind in kinds),
        heads=config.num_attention_heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or config.num_attention_heads,
        head_size=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        ffn_size=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        vocab_size=head.shape[0],
        parameters=sum(map(weights_in, model.parameters())),
        trained=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        block_matrices=sum(map(weights_in, matrices)),
        muon_matrices=alike.total(),
        largest_alike=max(alike.values(), default=0),
        query_key_norm=any("q_norm" in name for name, _ in layers.named_parameters()),
        head_trained=head.requires_grad,
        blocks_trained=any(parameter.requires_grad and parameter.ndim == 1 for parameter in layers.parameters()),
        adapter_ranks=-(-sum(p.shape[0] for name, p in layers.named_parameters() if ".lora_A." in name) // len(layers)),
    )


def weights_in(parameter: Any) -> int:
    """Weights of a parameter: `bitsandbytes` packs two of 4 bits into a byte."""
    return parameter.numel() * (1 if parameter.is_floating_point() else 2)
