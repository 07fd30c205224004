"""Memory that does not suffice is told in the recipe's words."""

import math
from typing import Any

import pytest
import torch
from one_weight import ROWS, Engine, settings

from llmctl.preflight.memory import Machine, state_bytes
from llmctl.recipe.schema import PretrainTable
from llmctl.train.checkpoint import Position
from llmctl.train.loop import train
from llmctl.train.memory import OutOfMemory, memory_of, remedies, told


def table(**keys) -> PretrainTable:
    return PretrainTable.model_validate({"name": "pretrain", "kind": "pretrain", "seq_len": 4096, "batch_tokens": 2**17, **keys})


def machine(ranks: int, on_gpu: bool) -> Machine:
    return Machine(ranks, 80 * 2**30, on_gpu, True, "this machine")


def test_what_a_cpu_cannot_allocate_is_named():
    told = r"for the forward pass: DefaultCPUAllocator.*allocate 4611686018427387904 bytes"
    with pytest.raises(OutOfMemory, match=told), memory_of("the forward pass"):
        torch.empty(2**62, dtype=torch.uint8)


def test_other_failures_stay_what_they_are():
    with pytest.raises(RuntimeError, match="must match"), memory_of("the forward pass"):
        torch.ones(2).add_(torch.ones(3))


class Full(Engine):
    """A GPU whose memory is full at one part of a step."""

    def __init__(self, part: str) -> None:
        super().__init__({})
        self.part = part

    def _fail(self, part: str) -> None:
        if part == self.part:
            raise torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB"
            )

    def accumulate(self, batch, global_count: int, last: bool):
        self._fail("the forward and backward pass")
        return super().accumulate(batch, global_count, last)

    def step(self, multiplier: float, norm_limit: float = math.inf) -> float:
        self._fail("the optimizer's step")
        return super().step(multiplier, norm_limit)


@pytest.mark.parametrize("part", ["the forward and backward pass", "the optimizer's step"])
def test_the_loop_says_at_which_part(tmp_path, part):
    engine: Any = Full(part)
    with pytest.raises(OutOfMemory, match=f"for {part}: Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB"):
        train(engine, ROWS, settings(tmp_path), Position(0, 0, 0))


def test_the_message_has_what_the_state_takes_and_the_keys_that_help():
    text = told(OutOfMemory("memory does not suffice"), table(), 8, 2**30, 2**30, ranks=4)
    assert "take 16.00 GiB of each of 4 ranks" in text  # fp32 weights, gradients and two moments
    assert "the rest is for micro_batch = 8 rows of 4,096 tokens" in text
    assert text.index("micro_batch = 1 ") < text.index("activation_checkpointing = true") < text.index("zero_stage = 1")


def test_what_is_done_already_is_not_advised():
    keys = {"zero_stage": 3, "offload_optimizer": True, "activation_checkpointing": True, "offload_activations": True,
            "tiled_mlp": True, "sequence_parallel": 8}  # fmt: skip
    assert remedies(table(**keys), 1, machine(8, on_gpu=True)) == ["more ranks", "a shorter seq_len, or a smaller model"]


def test_a_gpu_is_advised_all_that_the_plan_would_advise():
    asked = table(activation_checkpointing=True, zero_stage=1)
    assert remedies(asked, 2, machine(8, on_gpu=True)) == [
        "micro_batch = 1 (the same result, a little slower)",
        "tiled_mlp = true (feed-forward layers computed again)",
        "offload_activations = true (block inputs in the host's memory)",
        "zero_stage = 2 (shards gradients over the ranks)",
        "sequence_parallel = 2 (2 ranks share each row)",
        "offload_optimizer = true (optimizer in the host's memory)",
        "more ranks",
        "a shorter seq_len, or a smaller model",
    ]


def test_a_cpu_has_no_host_beside_it():
    found = "; ".join(remedies(table(), 1, machine(1, on_gpu=False)))
    assert "tiled_mlp = true" in found
    assert "offload" not in found
    assert "more ranks with a zero_stage" in found


def test_stages_shard_what_the_zero_paper_says():
    """Its example: 7.5B weights on 64 ranks take 120 GB without, 31.4, 16.6 and 1.9 GB; here gradients are kept in fp32."""
    size = 7_500_000_000
    by_stage = [state_bytes(table(zero_stage=stage, precision="bf16"), size, size, 64) / size for stage in (1, 2, 3)]
    assert by_stage == pytest.approx([2 + 4 + 12 / 64, 2 + 4 / 64 + 12 / 64, (2 + 4 + 12) / 64])
    assert state_bytes(table(), size, size, 64) / size == 16
