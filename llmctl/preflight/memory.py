"""Memory of a training step on one rank, from the shape of the model and the stage's table.

Weights, gradients and optimizer states as in the ZeRO paper (arXiv 1910.02054), section 3.1, in the formats of
`llmctl/train/deepspeed_engine.py`; activations by `llmctl/preflight/activations.py`; the output head by
`llmctl/model/loss.py`; buffers by DeepSpeed 0.19.8.
"""

from dataclasses import dataclass
from typing import Any

from llmctl.model.tiled import tile_tokens
from llmctl.preflight.activations import (
    Load,
    Numbers,
    block_bytes,
    copied_weights,
    frozen_in_bfloat16,
    is_packed,
    numbers_of,
    offloaded_bytes,
    recomputed,
    saved_bytes,
)
from llmctl.preflight.decoder import Decoder
from llmctl.preflight.gpus import Gpu
from llmctl.recipe.schema import TrainTable
from llmctl_kernels.choice import wanted
from llmctl_kernels.linear_cross_entropy import even_length

BUCKET = 500_000_000  # DeepSpeed's reduce_bucket_size, in numbers
LIVE = 1_000_000_000  # its stage3_max_live_parameters
PACKED = 0.55
"""Bytes of a weight in NF4, taken on the high side: half of one, and for each 64 weights a scale in 8 bits, make 0.516."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What the ranks run on."""

    ranks: int
    memory: int
    """Bytes that a rank may have: a GPU's, or its share of the host's."""
    on_gpu: bool
    multiplies_bfloat16: bool
    name: str
    gpu: Gpu | None = None
    """None: a CPU, or a GPU whose rates are not known."""

    @property
    def usable(self) -> int:
        """Bytes, without what torch and the driver hold before anything is trained and what the allocator loses in gaps. On a
        GPU 1 GiB and a twentieth, assumed; on a CPU 0.5 GiB and three tenths (measured: up to 1.4 times what is allocated)."""
        return int(self.memory * 0.95) - 2**30 if self.on_gpu else int(self.memory * 0.7) - 2**29


@dataclass(frozen=True, slots=True)
class States:
    """Bytes on a rank of what stays from step to step."""

    weights: float
    gradients: float
    optimizer: float
    """Masters and moments, and the running mean of the weights."""
    on_host: float = 0.0
    """Of it what is in the host's memory."""

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer


def states(
    table: TrainTable,
    parameters: int,
    trained: int,
    ranks: int,
    product_size: int,
    muon_matrices: int | None = None,
    packed: int = 0,
) -> States:
    """States of a model of `parameters` weights, of them `trained`, and `packed` in 4 bits. At stage 0 weights are fp32 and their
    own masters, and frozen ones may be held in bf16; at 1 to 3 they have `product_size` bytes, and fp32 masters and moments are
    shared by the ranks. Gradients are fp32; stage 2 shares them, too, stage 3 weights. AdamW has two moments, Muon one of its
    matrices (of all that is trained, if not said)."""
    stage = table.zero_stage
    by_muon = (trained if muon_matrices is None else muon_matrices) if table.optimizer == "muon" else 0
    moments = 8 * trained - 4 * by_muon + (4 * trained if table.ema_decay is not None else 0)
    plain = parameters - packed
    if stage == 0:
        frozen = 2 if frozen_in_bfloat16(table, product_size) else 4
        return States(4 * trained + frozen * (plain - trained) + PACKED * packed, 4 * trained, moments)
    weights = (product_size * plain + PACKED * packed) / (ranks if stage == 3 else 1)
    gradients = 4 * trained / (ranks if stage >= 2 else 1)
    optimizer = (4 * trained + moments) / ranks
    if not table.offload_optimizer:
        return States(weights, gradients, optimizer)
    if stage == 1:
        return States(weights, gradients, 0, optimizer)
    return States(weights, 0, 0, optimizer + gradients)  # gradients go to the host as they are reduced


def state_bytes(table: TrainTable, parameters: int, trained: int, ranks: int) -> float:
    """Bytes of weights, gradients and optimizer on a rank, where no more is known than the numbers of weights."""
    return states(table, parameters, trained, ranks, 4 if table.precision == "fp32" else 2).total


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on a rank, by part."""

    weights: float
    """With the bf16 copies that autocast makes."""
    gradients: float
    optimizer: float
    buffers: float
    """DeepSpeed's, for what ranks reduce and gather."""
    activations: float
    """Kept between the forward and the backward pass."""
    head: float
    """The loss head at work: a chunk of logits, and its weight's gradient in fp32."""
    block: float
    """One block at work in the backward pass, computed again where it was checkpointed."""
    update: float
    """The optimizer at work, when activations are gone."""
    set_up: float
    """The whole model, on every rank before ZeRO shares it: fp32, but for what is packed or held in bf16."""
    host: float
    """In the host's memory, for a rank on a GPU."""

    @property
    def step(self) -> float:
        """The peak of a step: head, block and update come one after the other."""
        kept = self.weights + self.gradients + self.optimizer + self.buffers
        return kept + max(self.activations + max(self.head, self.block), self.update)

    @property
    def needs(self) -> float:
        """The peak, set-up included, which comes before the steps."""
        return max(self.set_up, self.step)


def bucket_of(deepspeed: dict[str, Any]) -> int:
    """The reduce_bucket_size of a recipe's [deepspeed], in numbers."""
    return int(deepspeed.get("zero_optimization", {}).get("reduce_bucket_size", BUCKET))


