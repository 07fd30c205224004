"""Bytes that autograd keeps of a micro-batch between the forward and the backward pass, on one rank.

Every term is a tensor that torch's `saved_tensors_hooks` show of an Olmo 3 block (`transformers` 5.23): inputs of linear
layers, what a norm multiplies, what the feed-forward multiplies, and what attention needs. T tokens of the rank, width D,
Q = heads x head size, K = key heads x head size, inner width F, and three ways to compute: autocast over fp32 weights
(ZeRO stage 0), bf16 throughout (stages 1 to 3), fp32. A row is taken for one document: of shorter ones attention keeps less.
"""

from dataclasses import dataclass

from llmctl.model.lora_linear import holds_bfloat16
from llmctl.preflight.decoder import Decoder
from llmctl.preflight.plan import exchange_of_rows
from llmctl.recipe.chat_schema import LoraTable
from llmctl.recipe.schema import TrainTable
from llmctl_kernels.attention.documents import MOST_SCORES, SHORT


@dataclass(frozen=True, slots=True)
class Numbers:
    """Bytes of an element."""

    product: int
    """Of matrix products."""
    residual: int
    """Of the residual stream."""

    @property
    def autocast(self) -> bool:
        return self.product != self.residual


def numbers_of(table: TrainTable, multiplies_bfloat16: bool) -> Numbers:
    """The formats of a stage: as `precision` says, autocast at ZeRO stage 0. There the residual stream is as the embedding is:
    fp32, unless it is frozen and held in bf16."""
    if table.precision == "fp32" or (table.precision == "auto" and not multiplies_bfloat16):
        return Numbers(4, 4)
    embedding_held = frozen_in_bfloat16(table, 2) and isinstance(table, LoraTable) and not table.add_tokens
    return Numbers(2, 4 if table.zero_stage == 0 and not embedding_held else 2)


def frozen_in_bfloat16(table: TrainTable, product_size: int) -> bool:
    """Whether frozen weights are held in bf16 beside trained ones in fp32."""
    return isinstance(table, LoraTable) and holds_bfloat16(table.dora, table.quantize, table.zero_stage, product_size == 2)


def is_packed(table: TrainTable) -> bool:
    """Whether the frozen matrices of the blocks are in 4 bits."""
    return isinstance(table, LoraTable) and table.quantize != "none"


