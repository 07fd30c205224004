"""The output head with its cross entropy, so that the [N, V] logits of a batch are never there in whole."""

from typing import Any

import torch
from torch import Tensor, nn

from llmctl.errors import UserError
from llmctl.model.sequence import SequenceGroup
from llmctl.tokens.batch import Batch
from llmctl_kernels.linear_cross_entropy import IGNORED, chunk_length, linear_cross_entropy


class LinearCrossEntropyHead(nn.Linear):
    """An output head that computes the loss itself when it is given labels.

    It has to happen inside the module: ZeRO stage 3 gathers a weight when its own module is called.
    """

    fused: bool = False
    """Whether a Triton kernel takes the softmax."""

    def forward(self, input: Tensor, labels: Tensor | None = None, z_loss: float = 0.0) -> Any:  # noqa: A002
        if labels is None:
            return super().forward(input)
        device = input.device.type
        kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.weight.dtype
        return linear_cross_entropy(input.flatten(0, -2), self.weight, labels.flatten(), z_loss, kind, self.fused)


def base_model(model: Any) -> Any:
    """The `transformers` model below an adapter."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


def use_linear_cross_entropy(model: Any, fused: bool = False) -> None:
    """Turn the output head of `model` into a `LinearCrossEntropyHead`; its weight and its name stay. `fused`: by a Triton kernel.

    Raises:
        UserError: the architecture does something to its logits that the head would leave out.
    """
    base = base_model(model)
    head = base.get_output_embeddings()
    config = base.config
    changes = {"final_logit_softcapping": None, "logit_scale": 1.0, "logits_scaling": 1.0}
    for name, neutral in changes.items():
        if getattr(config, name, None) not in (None, neutral):
            raise UserError(f"{config.model_type}: its {name} = {getattr(config, name)} is not supported in training yet")
    if not isinstance(head, LinearCrossEntropyHead) and (type(head) is not nn.Linear or head.bias is not None):
        raise UserError(f"{config.model_type}: its output head is a {type(head).__name__}, expected a linear layer without bias")
    head.__class__ = LinearCrossEntropyHead
    assert isinstance(head, LinearCrossEntropyHead)
    head.fused = fused


def inputs_of(batch: Batch) -> dict[str, Any]:
    """A batch as keyword arguments of a model with packed attention."""
    return {
        "input_ids": batch.tokens,
        "position_ids": batch.positions,
        "lengths": batch.lengths,
        "cu_seqlens": batch.cu_seqlens,
        "max_length": batch.max_length,
    }


def hidden_states(model: Any, batch: Batch, sequence: SequenceGroup | None = None) -> Tensor:
    """[1, N, D]: what the decoder of `model` (with packed attention) makes of a batch, after its last norm. The batch may be a
    part of one, whose rest the other ranks of `sequence` have."""
    base = base_model(model)
    body = getattr(base, base.base_model_prefix)
    return body(**inputs_of(batch), sequence=sequence, use_cache=False).last_hidden_state


def causal_lm_loss(model: Any, batch: Batch, z_loss: float = 0.0, sequence: SequenceGroup | None = None) -> tuple[Tensor, Tensor]:
    """Sums over the labels of `batch`: cross entropy and z-loss together (differentiable), and the z-loss in it."""
    head = base_model(model).get_output_embeddings()
    return head(hidden_states(model, batch, sequence), labels=batch.labels, z_loss=z_loss)


@torch.no_grad()
def label_log_probabilities(model: Any, batch: Batch) -> Tensor:
    """[N] fp32: log-probability of each label; 0 where there is none."""
    hidden = hidden_states(model, batch)[0]
    labels = batch.labels[0]
    head = base_model(model).get_output_embeddings()
    scores = torch.zeros(len(labels), device=hidden.device)
    wanted = torch.nonzero(labels != IGNORED)[:, 0]
    for part in wanted.split(chunk_length(head.weight.shape[0], hidden.is_cuda)):
        logits = head(hidden[part]).float()
        scores[part] = logits.gather(1, labels[part, None])[:, 0] - logits.logsumexp(-1)
    return scores
