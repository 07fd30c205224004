"""The seam between the training loop and what distributes it.

The loop accumulates micro-batches and steps; an engine runs backward passes, reduces gradients over ranks and updates
weights. `TorchEngine` is plain torch on one rank: the reference that the DeepSpeed engine is tested against.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from llmctl.tokens.batch import Batch
from llmctl.train.clipping import clip_gradients
from llmctl.train.objective import CausalObjective, evaluating, trainable

ParameterState = dict[str, Tensor]
"""`weight` (the fp32 master), the optimizer's tensors (`exp_avg`, `exp_avg_sq`, `momentum`) and `ema`, the weight's running mean
where there is one; all in the parameter's shape."""

ReadState = Callable[[str], ParameterState]

MOMENTS = ("exp_avg", "exp_avg_sq", "momentum")
MEAN = "ema"
"""The running mean of a weight. It stands among the optimizer's tensors, and so is sharded, kept and read as they are."""
KEPT = (*MOMENTS, MEAN)


class Engine(Protocol):
    rank: int
    world_size: int
    data_rank: int
    """Of the `data_ranks` that rows are dealt out to: as `rank` of `world_size`, unless several ranks share each row."""
    data_ranks: int
    device: torch.device
    objective: CausalObjective

    def accumulate(self, batch: Batch, global_count: int, last: bool) -> tuple[Tensor, Tensor]:
        """Add the gradient of this micro-batch, the `last` of the step. `global_count`: supervised tokens of the whole step,
        over all ranks and micro-batches; the step's gradient is that of the mean over them. Returns the sums (cross entropy,
        z-loss), on the device."""
        ...

    def measure(self, batch: Batch) -> Tensor:
        """The sum of the cross entropy, on the device, without gradients and dropout. Collective under ZeRO 3."""
        ...

    @property
    def norm_in_time(self) -> bool:
        """Whether the norm of the gradients is known before the update: not under ZeRO 1 to 3."""
        ...

    def step(self, multiplier: float, norm_limit: float = math.inf) -> float:
        """Clip, update with `multiplier` times the peak rates, clear gradients. Returns the global gradient norm. Where that is
        known in time, and is no number or above `norm_limit`, there is no update."""
        ...

    def discard(self) -> None:
        """Clear gradients instead of a step: weights and moments stay."""
        ...

    def named_state(self) -> Iterator[tuple[str, ParameterState]]:
        """Full fp32 state of every trainable parameter; a collective call under ZeRO."""
        ...

    def load_state(self, read: ReadState, optimizer_step: int) -> None:
        """Set weights, and moments as far as `read` gives them, with `optimizer_step` updates behind them."""
        ...


def set_learning_rates(optimizer: torch.optim.Optimizer, multiplier: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * multiplier


def read_parameter(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> ParameterState:
    state: ParameterState = {"weight": parameter.detach()}
    state |= {key: value for key, value in optimizer.state.get(parameter, {}).items() if key in KEPT}
    return state


def average_weights(optimizer: torch.optim.Optimizer, weights: Iterable[Tensor], decay: float) -> None:
    """Let the running mean of each fp32 weight follow it; after a step. It begins with the weight as the first step left it."""
    for weight in weights:
        state = optimizer.state[weight]
        if MEAN in state:
            state[MEAN].lerp_(weight.detach(), 1 - decay)
        elif state:  # made by the optimizer's first step
            state[MEAN] = weight.detach().clone()


def write_parameter(
    optimizer: torch.optim.Optimizer, parameter: nn.Parameter, state: ParameterState, optimizer_step: int
) -> None:
    parameter.data.copy_(state["weight"])
    moments = {key: value.to(parameter.device, torch.float32).clone() for key, value in state.items() if key in KEPT}
    if moments:
        # Fused AdamW on a GPU wants its step counter beside the parameter.
        on = parameter.device if optimizer.defaults.get("fused") else torch.device("cpu")
        optimizer.state[parameter] = {"step": torch.tensor(float(optimizer_step), device=on), **moments}


class TorchEngine:
    """Plain torch, one rank."""

    def __init__(
        self,
        objective: CausalObjective,
        optimizer: torch.optim.Optimizer,
        max_grad_norm: float,
        ema_decay: float | None = None,
    ) -> None:
        self.objective = objective
        self.optimizer = optimizer
        self.max_grad_norm, self.ema_decay = max_grad_norm, ema_decay
        self.rank, self.world_size = self.data_rank, self.data_ranks = 0, 1
        self.device = next(objective.parameters()).device

    def accumulate(self, batch: Batch, global_count: int, last: bool) -> tuple[Tensor, Tensor]:
        total, z_loss = self.objective(batch)
        (total / global_count).backward()
        return total.detach() - z_loss, z_loss

    def measure(self, batch: Batch) -> Tensor:
        with evaluating(self.objective):
            total, z_loss = self.objective(batch)
        return total - z_loss

    norm_in_time = True

    def step(self, multiplier: float, norm_limit: float = math.inf) -> float:
        norm = clip_gradients(self.optimizer, self.max_grad_norm)
        if norm.isfinite() and norm <= norm_limit:
            set_learning_rates(self.optimizer, multiplier)
            self.optimizer.step()
            if self.ema_decay is not None:
                average_weights(self.optimizer, trainable(self.objective).values(), self.ema_decay)
        self.discard()
        return float(norm)

    def discard(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def named_state(self) -> Iterator[tuple[str, ParameterState]]:
        for name, parameter in trainable(self.objective).items():
            yield name, read_parameter(self.optimizer, parameter)

    def load_state(self, read: ReadState, optimizer_step: int) -> None:
        for name, parameter in trainable(self.objective).items():
            write_parameter(self.optimizer, parameter, read(name), optimizer_step)


def settings_for_deepspeed(
    zero_stage: int,
    bfloat16: bool,
    micro_batch: int,
    accumulation: int,
    max_grad_norm: float,
    offload: bool,
    further: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The DeepSpeed configuration of a stage, with the `further` keys of the recipe. Only what the loop does not do itself is
    left to DeepSpeed."""
    further = further or {}
    zero: dict[str, Any] = {"stage": zero_stage} | further.get("zero_optimization", {})
    if offload and zero_stage > 0:
        zero["offload_optimizer"] = {"device": "cpu"}
    return further | {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": accumulation,
        # Stage 0 reports no norm and so the engine clips there itself.
        "gradient_clipping": max_grad_norm if zero_stage > 0 else 0.0,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": bfloat16 and zero_stage > 0},
        "data_types": {"grad_accum_dtype": "fp32"},
        "steps_per_print": further.get("steps_per_print", 10**9),
    }