@dataclass(frozen=True, slots=True)
class Load:
    """What one rank computes at a time."""

    rows: int
    """Of the micro-batch."""
    seq_len: int
    """Tokens of a row."""
    parts: int = 1
    """Ranks that share each row."""

    @property
    def tokens(self) -> int:
        """On this rank."""
        return self.rows * -(-self.seq_len // self.parts)


def saved_bytes(decoder: Decoder, table: TrainTable, load: Load, numbers: Numbers, on_gpu: bool) -> int:
    """Bytes kept for the backward pass, weights and their copies left out: blocks, positions, the last norm, and the gradient of
    the hidden states [T, D] that the loss head leaves."""
    width, tokens = decoder.hidden_size, load.tokens
    rotary = 8 * decoder.head_size * len(set(decoder.windows))  # sine and cosine in fp32, of each kind of attention
    last_norm = (8 if decoder.blocks_trained else 4) * width + 4
    total = tokens * (8 + rotary + last_norm + numbers.residual * width)
    for number, window in enumerate(decoder.windows):
        if recomputed(table, number):
            total += 0 if table.offload_activations else tokens * numbers.residual * width
        else:
            total += block_bytes(decoder, window, table, load, numbers, on_gpu)
    return total


def offloaded_bytes(decoder: Decoder, table: TrainTable, load: Load, numbers: Numbers) -> int:
    """Bytes of block inputs [T, D] that go to the host's memory."""
    if not table.offload_activations:
        return 0
    blocks = sum(recomputed(table, number) for number in range(len(decoder.windows)))
    return blocks * load.tokens * numbers.residual * decoder.hidden_size


def recomputed(table: TrainTable, block: int) -> bool:
    """Whether activation checkpointing keeps the input alone of this block."""
    return bool(table.activation_checkpointing) and block % int(table.activation_checkpointing) == 0


def block_bytes(decoder: Decoder, window: int | None, table: TrainTable, load: Load, numbers: Numbers, on_gpu: bool) -> int:
    """Bytes kept of one block, its input among them where a linear layer keeps it."""
    width, queries, keys = decoder.hidden_size, decoder.query_size, decoder.key_size
    size = numbers.product
    # Linear layers keep their inputs: of q, k, v and of gate, up. Autocast makes a copy for each of the five.
    into_mlp = numbers.residual * width if table.tiled_mlp else (2 if numbers.autocast else 1) * size * width
    inputs = (3 if numbers.autocast else 1) * size * width + into_mlp
    # A norm keeps what it norms and the result, both fp32, and a factor a token; the result only where its weight is trained.
    normed = 2 * width + (queries + keys if decoder.query_key_norm else 0)
    norms = (8 if decoder.blocks_trained else 4) * normed + 4 * (4 if decoder.query_key_norm else 2)
    # down(silu(gate) * up): gate, silu(gate), up and the product.
    inner = 0 if table.tiled_mlp else 4 * size * decoder.ffn_size
    adapter = size * decoder.adapter_ranks  # the product with A, which the one with B has for its input
    return load.tokens * (inputs + norms + inner + adapter) + attention_bytes(decoder, window, table, load, size, on_gpu)


def attention_bytes(decoder: Decoder, window: int | None, table: TrainTable, load: Load, size: int, on_gpu: bool) -> int:
    """Bytes kept between the rotated queries and the output projection's input, that one included."""
    queries, keys, heads = decoder.query_size, decoder.key_size, decoder.heads
    exchange = 0
    if load.parts > 1:
        if exchange_of_rows(table, decoder.kv_heads) == "heads":  # what attention gives and what is sent back are two tensors
            exchange = size * queries
        else:  # keys and values of the whole row
            keys *= load.parts
    if on_gpu and size == 2:  # a fused kernel keeps its inputs, its output, which the projection shares, and a sum a head
        return load.tokens * (size * (2 * queries + 2 * keys) + 4 * heads + exchange)
    share = max(1, heads // load.parts)
    return per_document_bytes(load.rows, load.seq_len, window, share, decoder.head_size, size) + load.tokens * exchange


def per_document_bytes(rows: int, length: int, window: int | None, heads: int, head_size: int, size: int) -> int:
    """The same where documents go one by one through torch's attention [rows, heads, length, head_size], on a CPU above all."""
    vector = size * head_size
    if window is None or window >= length:
        kept = _attend_bytes(rows * heads, length, length, vector, size)
        shared = rows == 1 and kept[1]  # the fused kernel's output of one row is the projection's input
        return kept[0] + (0 if shared else rows * heads * length * vector)
    blocks = -(-length // window)
    first, fused = _attend_bytes(rows * heads, window, window, vector, size)
    if fused:  # a part of a tensor keeps the whole of it
        first += rows * heads * (blocks - 1) * window * 3 * vector
    rest, fused = _attend_bytes(rows * heads * (blocks - 1), window, 2 * window, vector, size)
    if fused:
        rest += rows * heads * window * vector + 4 * 2 * window**2
    return first + rest + rows * heads * length * vector


def _attend_bytes(batch: int, queries: int, keys: int, vector: int, size: int) -> tuple[int, bool]:
    """(bytes, whether the fused kernel is taken) of `attend` on `batch` heads: queries, keys, values, and the weights or the
    output and a sum a query."""
    inputs = batch * (queries + 2 * keys) * vector
    if size == 2 and keys <= SHORT and batch * queries * keys <= MOST_SCORES:
        return inputs + batch * queries * keys * size, False
    return inputs + batch * queries * (vector + 4), True


def copied_weights(decoder: Decoder, table: TrainTable, numbers: Numbers) -> int:
    """Bytes of the bf16 copies that autocast makes of the blocks' matrices. It keeps those of trained weights to the end of the
    forward pass; of frozen ones the graph does, and not where a block is computed again."""
    if not numbers.autocast:
        return 0
    if decoder.blocks_trained:
        return 2 * decoder.block_matrices
    return 2 * kept_matrices(decoder, table)


def kept_matrices(decoder: Decoder, table: TrainTable) -> int:
    """Weights of the matrices in blocks that are not computed again, of which autocast keeps copies: beside packed weights the
    adapter's alone, and none beside those that are held in bf16."""
    if frozen_in_bfloat16(table, 2):
        return 0
    blocks, matrices = len(decoder.windows), decoder.muon_matrices if is_packed(table) else decoder.block_matrices
    return matrices // blocks * sum(not recomputed(table, number) for number in range(blocks))
