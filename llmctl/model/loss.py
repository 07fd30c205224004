"""Cross entropy from hidden states, without the [N, V] logits.

The output head's product, the softmax and their gradients are computed chunk by chunk in the forward pass; what is kept
is the gradient of the hidden states and, in fp32, that of the weight (bf16 accumulation over chunks loses digits).
"""

from typing import Any

import torch
from torch import Tensor, nn

from llmctl.errors import UserError
from llmctl.model.sequence import SequenceGroup
from llmctl.tokens.batch import Batch
from llmctl.tokens.rows import IGNORED

CHUNK_LOGITS = 2**20
"""Logits at a time on a CPU: 4 MiB of fp32 stay in its cache, and in memory that is used again."""
CHUNK_LOGITS_GPU = 2**24


class LinearCrossEntropy(torch.autograd.Function):
    """(hidden [N, D], weight [V, D], labels [N]) -> (sum of cross entropy and z-loss, sum of z-loss).

    z-loss is `multiplier * logsumexp^2` (PaLM, arXiv 2204.02311); only the first output is differentiable.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, z_loss: float, kind: torch.dtype) -> Any:
        wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        shape, rows = hidden.shape, None
        if not hidden.is_cuda:  # which would be waited for
            rows = torch.nonzero(labels != IGNORED)[:, 0]
            hidden, labels = hidden[rows], labels[rows]
        hidden_grad = torch.zeros_like(hidden) if wanted else None
        weight_grad = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        working = weight.to(kind)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        z_total = torch.zeros_like(total)
        length = chunk_length(len(weight), hidden.is_cuda)
        for start in range(0, len(hidden), length):
            part = slice(start, start + length)
            inputs, target = hidden[part].to(kind), labels[part]
            logits = inputs @ working.T
            kept = target != IGNORED
            index = target.clamp(min=0)[:, None]
            # One fused pass over the logits gives all that is needed: log-partition = logit - log-probability.
            log_probabilities = torch.log_softmax(logits, -1, dtype=torch.float32)
            losses = -log_probabilities.gather(1, index)[:, 0]
            log_partition = logits.gather(1, index)[:, 0].float() + losses
            z_losses = z_loss * log_partition.square()
            total += torch.where(kept, losses + z_losses, 0.0).sum()
            z_total += torch.where(kept, z_losses, 0.0).sum()
            if hidden_grad is not None:
                gradient = log_probabilities.exp_()
                gradient *= ((1 + 2 * z_loss * log_partition) * kept)[:, None]
                gradient.scatter_add_(1, index, -kept[:, None].float())
                gradient = gradient.to(kind)
                hidden_grad[part] = (gradient @ working).to(hidden.dtype)
                if weight_grad is not None:
                    weight_grad += gradient.T @ inputs
        if rows is not None and hidden_grad is not None:
            hidden_grad = hidden_grad.new_zeros(shape).index_copy_(0, rows, hidden_grad)
        ctx.save_for_backward(hidden_grad, weight_grad)
        ctx.weight_type = weight.dtype
        ctx.mark_non_differentiable(z_total)
        return total, z_total

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        hidden_grad, weight_grad = ctx.saved_tensors
        scale = grads[0]
        if weight_grad is not None:
            weight_grad = (weight_grad * scale).to(ctx.weight_type)
        return hidden_grad * scale if ctx.needs_input_grad[0] else None, weight_grad, None, None, None


def chunk_length(vocabulary: int, on_gpu: bool) -> int:
    """Tokens whose logits are computed together."""
    return max(128, (CHUNK_LOGITS_GPU if on_gpu else CHUNK_LOGITS) // vocabulary)


class LinearCrossEntropyHead(nn.Linear):
    """An output head that computes the loss itself when it is given labels.

    It has to happen inside the module: ZeRO stage 3 gathers a weight when its own module is called.
    """

    def forward(self, input: Tensor, labels: Tensor | None = None, z_loss: float = 0.0) -> Any:  # noqa: A002
        if labels is None:
            return super().forward(input)
        device = input.device.type
        kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.weight.dtype
        # Of a weight that asks for a gradient the function would make one, without gradients too.
        weight = self.weight if torch.is_grad_enabled() else self.weight.detach()
        return LinearCrossEntropy.apply(input.flatten(0, -2), weight, labels.flatten(), z_loss, kind)


def base_model(model: Any) -> Any:
    """The `transformers` model below an adapter."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


def use_linear_cross_entropy(model: Any) -> None:
    """Turn the output head of `model` into a `LinearCrossEntropyHead`; its weight and its name stay.

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
    if type(head) is not nn.Linear or head.bias is not None:
        if isinstance(head, LinearCrossEntropyHead):
            return
        raise UserError(f"{config.model_type}: its output head is a {type(head).__name__}, expected a linear layer without bias")
    head.__class__ = LinearCrossEntropyHead


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
