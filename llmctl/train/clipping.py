"""Gradient clipping, the same for every engine."""

import torch
from torch import Tensor, nn


def clip_gradients(optimizer: torch.optim.Optimizer, max_norm: float) -> Tensor:
    """Scale the gradients of AdamW's groups down to `max_norm` where their own norm is above it, and return the norm of all
    gradients, as it was. A `max_norm` of 0 does not clip.

    Groups with `muon` are neither scaled nor counted: Muon's update has the same length whatever that of the gradient, and a
    large gradient of a matrix would take the others' updates down with it.
    """
    norms = []
    for muon in (False, True):
        groups = (group["params"] for group in optimizer.param_groups if group.get("muon", False) == muon)
        parameters = [parameter for group in groups for parameter in group if parameter.grad is not None]
        if not parameters:
            continue
        norms.append(nn.utils.get_total_norm([parameter.grad for parameter in parameters]))
        if max_norm and not muon:
            nn.utils.clip_grads_with_norm_(parameters, max_norm, norms[-1])
    return nn.utils.get_total_norm(norms)
