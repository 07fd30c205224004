"""Trials in child processes, one after the other: what crashes or hangs there is told of, and the rest goes on in a new child.

`python -m llmctl.doctor.trial NAME ...` is the child: a line for each trial that begins, and one for what it found.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from llmctl.doctor.findings import Status, one_line
from llmctl.errors import EXIT_CTRL_C

MARK = "\x1etrial "
"""Begins a line of ours: packages print, too."""
PATIENCE = 90.0  # seconds for one trial, imports included
LAST_WORDS = 3  # lines before a crash
BACKENDS = ("per_document", "varlen_attn", "flash_attention_2", "flash_attention_3", "flash_attention_4", "fused")
"""As `llmctl_kernels.attention.BACKENDS`, which imports torch. Each is tried by itself, as it may crash."""


@dataclass(frozen=True)
class Tried:
    """What a trial found."""

    status: Status
    told: str
    remedy: str = ""


@dataclass(frozen=True)
class Line:
    """What a child says: that a trial begins, or what it found."""

    kind: Literal["begun", "tried"]
    name: str
    tried: Tried | None = None


def tried_in_children(
    names: Sequence[str], begun: Callable[[str], None], patience: float = PATIENCE
) -> Iterator[tuple[str, Tried]]:
    """The outcome of each trial in turn; `begun` hears which one begins."""
    left = list(names)
    while left:
        at_work = left[0]
        with _child(left) as (process, lines):
            last_words: list[str] = []
            for text in _in_time(lines, patience):
                if not text.startswith(MARK):
                    last_words = [*last_words, text.strip()][-LAST_WORDS:]
                    continue
                line = _read(text)
                at_work = line.name
                if line.tried is None:
                    begun(line.name)
                    last_words = []
                else:
                    left.remove(line.name)
                    at_work = left[0] if left else ""
                    yield line.name, line.tried
            if left:
                left.remove(at_work)
                ended = how_it_ended(process.returncode, last_words) if _ended(process) else f"no end after {patience:g} s"
                yield at_work, Tried("broken", ended)


@contextlib.contextmanager
def _child(names: Sequence[str]) -> Iterator[tuple[subprocess.Popen[str], "queue.Queue[str | None]"]]:
    """A child that tries these, and its lines; None behind the last one."""
    process = subprocess.Popen(
        [sys.executable, "-m", "llmctl.doctor.trial", *names],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, encoding="utf-8", errors="replace", env=os.environ | {"PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    lines: queue.Queue[str | None] = queue.Queue()

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=listen, daemon=True).start()
    try:
        yield process, lines
    finally:
        process.kill()
        process.wait()


def _in_time(lines: "queue.Queue[str | None]", patience: float) -> Iterator[str]:
    """Lines until the last, or until nothing has come for too long."""
    with contextlib.suppress(queue.Empty):
        while (line := lines.get(timeout=patience)) is not None:
            yield line


def _ended(process: subprocess.Popen[str]) -> bool:
    """Its output has ended, so it is about to."""
    try:
        process.wait(1.0)
    except subprocess.TimeoutExpired:
        return False
    return True


def _read(text: str) -> Line:
    kind, name, tried = json.loads(text.removeprefix(MARK))
    return Line(kind, name, None if tried is None else Tried(**tried))


def how_it_ended(code: int, last_words: Sequence[str]) -> str:
    how = f"exit code {code}"
    if code < 0:
        with contextlib.suppress(ValueError):
            how = signal.Signals(-code).name
    said = next((line for line in reversed(last_words) if line), "")
    return f"the process crashed ({how}){': ' + said if said else ''}"


def main(names: Sequence[str]) -> None:
    """The child."""
    from llmctl.doctor.trials import trial_of

    for name in names:
        _say(["begun", name, None])
        try:
            tried = trial_of(name)()
        except KeyboardInterrupt:
            os._exit(EXIT_CTRL_C)
        except BaseException as error:  # a package may leave by SystemExit, too
            tried = Tried("broken", one_line(error))
        _say(["tried", name, asdict(tried)])
    sys.stdout.flush()
    os._exit(0)  # threads and exit handlers of what was imported are not what is tried


def _say(words: object) -> None:
    print(f"\n{MARK}{json.dumps(words)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
