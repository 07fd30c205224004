"""`torch.library.opcheck` of every operator that a case runs, with the arguments that it runs with."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from llmctl_kernels.cases.case import Case, Tensors
from llmctl_kernels.check.measure import cotangents

NAMESPACE = "llmctl_kernels"


class Recorder(TorchDispatchMode):
    """Keeps the first call of each of the package's operators, with copies of its tensors.

    Those that share memory with `leaves` require gradients in the copy.
    """

    def __init__(self, leaves: Tensors) -> None:
        super().__init__()
        self.calls: dict[Any, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        self.places = {leaf.data_ptr() for leaf in leaves.values() if leaf.requires_grad}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == NAMESPACE and func not in self.calls:
            self.calls[func] = tree_map(self.copied, (args, kwargs or {}))
        return func(*args, **(kwargs or {}))

    def copied(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.detach().clone().requires_grad_(value.data_ptr() in self.places)


def check_operators(case: Case, inputs: Tensors) -> list[str]:
    """Names of the operators that passed.

    Raises:
        Exception: `opcheck`'s own, for one that does not.
    """
    leaves = {name: tensor.detach().requires_grad_(name in case.wants_gradient) for name, tensor in inputs.items()}
    recorder = Recorder(leaves)
    with recorder:
        outputs = case.fused(**leaves)
    forward = dict(recorder.calls)
    recorder.places.clear()  # operators of a backward pass have no backward of their own
    gradients = cotangents(case, outputs, inputs[case.wants_gradient[0]].dtype)
    with recorder:
        torch.autograd.grad(
            [outputs[index] for index in case.differentiable], [leaves[name] for name in case.wants_gradient], gradients
        )
    calls = forward | {operator: call for operator, call in recorder.calls.items() if operator not in forward}
    for operator, (args, kwargs) in calls.items():
        torch.library.opcheck(operator, args, kwargs)
    return [str(operator) for operator in calls]
