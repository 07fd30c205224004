"""A model folder as a GGUF file, tensor by tensor: memory stays about that of the largest one."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llmctl import events
from llmctl.errors import UserError
from llmctl.model.average import Weights
from llmctl.model.gguf.architecture import Architecture, architecture_of, head_size, interleaved, tensor_name, window_of
from llmctl.model.gguf.positions import Positions, positions_of
from llmctl.model.gguf.vocabulary import Vocabulary, vocabulary_of
from llmctl.model.load import load_config
from llmctl.tokens.tokenizer import load_tokenizer

Kind = Literal["f32", "f16", "bf16", "q8_0"]
FILE_TYPES = {"f32": 0, "f16": 1, "bf16": 32, "q8_0": 7}
"""`general.file_type` (`LlamaFileType`)."""
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
F16_LARGEST = 65504.0


@dataclass(frozen=True, slots=True)
class About:
    """What a file says of itself."""

    name: str
    description: str | None = None
    author: str | None = None
    lineage: dict[str, str] | None = None
    """Strings below `llmctl.`, as {"run": ..., "key": ...}."""
    base_models: tuple[str, ...] = ()


class Export:
    """A model folder that llama.cpp can compute, ready to be written."""

    def __init__(self, folder: Path) -> None:
        """Raises:
        UserError: llama.cpp cannot compute this model, split its text or turn its positions, with the reason.
        """
        self.folder = folder
        self.config = load_config(str(folder))
        self.architecture: Architecture = architecture_of(self.config)
        self.positions: Positions = positions_of(self.config, self.architecture)
        self.tokenizer = load_tokenizer(str(folder))
        self.weights = Weights(folder)
        rows = (self.weights.shape(EMBEDDING) or [0])[0]
        if len(self.tokenizer) > rows:
            raise UserError(f"{folder}: its tokenizer has {len(self.tokenizer):,} tokens and the model embeds {rows:,}")
        self.vocabulary: Vocabulary = vocabulary_of(self.tokenizer, rows)
        self.sources = self._sources()

    def _sources(self) -> dict[str, str]:
        """llama.cpp's tensors, each with the name of the one that it is made from."""
        tied = bool(self.config.tie_word_embeddings)
        found = {tensor_name(self.architecture, name): name for name in self.weights.names if not (tied and name == HEAD)}
        if tied and self.architecture.own_head:
            found["output.weight"] = EMBEDDING
        return found

    def write(self, path: Path, kind: Kind, about: About) -> None:
        """Write the file; matrices as `kind`, norms and biases in fp32, as llama.cpp's kernels want them.

        Raises:
            UserError: a weight is too large for half precision.
        """
        from gguf import GGUFWriter

        writer = GGUFWriter(path, self.architecture.name)
        try:
            self._write_keys(writer, kind, about)
            for target, source in self.sources.items():
                declare(writer, target, self.weights.shape(source) or [], kind)
            if self.positions.factors:
                declare(writer, "rope_freqs.weight", [len(self.positions.factors)], kind)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for done, (target, source) in enumerate(self.sources.items(), 1):
                writer.write_tensor_data(packed(self._read(source), kind_of(target, self.weights.shape(source) or [], kind)))
                events.progress("exporting", done, len(self.sources), "tensors")
            if self.positions.factors:
                writer.write_tensor_data(factors_tensor(self.positions.factors))
        finally:
            writer.close()

    def _read(self, name: str) -> Any:
        tensor, config = self.weights.read(name).float(), self.config
        if self.architecture.pairs_interleaved and ".q_proj." in name:
            tensor = interleaved(tensor, config.num_attention_heads)
        if self.architecture.pairs_interleaved and ".k_proj." in name:
            tensor = interleaved(tensor, config.num_key_value_heads)
        if not tensor.isfinite().all():
            raise UserError(f"{self.folder}: {name} has weights that are not finite")
        return tensor

    def _write_keys(self, writer: Any, kind: Kind, about: About) -> None:
        config, head = self.config, head_size(self.config)
        write_about(writer, about)
        writer.add_file_type(FILE_TYPES[kind])
        writer.add_quantization_version(2)
        writer.add_vocab_size(len(self.vocabulary.tokens))
        writer.add_context_length(config.max_position_embeddings)
        writer.add_embedding_length(config.hidden_size)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_key_length(head)
        writer.add_value_length(head)
        writer.add_rope_dimension_count(head)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        if (window := window_of(config)) is not None:
            writer.add_sliding_window(window)
        self.positions.write(writer)
        self.vocabulary.write(writer, self.tokenizer)


def write_about(writer: Any, about: About) -> None:
    writer.add_type("model")
    writer.add_name(about.name)
    if about.author:
        writer.add_author(about.author)
    if about.description:
        writer.add_description(about.description)
    if about.base_models:
        writer.add_base_model_count(len(about.base_models))
        for place, name in enumerate(about.base_models):
            writer.add_base_model_name(place, name)
    for key, value in (about.lineage or {}).items():
        writer.add_string(f"llmctl.{key}", value)


def kind_of(target: str, shape: list[int], kind: Kind) -> Kind:
    """The type of one tensor: Q8_0 takes rows of whole blocks of 32 alone, and what has no such rows stays in half precision."""
    if len(shape) < 2:
        return "f32"
    return "f16" if kind == "q8_0" and shape[-1] % 32 else kind


def declare(writer: Any, target: str, shape: list[int], kind: Kind) -> None:
    import numpy as np
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    quantisation = GGMLQuantizationType[kind_of(target, shape, kind).upper()]
    block, size = GGML_QUANT_SIZES[quantisation]
    writer.add_tensor_info(target, shape, np.dtype(np.float32), math.prod(shape) // block * size, raw_dtype=quantisation)


def packed(tensor: Any, kind: Kind) -> Any:
    """An fp32 tensor as the bytes of a type.

    Raises:
        UserError: a number is too large for it.
    """
    from gguf import GGMLQuantizationType, quants

    if kind == "f16" and tensor.abs().max() > F16_LARGEST:
        raise UserError(f"a weight of {tensor.abs().max():g} is too large for half precision: take --type bf16")
    return quants.quantize(tensor.contiguous().numpy(), GGMLQuantizationType[kind.upper()])


def factors_tensor(factors: list[float]) -> Any:
    import numpy as np

    return np.array(factors, dtype=np.float32)
