"""How long a step takes on a machine that is not at hand, from operations, bytes and rates: expected, not measured.

Products take their operations at a share of the peak that trainers reach; what is communicated, moved to the host and
updated takes its bytes at the rate of the link that they go over. A row is taken for one document, which is a bound from
above. Where each number is from stands beside it; what nobody has published is called assumed.
"""

from dataclasses import dataclass

from llmctl.preflight.activations import Load, numbers_of, offloaded_bytes, recomputed
from llmctl.preflight.decoder import Decoder
from llmctl.preflight.fit import Task
from llmctl.preflight.gpus import PCIE, Gpu

GPU_EFFICIENCY = 0.40
"""Of the bf16 peak: Olmo 3 7B in production reaches 0.43 and 32B 0.41 on H100 (its report), torchtitan 0.33 to 0.39 of Llama 3.1
8B on eight (its benchmarks of December 2024), OLMo-core 0.52 of 1B to 0.42 of 13B, LoRA of 7B and 8B in NeMo 0.40 to 0.43."""
CPU_EFFICIENCY = 0.35
"""Of the measured rate of large products: between half (10M weights, benchmarks/results/train_cpu.json) and less for less."""
LAUNCHES = 0.5e-3
"""Seconds that a block takes at least for one micro-batch: some 100 kernels forward and backward, each 5 us; assumed."""
HIDDEN = 0.5
"""Share of communication that goes on while products are computed; assumed."""
NODE, NETWORK = 8, 50e9
"""Ranks of a machine, and bytes/s of a rank between machines: 400 Gbit/s each, as H100 machines have."""
CPU_LINK = 1e9
"""Bytes/s between ranks on the CPU of one machine, through gloo; assumed."""
HOST = 100e9
"""Bytes/s of the host's memory, for what the ranks of a machine update there; assumed."""
ADAMW = 28
"""Bytes of a weight that an update reads and writes: weight, gradient and two moments in, all but the gradient out, fp32."""
MUON = 30
"""Products of an update, as operations a weight and unit of width: five iterations, each x x', its square and the product with x
(2 + 2 + 2)."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Of one rank's device."""

    products: float
    """FLOP/s of a training step's products, the efficiency in it."""
    bandwidth: float
    """Bytes/s of its memory."""
    link: float
    """Bytes/s to other ranks."""
    launches: float = 0.0
    """Seconds that a block's micro-batch takes at least."""


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of a step by part."""

    products: float
    communication: float
    """What is not hidden."""
    host: float
    """For what is in the host's memory."""
    update: float

    @property
    def seconds(self) -> float:
        return self.products + self.communication + self.host + self.update


def in_bfloat16(task: Task) -> bool:
    """Whether the stage's products are."""
    return numbers_of(task.table, task.machine.multiplies_bfloat16).product == 2


def expected_rates(task: Task) -> Rates | None:
    """Of the task's GPU. None: it is not known, or the products are in fp32, whose peaks are not."""
    gpu = task.machine.gpu
    return None if gpu is None or not in_bfloat16(task) else rates_of_gpu(gpu, task.machine.ranks)


def rates_of_gpu(gpu: Gpu, ranks: int) -> Rates | None:
    """None: its products are not in bf16."""
    if gpu.peak is None:
        return None
    link = gpu.link if ranks <= NODE else min(gpu.link, NETWORK)
    return Rates(GPU_EFFICIENCY * gpu.peak, gpu.bandwidth, link, LAUNCHES)


def rates_of_cpu(products: float, ranks: int) -> Rates:
    """`products`: FLOP/s of large products on the cores that so many ranks share. 10 GB/s of memory for each are assumed."""
    return Rates(CPU_EFFICIENCY * products / ranks, 10e9, CPU_LINK)


