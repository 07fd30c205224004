"""DeepSpeed behind the `Engine` protocol, at every world size, ZeRO stages 0 to 3.

Stage 0 keeps fp32 weights and computes under autocast: DeepSpeed's own bf16 mode takes a hidden optimizer step there when
it sets its state up, and reports no gradient norm. Stages 1 to 3 run in DeepSpeed's bf16 mode (2-byte weights and
gradients, fp32 master and moments sharded), or in fp32.
"""

import contextlib
import io
import logging
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from llmctl.model.load import quieten
from llmctl.tokens.batch import Batch
from llmctl.train.clipping import clip_gradients
from llmctl.train.engine import (
    KEPT,
    ParameterState,
    ReadState,
    average_weights,
    read_parameter,
    set_learning_rates,
    write_parameter,
)
from llmctl.train.objective import CausalObjective, evaluating, trainable


def import_deepspeed() -> Any:
    """DeepSpeed with its banner off; it prints to stdout at import and at every initialisation otherwise."""
    quieten()
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    return deepspeed


class DeepSpeedEngine:
    def __init__(
        self,
        objective: CausalObjective,
        optimizer: torch.optim.Optimizer,
        settings: dict[str, Any],
        max_grad_norm: float,
        ema_decay: float | None = None,
    ) -> None:
        deepspeed = import_deepspeed()
        self.zero_stage: int = settings["zero_optimization"]["stage"]
        self.max_grad_norm, self.ema_decay = max_grad_norm, ema_decay
        self.objective = objective
        self.world_size = torch.distributed.get_world_size()
        self.rank = torch.distributed.get_rank()
        together = 1 if objective.sequence is None else objective.sequence.size
        self.data_rank, self.data_ranks = self.rank // together, self.world_size // together
        masters = {n: p.detach().to("cpu", torch.float32, copy=True) for n, p in trainable(objective).items()}
        self._inner = optimizer
        with contextlib.redirect_stdout(io.StringIO()):  # stage 1 in bf16 prints its memory four times
            self.engine, *_ = deepspeed.initialize(model=objective, optimizer=optimizer, config=settings)
        if self.world_size == 1 and self.zero_stage == 0:
            # DeepSpeed would flatten all gradients and copy them back, alone as it is: 8 % of a small model's step.
            self.engine.enable_backward_allreduce = False
        self.optimizer = self.engine.optimizer
        self.device = self.engine.device
        if settings["bf16"]["enabled"]:
            # DeepSpeed took the masters from weights that it had rounded to bf16. Buffers it leaves in fp32 (since 0.19.8).
            self.load_state(lambda name: {"weight": masters[name]}, optimizer_step=0)

    def accumulate(self, batch: Batch, global_count: int, last: bool) -> tuple[Tensor, Tensor]:
        # Said by the loop: DeepSpeed counts micro-batches itself otherwise, and a batch may grow.
        self.engine.set_gradient_accumulation_boundary(last)
        total, z_loss = self.engine(batch)
        # DeepSpeed averages gradients over ranks; the loss is to be divided by the global count alone.
        self.engine.backward(total * (self.world_size / global_count), scale_wrt_gas=False)
        if not last:
            self.engine.step()  # advances the micro-step counter, no update
        return total.detach() - z_loss, z_loss

    def measure(self, batch: Batch) -> Tensor:
        with evaluating(self.engine):
            total, z_loss = self.engine(batch)
        return total - z_loss

    @property
    def norm_in_time(self) -> bool:
        return self.zero_stage == 0

    def step(self, multiplier: float, norm_limit: float = math.inf) -> float:
        set_learning_rates(self.optimizer, multiplier)
        if self.zero_stage == 0:
            norm = clip_gradients(self._inner, self.max_grad_norm)
            self.engine.step() if norm.isfinite() and norm <= norm_limit else self.discard()
        else:
            self.engine.step()
            norm = self.engine.get_global_grad_norm()
        if self.ema_decay is not None:
            average_weights(self._inner, self._partitions(), self.ema_decay)
        return float(norm)

    def discard(self) -> None:
        # DeepSpeed counts micro-steps and clears gradients in its own step, around that of the optimizer.
        self._inner.__dict__["step"] = lambda *_, **__: None
        try:
            self.engine.step()
        finally:
            del self._inner.__dict__["step"]

    def named_state(self) -> Iterator[tuple[str, ParameterState]]:
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        moment_keys = self._state_keys() if self.zero_stage > 0 else []
        if moment_keys:
            self._link_moments()
        for name, parameter in trainable(self.objective).items():
            if self.zero_stage == 0:
                yield name, read_parameter(self.optimizer, parameter)
                continue
            state = {"weight": safe_get_full_fp32_param(parameter)}
            for key in moment_keys:
                state[key] = safe_get_full_optimizer_state(parameter, key)
            yield name, {key: value for key, value in state.items() if value is not None}

    def load_state(self, read: ReadState, optimizer_step: int) -> None:
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        parameters = trainable(self.objective)
        if self.zero_stage == 0:
            for name, parameter in parameters.items():
                write_parameter(self.optimizer, parameter, read(name), optimizer_step)
            return
        state_made = False
        for name, parameter in parameters.items():
            state = {key: value.to(self.device, torch.float32) for key, value in read(name).items()}
            safe_set_full_fp32_param(parameter, state["weight"])
            self._set_working_weight(parameter, state["weight"])
            keys = [key for key in KEPT if key in state]
            if keys and not state_made:
                self._make_state(keys, optimizer_step)
                state_made = True
            for key in keys:
                safe_set_full_optimizer_state(parameter, state[key], key)

    def _set_working_weight(self, parameter: nn.Parameter, value: Tensor) -> None:
        if self.zero_stage < 3:
            parameter.data.copy_(value)
            return
        import deepspeed

        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
            if self.rank == 0:
                parameter.data.copy_(value)

    def _partitions(self) -> list[Tensor]:
        """The fp32 tensors that the inner optimizer steps on: the parameters, or the flat partitions of this rank."""
        if self.zero_stage == 0:
            return list(trainable(self.objective).values())
        if self.zero_stage == 3:
            return self.optimizer.fp32_partitioned_groups_flat
        if hasattr(self.optimizer, "fp32_groups_flat_partition"):  # stage 1 in bf16 is a class of its own (0.19.8)
            return self.optimizer.fp32_groups_flat_partition
        return self.optimizer.single_partition_of_fp32_groups

    def _state_keys(self) -> list[str]:
        states = [self._inner.state.get(partition, {}) for partition in self._partitions()]
        return [key for key in KEPT if any(key in state for state in states)]

    def _make_state(self, keys: list[str], optimizer_step: int) -> None:
        """Empty AdamW state for every partition: DeepSpeed makes it at the first step, after which it can be set."""
        for partition in self._partitions():
            step = torch.tensor(float(optimizer_step), device=partition.device)
            self._inner.state[partition] = {"step": step} | {key: torch.zeros_like(partition) for key in keys}
        self._link_moments()

    def _link_moments(self) -> None:
        """Tell stages 1 and 2 where each parameter's moments are. They do it themselves after the first group's first
        step, when the other groups have none yet, and never again (0.19.8)."""
        if self.zero_stage < 3:
            self.optimizer._hp_optimizer_states_linked = False
            self.optimizer._lazy_init_hp_params_optimizer_state()
