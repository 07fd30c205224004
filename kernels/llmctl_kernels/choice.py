"""Which kernels a recipe asks for, and which of them can run."""

from collections.abc import Sequence
from typing import Literal

from llmctl_kernels import runtime
from llmctl_kernels.names import ON_BY_DEFAULT, KernelName

Setting = Literal["auto", "torch"] | Sequence[KernelName]


def wanted(setting: Setting) -> tuple[KernelName, ...]:
    """Our kernels that a setting asks for on a GPU."""
    if setting == "torch":
        return ()
    return ON_BY_DEFAULT if setting == "auto" else tuple(setting)


def usable(setting: Setting, device_type: str) -> tuple[tuple[KernelName, ...], str | None]:
    """Of these the ones that run on such a device, and why the rest does not, if that is to be said: where kernels were asked for
    by name, or on a GPU."""
    names = wanted(setting)
    why = runtime.missing(device_type)
    if setting == "auto" and device_type != "cuda":
        return (), None
    if not names or why is None:
        return names, None
    return (), f"{why}: torch's own operations serve instead of {', '.join(names)}"
