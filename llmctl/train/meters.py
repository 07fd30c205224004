"""Speed and memory of a running stage."""

import time

import torch


class SpeedMeter:
    """Tokens per second since the second step: the first one pays for warm-up and compilation."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self._started: float | None = None
        self._last = 0.0
        self._tokens = 0
        self._counted = 0

    def step(self, tokens: int) -> None:
        self._last = time.monotonic()
        if self._started is None:
            self._started = self._last
            return
        self._tokens += tokens
        self._counted += 1

    def pause(self) -> None:
        """After something that is no step: it is not to count for the speed."""
        if self._started is not None:
            self._started += time.monotonic() - self._last

    @property
    def tokens_per_second(self) -> float:
        if not self._counted or self._started is None:
            return 0.0
        return self._tokens / (time.monotonic() - self._started)

    def eta_seconds(self, step: int) -> float:
        """Seconds until the last step, at the mean speed so far."""
        if not self._counted or self._started is None:
            return 0.0
        return (time.monotonic() - self._started) / self._counted * (self.steps - step)


def memory_bytes(device: torch.device) -> int:
    """Peak bytes allocated on a GPU, or the resident bytes of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import psutil

    return psutil.Process().memory_info().rss