def memory_of_step(decoder: Decoder, table: TrainTable, micro_batch: int, machine: Machine, bucket: int = BUCKET) -> Memory:
    """Memory of a step in micro-batches of `micro_batch` rows; `bucket`: DeepSpeed's reduce_bucket_size."""
    numbers = numbers_of(table, machine.multiplies_bfloat16)
    load = Load(micro_batch, table.seq_len, table.sequence_parallel)
    packed = decoder.block_matrices - decoder.muon_matrices if is_packed(table) else 0
    found = states(table, decoder.parameters, decoder.trained, machine.ranks, numbers.product, decoder.muon_matrices, packed)
    whole = 4 * decoder.parameters  # as it is read
    ready = PACKED * packed + 4 * (decoder.parameters - packed)  # as it comes onto a GPU
    if frozen_in_bfloat16(table, numbers.product):
        ready -= 2 * (decoder.parameters - decoder.trained)
    return Memory(
        weights=found.weights + copied_weights(decoder, table, numbers),
        gradients=found.gradients,
        optimizer=found.optimizer,
        buffers=buffer_bytes(decoder, table, machine, numbers, bucket),
        activations=saved_bytes(decoder, table, load, numbers, machine.on_gpu),
        head=head_bytes(decoder, table, load, numbers, machine.on_gpu),
        block=working_block(decoder, table, load, numbers, machine.on_gpu),
        update=update_bytes(decoder, table, machine, bucket),
        set_up=ready if machine.on_gpu else whole,
        # A rank reads the model in the host's memory, and the engine copies the masters from there.
        host=max(whole + 4 * decoder.trained, found.on_host + offloaded_bytes(decoder, table, load, numbers))
        if machine.on_gpu
        else 0,
    )


def head_bytes(decoder: Decoder, table: TrainTable, load: Load, numbers: Numbers, on_gpu: bool) -> int:
    """The most that the loss head holds beside what it leaves: hidden states [T, D], the weight's gradient [V, D] in fp32 and, in
    bf16 on a CPU, its summand of a chunk, the weight's copy, logits [chunk, V] and, where they are not fused, log-probabilities;
    or in the backward pass the gradient again, as the weight is."""
    width, rows, size = decoder.hidden_size, decoder.vocab_size, numbers.product
    fused = on_gpu and "linear_cross_entropy" in wanted(table.kernels)
    chunk = min(load.tokens, even_length(load.tokens, rows, on_gpu, fused))
    logits = chunk * rows * (size if fused else 4 + size + (size if size == 2 else 0))
    forward = load.tokens * numbers.residual * width + logits + (size * rows * width if numbers.autocast else 0)
    if not decoder.head_trained:
        return forward
    gradient = 4 * rows * width
    backward = (2 if numbers.residual == 2 else 4) * rows * width
    summand = 0 if on_gpu or size == 4 else size * rows * width
    return gradient + max(forward + summand, backward)


def working_block(decoder: Decoder, table: TrainTable, load: Load, numbers: Numbers, on_gpu: bool) -> int:
    """A block in its backward pass: the gradient of its output and in fp32 two of its last norm's; or, when what the norm kept is
    gone, those of gate and up. All that the block keeps, too, where it is computed again. With tiles, one tile's inner
    activations and their gradients instead."""
    width, inner, tokens = decoder.hidden_size, decoder.ffn_size, load.tokens
    in_tile = min(tokens, tile_tokens(width)) if table.tiled_mlp else 0
    in_mlp = numbers.product * (6 * inner + width) * in_tile if table.tiled_mlp else 2 * numbers.product * inner * tokens
    gradients = tokens * numbers.residual * width + max(8 * width * tokens, in_mlp - 8 * width * tokens)
    again = (
        block_bytes(decoder, window, table, load, numbers, on_gpu)
        for number, window in enumerate(decoder.windows)
        if recomputed(table, number)
    )
    return gradients + max(again, default=0)


def update_bytes(decoder: Decoder, table: TrainTable, machine: Machine, bucket: int) -> float:
    """What the update takes: Muon stacks all matrices of one shape and iterates on five tensors of their size; ranks reduce
    gradients through a bucket (ZeRO 0 and 1), and a rank's part is copied into one piece (2 and 3)."""
    muon = 20 * decoder.largest_alike if table.optimizer == "muon" else 0
    if table.zero_stage >= 2:
        part = 0 if table.offload_optimizer else 4 * decoder.trained / machine.ranks
    else:
        part = 4 * min(bucket, decoder.trained) if machine.ranks > 1 else 0
    return max(muon, part)


def buffer_bytes(decoder: Decoder, table: TrainTable, machine: Machine, numbers: Numbers, bucket: int) -> int:
    """Buckets that DeepSpeed holds during the backward pass: in full, however small the model (on a CPU what is not written takes
    no memory); at stage 3 also the weights that are gathered."""
    size = bucket if machine.on_gpu else min(bucket, decoder.trained)
    if table.zero_stage == 1:  # in bf16 without offloading a class of its own, which has no bucket
        return 4 * size if numbers.product == 4 or table.offload_optimizer else 0
    if table.zero_stage == 2:
        return numbers.product * size
    return numbers.product * (size + min(LIVE, decoder.parameters)) if table.zero_stage == 3 else 0