def step_time(task: Task, micro_batch: int, rates: Rates) -> StepTime:
    """Of a step as most are, when batch and length have grown."""
    table, decoder, machine = task.table, task.decoder, task.machine
    load = Load(micro_batch, table.seq_len, table.sequence_parallel)
    passes = passes_of(task, micro_batch)
    computed = flops_per_token(decoder, table.seq_len) * load.tokens * (1 + recomputed_share(task))
    floor = rates.launches * len(decoder.windows) * (1 + recomputed_share(task))
    moved = 2 * offloaded_bytes(decoder, table, load, numbers_of(table, machine.multiplies_bfloat16)) / PCIE
    on_host = host_update(task)
    return StepTime(
        products=passes * max(computed / rates.products, floor),
        communication=(1 - HIDDEN) * communicated_bytes(task, load, passes) / rates.link,
        host=passes * (1 - HIDDEN) * moved + on_host,
        update=0.0 if on_host else update_seconds(task, rates),
    )


def passes_of(task: Task, micro_batch: int) -> int:
    """Micro-batches of a rank in a step."""
    return max(1, task.table.steps.rows * task.table.sequence_parallel // (micro_batch * task.machine.ranks))


def flops_per_token(decoder: Decoder, length: int) -> float:
    """Model FLOPs of a token in a row of `length` tokens that is one document."""
    return decoder.work.flops_per_token({length: 1})


def recomputed_share(task: Task) -> float:
    """Operations that are made again, over those of the step: a third where all blocks are, for a forward pass is a third of
    forward and backward, and half of them below an adapter, where weights are frozen. Tiles make the feed-forward's again."""
    work = task.decoder.work
    forward = 2 * (work.trained + work.frozen) / (6 * work.trained + 4 * work.frozen)
    blocks = len(task.decoder.windows)
    again = sum(recomputed(task.table, number) for number in range(blocks)) / blocks
    if not task.table.tiled_mlp:
        return again * forward
    decoder = task.decoder
    inner = 3 * decoder.hidden_size * decoder.ffn_size * blocks / max(1, decoder.block_matrices)
    return (again + inner) * forward


def communicated_bytes(task: Task, load: Load, passes: int) -> float:
    """Bytes that a rank sends in a step. Gradients are reduced and gathered in fp32 (stage 0), or reduced and updated weights
    gathered in bf16 (1; at 2 after each micro-batch; at 3 weights are gathered for each pass besides). Ranks that share a row
    exchange queries, keys, values and outputs, forward and backward."""
    table, decoder, ranks = task.table, task.decoder, task.machine.ranks
    size = numbers_of(table, task.machine.multiplies_bfloat16).product
    sent = {
        0: 8 * decoder.trained,
        1: 2 * size * decoder.trained,
        2: size * decoder.trained * (passes + 1),
        3: size * passes * (2 * decoder.parameters + decoder.trained),
    }[table.zero_stage]
    exchanged = 0
    if load.parts > 1:
        exchanged = passes * 4 * size * (decoder.query_size + decoder.key_size) * load.tokens * len(decoder.windows)
    return sent * (ranks - 1) / ranks + exchanged * (load.parts - 1) / load.parts


def update_shares(task: Task) -> int:
    """Ranks that share the update out: all of them, but at ZeRO stage 0."""
    return task.machine.ranks if task.table.zero_stage else 1


def update_seconds(task: Task, rates: Rates) -> float:
    decoder, table = task.decoder, task.table
    by_muon = decoder.muon_matrices if table.optimizer == "muon" else 0
    products = MUON * decoder.hidden_size * by_muon / rates.products
    return (products + ADAMW * decoder.trained / rates.bandwidth) / update_shares(task)


def host_update(task: Task) -> float:
    """Seconds of an update in the host's memory: gradients there in fp32 and weights back in bf16, AdamW between."""
    if not task.table.offload_optimizer or not task.machine.on_gpu:
        return 0.0
    mine = task.decoder.trained / task.machine.ranks
    return 6 * mine / PCIE + ADAMW * mine * min(task.machine.ranks, NODE) / HOST
