"""What a running stage shows: one live panel on a terminal, plain lines elsewhere."""

import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llmctl import events
from llmctl.views.tables import print_table
from llmctl.wording import gib, lasted

PLAIN_SECONDS = 10.0  # between two plain lines of one task
RECENT_MESSAGES = 4


def quantity(value: float, unit: str) -> str:
    return f"{value / 1e6:,.1f} MB" if unit == "bytes" else f"{value:,.0f} {unit}"


def training_line(values: dict[str, Any]) -> str:
    """One line for a training step."""
    parts = [f"step {values['step']:,}/{values['steps']:,}", f"loss {values['loss']:.3f}"]
    parts.append(f"rate {values['learning_rate']:.2e}")
    if values.get("tokens_per_second"):
        parts.append(f"{values['tokens_per_second']:,.0f} tokens/s")
        parts.append(f"{lasted(values['eta_seconds'])} left")
    if values.get("memory_bytes"):
        parts.append(f"{gib(values['memory_bytes'])} GiB")
    return "  ".join(parts)


def progress_line(event: events.Progress, rate: float) -> str:
    line = f"{event.task}: {quantity(event.done, event.unit)}"
    if event.total:
        line += f" of {quantity(event.total, event.unit)}"
        if rate > 0 and event.done < event.total:
            line += f", {lasted((event.total - event.done) / rate)} left"
    elif rate > 0:
        line += f", {quantity(rate, event.unit)}/s"
    return line


class _Rates:
    """Units per second of each task since it began."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[float, float]] = {}

    def of(self, event: events.Progress) -> float:
        began, done = self._first.setdefault(event.task, (time.monotonic(), event.done))
        passed = time.monotonic() - began
        return (event.done - done) / passed if passed > 0.5 else 0.0


class PlainScreen:
    """Events as lines: every message and table, a task every few seconds and at its end."""

    def __init__(self) -> None:
        self.title = ""
        self._last: dict[str, float] = {}
        self._rates = _Rates()

    @contextmanager
    def stage(self, title: str) -> Iterator[None]:
        """Say on every line which stage it comes from."""
        self.title = title
        self._last.clear()
        try:
            yield
        finally:
            self.title = ""

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.Message):
            self._print(f"warning: {event.text}" if event.level == "warning" else event.text)
        elif isinstance(event, events.Table):
            print_table(event)
        elif isinstance(event, events.Progress):
            rate = self._rates.of(event)
            if self._due(event.task, event.total is not None and event.done >= event.total):
                self._print(progress_line(event, rate))
        elif "loss" in event.values and self._due("step", event.values["step"] == event.values["steps"]):
            self._print(training_line(event.values))

    def _due(self, task: str, always: bool) -> bool:
        now = time.monotonic()
        # The first event of a task begins its clock: what is over in a moment gets one line, at its end.
        if always or now - self._last.setdefault(task, now) >= PLAIN_SECONDS:
            self._last[task] = now
            return True
        return False

    def _print(self, line: str) -> None:
        print(f"[{self.title}] {line}" if self.title else line, flush=True)


class LiveScreen:
    """Events as one panel that is drawn again in place; messages and tables stay above it."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console()
        self.title = ""
        self._live: Any = None
        self._rates = _Rates()
        self._losses: deque[float] = deque(maxlen=60)

    @contextmanager
    def stage(self, title: str) -> Iterator[None]:
        """The panel of one stage."""
        from rich.live import Live

        self.title = title
        self._losses.clear()
        with Live(console=self.console, refresh_per_second=4, transient=True) as self._live:
            yield
        self._live = None

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.Message):
            warning = event.level == "warning"
            text = f"warning: {event.text}" if warning else event.text
            self.console.print(text, style="yellow" if warning else "", markup=False, highlight=False)
        elif isinstance(event, events.Table):
            print_table(event, self.console)
        elif isinstance(event, events.Progress):
            self._draw(progress_line(event, self._rates.of(event)), event.done, event.total)
        elif "loss" in event.values:
            self._losses.append(float(event.values["loss"]))
            line = f"{training_line(event.values)}\n{spark(self._losses)}"
            self._draw(line, float(event.values["step"]), float(event.values["steps"]))

    def _draw(self, line: str, done: float, total: float | None) -> None:
        from rich.console import Group
        from rich.panel import Panel
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        if self._live is None:
            return
        parts: list[Any] = [Text(line)]
        if total:
            parts.append(ProgressBar(total=total, completed=done))
        self._live.update(Panel(Group(*parts), title=self.title, title_align="left"))


Screen = PlainScreen | LiveScreen


@contextmanager
def screen() -> Iterator[Screen]:
    """Show all events of the block: on a terminal with a live panel per stage, elsewhere as plain lines."""
    shown = LiveScreen() if sys.stdout.isatty() else PlainScreen()
    with events.listening(shown):
        yield shown


def spark(values: deque[float]) -> str:
    """The last losses as a line of blocks."""
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    return "loss " + "".join("▁▂▃▄▅▆▇█"[round(7 * (v - low) / ((high - low) or 1))] for v in values)
