"""What a stage says while it works. Stages emit; whoever shows or records it listens.

The parts that work (corpus, tokens, train, evals) know nothing of terminals or files: they call `say`, `warn`,
`progress` or `metrics`, and the listeners that are active at that moment receive the event.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Message:
    """One line for the reader."""

    text: str
    level: Literal["info", "warning"] = "info"


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` (None: not known) of `task`, counted in `unit` ("tokens", "documents", "bytes", ...)."""

    task: str
    done: float
    total: float | None
    unit: str


@dataclass(frozen=True, slots=True)
class Metrics:
    """Numbers of one training step or one evaluation; goes to `metrics.jsonl` as it is."""

    values: dict[str, float | int | str]


@dataclass(frozen=True, slots=True)
class Table:
    """A small result table: a title, column names, and rows of already formatted cells."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...] = field(default=())


Event = Message | Progress | Metrics | Table
KINDS: dict[str, type[Event]] = {kind.__name__: kind for kind in (Message, Progress, Metrics, Table)}
MARK = "\x1eevent "
"""Begins a line that carries an event from another process."""
Listener = Callable[[Event], None]

_listeners: list[Listener] = []


def emit(event: Event) -> None:
    """Hand `event` to every active listener, oldest first."""
    for listener in tuple(_listeners):
        listener(event)


def say(text: str) -> None:
    emit(Message(text))


def warn(text: str) -> None:
    emit(Message(text, "warning"))


def progress(task: str, done: float, total: float | None, unit: str) -> None:
    emit(Progress(task, done, total, unit))


def metrics(values: dict[str, float | int | str]) -> None:
    emit(Metrics(values))


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """`listener` receives every event emitted inside the `with` block."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


@contextmanager
def silence() -> Iterator[None]:
    """Nobody hears what is emitted inside the `with` block."""
    before = _listeners[:]
    _listeners.clear()
    try:
        yield
    finally:
        _listeners[:] = before


def to_line(event: Event) -> str:
    """An event as a line of text, for the process that started this one."""
    return f"{MARK}{json.dumps([type(event).__name__, asdict(event)])}\n"


def from_line(line: str) -> Event | None:
    """The event that a line carries; None for a line that is just text."""
    if not line.startswith(MARK):
        return None
    kind, fields = json.loads(line.removeprefix(MARK))
    if kind == "Table":
        fields |= {"columns": tuple(fields["columns"]), "rows": tuple(map(tuple, fields["rows"]))}
    return KINDS[kind](**fields)
