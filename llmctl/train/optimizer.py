"""The optimizers of a training stage: AdamW, and Muon for the matrices with AdamW for the rest."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from llmctl.model.precision import multiplies_bfloat16
from llmctl.recipe.schema import TrainTable

# Newton-Schulz coefficients of Muon (Jordan et al. 2024): the slope at zero is as steep as a quintic allows.
QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalise(update: Tensor, iterations: int = 5) -> Tensor:
    """Nearest semi-orthogonal matrix of each matrix in `update` `[K, M, N]`, to the accuracy that Muon needs.

    Quintic Newton-Schulz iteration (https://kellerjordan.github.io/posts/muon), in bfloat16 where the hardware multiplies it.
    """
    x = update.bfloat16() if multiplies_bfloat16(update.device.type) else update
    tall = x.size(-2) > x.size(-1)
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    # Through the small Gram matrix alone a matrix of 1 x 4 takes 25 products instead of 45; bfloat16 has too few digits for it.
    long = x.size(-1) >= 2 * x.size(-2) and x.dtype == torch.float32
    x = _by_gram(x, iterations) if long else _by_products(x, iterations)
    return (x.mT if tall else x).to(update.dtype)


def _by_products(x: Tensor, iterations: int) -> Tensor:
    """x <- (a + b x x' + c (x x')^2) x"""
    a, b, c = QUINTIC
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _by_gram(x: Tensor, iterations: int) -> Tensor:
    """The same, gathering the factors: all of them are polynomials of x x', and so they commute."""
    a, b, c = QUINTIC
    gram, identity, factors = x @ x.mT, torch.eye(x.size(-2), device=x.device), None
    for iteration in range(iterations):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c) + a * identity
        factors = factor if factors is None else factor @ factors
        if iteration + 1 < iterations:
            gram = factor @ gram @ factor
    assert factors is not None
    return factors @ x


class MuonAdamW(torch.optim.Optimizer):
    """Muon for parameter groups with `muon=True`, AdamW for the others; all state in fp32.

    State per parameter: `momentum` (Muon), or `exp_avg` and `exp_avg_sq` (AdamW), and `step`.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], betas: tuple[float, float], eps: float) -> None:
        super().__init__(groups, {"lr": 0.0, "betas": betas, "eps": eps, "weight_decay": 0.0, "muon": False, "momentum": 0.95})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                (self._muon_step if group["muon"] else self._adamw_step)(group, parameters)

    def _muon_step(self, group: dict[str, Any], parameters: list[nn.Parameter]) -> None:
        by_shape: dict[torch.Size, list[nn.Parameter]] = {}
        for parameter in parameters:
            by_shape.setdefault(parameter.shape, []).append(parameter)
        for shape, alike in by_shape.items():
            directions = []
            for parameter in alike:
                state = self.state[parameter]
                if not state:
                    state["step"] = torch.tensor(0.0)
                    state["momentum"] = torch.zeros_like(parameter)
                state["step"] += 1
                grad = parameter.grad
                assert grad is not None
                state["momentum"].lerp_(grad, 1 - group["momentum"])
                directions.append(grad.lerp(state["momentum"], group["momentum"]))  # Nesterov
            # Matrices of one shape go through the iteration together: one batched product instead of many small ones.
            updates = orthogonalise(torch.stack(directions))
            scale = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
            for parameter, update in zip(alike, updates, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-scale)

    def _adamw_step(self, group: dict[str, Any], parameters: list[nn.Parameter]) -> None:
        beta1, beta2 = group["betas"]
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.tensor(0.0)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
            state["step"] += 1
            step = state["step"].item()
            grad = parameter.grad
            assert grad is not None
            state["exp_avg"].lerp_(grad, 1 - beta1)
            state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
            denominator = (state["exp_avg_sq"] / (1 - beta2**step)).sqrt_().add_(group["eps"])
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.addcdiv_(state["exp_avg"], denominator, value=-group["lr"] / (1 - beta1**step))


def parameter_groups(model: nn.Module, table: TrainTable) -> list[dict[str, Any]]:
    """Groups with their peak rate in `peak_lr`. Olmo 3 decays everything but the input embeddings
    (the LM head and the norms are decayed); Muon takes the matrices inside the blocks."""
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    output = {id(p) for name, p in model.named_parameters() if "lm_head" in name}
    matrices, decayed, undecayed = [], [], []
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        if id(parameter) in embeddings and not table.decay_embeddings:
            undecayed.append(parameter)
        elif table.optimizer == "muon" and parameter.ndim == 2 and id(parameter) not in embeddings | output:
            matrices.append(parameter)
        else:
            decayed.append(parameter)
    groups = [
        {
            "params": matrices,
            "muon": True,
            "peak_lr": table.muon_lr,
            "momentum": table.muon_momentum,
            "weight_decay": table.weight_decay,
        },
        {"params": decayed, "muon": False, "peak_lr": table.lr, "weight_decay": table.weight_decay},
        {"params": undecayed, "muon": False, "peak_lr": table.lr, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(model: nn.Module, table: TrainTable) -> torch.optim.Optimizer:
    groups = parameter_groups(model, table)
    assert table.lr is not None
    if table.optimizer == "muon":
        return MuonAdamW(groups, table.betas, table.eps)
    for group in groups:
        group.pop("muon")
    return torch.optim.AdamW(groups, lr=table.lr, betas=table.betas, eps=table.eps, fused=True)
