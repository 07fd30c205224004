"""Runs of a case, and how far they are from the truth compared with plain torch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from llmctl_kernels import runtime
from llmctl_kernels.cases.case import Case, Implementation, Outputs, Tensors

LIMIT = 2.0
"""A kernel's error may be twice plain torch's, which rounds in other places."""
INTERPRETED_LIMIT = 5.0
"""Triton's interpreter cuts numbers off where a GPU rounds them to bf16: twice the error each time, and all to one side."""
FLOOR = {torch.bfloat16: torch.finfo(torch.bfloat16).eps / 64, torch.float32: 5e-6}
"""Errors below this share of a result's root mean square count as plain torch's: a sum of one number may be exact by luck."""
EDGE_FLOOR = {torch.bfloat16: torch.finfo(torch.bfloat16).eps, torch.float32: 2e-5}
"""The same at edge shapes, of few numbers: they look for wrong ones, and not for rounding."""


def limit(dtype: torch.dtype) -> float:
    return INTERPRETED_LIMIT if dtype == torch.bfloat16 and runtime.interpreted() else LIMIT


def seeded(device: torch.device, seed: int = 0) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def cotangents(case: Case, outputs: Outputs, dtype: torch.dtype) -> list[Tensor]:
    """The same for each implementation: drawn for the shape, rounded to the inputs' `dtype`; a scalar has 1."""
    drawn = []
    for index in case.differentiable:
        output = outputs[index]
        cotangent = torch.ones_like(output)
        if output.dim():
            cotangent = torch.randn(output.shape, device=output.device, dtype=dtype, generator=seeded(output.device, index))
        drawn.append(cotangent.to(output.dtype))
    return drawn


def run(
    case: Case,
    implementation: Implementation,
    inputs: Tensors,
    kind: torch.dtype | None = None,
    gradients: Sequence[Tensor] | None = None,
) -> Tensors:
    """Outputs ("output 0") and gradients ("d query") by name.

    `kind`: floating-point inputs are brought to this type first. `gradients`: of the differentiable outputs, else drawn.
    """
    dtype = inputs[case.wants_gradient[0]].dtype
    leaves = {}
    for name, tensor in inputs.items():
        leaf = tensor.detach().to(kind) if kind and tensor.is_floating_point() else tensor.detach()
        leaves[name] = leaf.requires_grad_(name in case.wants_gradient)
    outputs = implementation(**leaves)
    given = (
        cotangents(case, outputs, dtype)
        if gradients is None
        else [gradient.to(kind) if kind else gradient for gradient in gradients]
    )
    wanted = [leaves[name] for name in case.wants_gradient]
    found = torch.autograd.grad([outputs[index] for index in case.differentiable], wanted, given, materialize_grads=True)
    results = {f"output {index}": output.detach() for index, output in enumerate(outputs)}
    return results | {f"d {name}": gradient for name, gradient in zip(case.wants_gradient, found, strict=True)}


def worst_ratio(got: Tensors, plain: Tensors, truth: Tensors, floor: float) -> tuple[float, str]:
    """Largest ratio of errors, largest or root mean square, of `got` and `plain` against `truth`; and in which result."""
    scale = {name: root_mean_square(tensor) for name, tensor in truth.items()}
    worst, where = 0.0, ""
    for name, exact in truth.items():
        if got[name].shape != exact.shape:
            return float("inf"), f"{name} has shape {list(got[name].shape)}"
        alike = max(value for other, value in scale.items() if other[0] == name[0])  # outputs, or gradients
        least = floor * max(scale[name], 0.1 * alike)
        error, usual = got[name].double() - exact, plain[name].double() - exact
        for measure in (root_mean_square, largest):
            ratio = over(measure(error), max(measure(usual), least))
            if not ratio <= worst:
                worst, where = ratio, name
    return worst, where


def over(error: float, usual: float) -> float:
    """`error / usual`, where no error is allowed if there is usually none; what is no number is infinitely wrong."""
    if not error < float("inf"):
        return float("inf")
    return error / usual if usual else (float("inf") if error else 0.0)


def root_mean_square(tensor: Tensor) -> float:
    return tensor.double().square().mean().sqrt().item() if tensor.numel() else 0.0


def largest(tensor: Tensor) -> float:
    return tensor.abs().max().item() if tensor.numel() else 0.0
