"""What is minimised, as a module: DeepSpeed needs the whole forward pass behind one module call."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from llmctl.model.loss import causal_lm_loss
from llmctl.model.sequence import SequenceGroup
from llmctl.tokens.batch import Batch

PREFIX = "model."  # of every parameter name inside the objective; states and files use the name without it


class CausalObjective(nn.Module):
    """Sums over the supervised tokens of a packed batch: next-token cross entropy plus z-loss, and the z-loss in it.

    With `autocast`, weights stay fp32 and products run in bfloat16 (the mode of ZeRO stage 0, where the fp32 weights
    are their own master copy). With `sequence`, each of its ranks is called with the same batch and sums over its own part.
    """

    def __init__(
        self, model: nn.Module, z_loss: float, autocast: bool, device_type: str, sequence: SequenceGroup | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.z_loss = z_loss
        self.autocast = autocast
        self.device_type = device_type
        self.sequence = sequence

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        if self.sequence is not None:
            batch = self.sequence.part_of(batch)
        with torch.autocast(self.device_type, torch.bfloat16, enabled=self.autocast):
            return causal_lm_loss(self.model, batch, self.z_loss, self.sequence)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """No gradients and no dropout inside the block."""
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train()


def trainable(objective: CausalObjective) -> dict[str, nn.Parameter]:
    """Trainable parameters by their name in the model."""
    return {name.removeprefix(PREFIX): p for name, p in objective.named_parameters() if p.requires_grad}
