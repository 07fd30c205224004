"""What a running stage writes down: `metrics.jsonl`, `log.jsonl`, and the state that `llmctl runs` shows."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from llmctl import events
from llmctl.runs.files import write_text

STATE_SECONDS = 2.0  # between two writes of the state file


def steps_before(file: Path, step: int) -> str:
    """The lines of a metrics file for the steps before `step`; what a killed process wrote in part is left out."""
    kept = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        try:
            values = json.loads(line)
        except ValueError:
            continue
        if values.get("step", 0) < step:
            kept.append(line + "\n")
    return "".join(kept)


@contextmanager
def metrics_writer(file: Path) -> Iterator[None]:
    """Append the numbers of every step to `file`, a JSON object a line. A stage that goes on from a checkpoint takes back the
    lines of the steps it makes again."""
    continued = False

    def write(event: events.Event) -> None:
        nonlocal continued
        if not isinstance(event, events.Metrics) or "step" not in event.values:
            return
        if not continued:
            write_text(file, steps_before(file, int(event.values["step"])))
            continued = True
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(event.values) + "\n")

    with events.listening(write):
        yield


@contextmanager
def log_writer(file: Path) -> Iterator[None]:
    """Append what a stage says to `file`: a JSON object a line, for every message, warning and table, with its time in seconds
    since the epoch. A stage that goes on from a checkpoint adds to it."""

    def write(event: events.Event) -> None:
        if isinstance(event, events.Message | events.Table):
            line = {"time": time.time(), "kind": type(event).__name__} | asdict(event)
            with file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(line) + "\n")

    with events.listening(write):
        yield


@contextmanager
def state_writer(set_state: Callable[..., None]) -> Iterator[None]:
    """Keep a stage's state file up to date with its steps."""
    last = 0.0

    def write(event: events.Event) -> None:
        nonlocal last
        if isinstance(event, events.Metrics) and "steps" in event.values and time.monotonic() - last > STATE_SECONDS:
            last = time.monotonic()
            set_state(step=event.values["step"], steps=event.values["steps"])

    with events.listening(write):
        yield
