"""A signal stops the process wherever it comes, though the exception that it raises may be caught by what it interrupts."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

BEGINNING = """
import os, signal, sys, threading, time
from llmctl.errors import Interrupted, UserError
from llmctl.interrupts import arriving, deferred, interruptible, leave, raise_if_asked, raise_on_signals

def told_to_stop(number=signal.SIGTERM):
    os.kill(os.getpid(), number)
    for _ in range(1000): pass

raise_on_signals()
try:
    with arriving():
"""
END = """
    print("nothing has stopped it")
except Interrupted as stop:
    print(stop)
    leave(stop.exit_code)
"""
CASES = {
    "caught by what it interrupts": """
        try:
            told_to_stop()
        except BaseException:
            pass
        time.sleep(30)
    """,
    "dropped in a finalizer": """
        class Lost:
            def __del__(self):
                told_to_stop()
        Lost()
        time.sleep(30)
    """,
    "followed by another error": """
        try:
            told_to_stop()
        except BaseException:
            raise ImportError("a module that was imported by half")
    """,
    "twice in a row, while it is cleaned up": """
        try:
            told_to_stop()
        finally:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
            try:
                time.sleep(1)
            except Interrupted:
                pass
    """,
    "in native code that does not look": """
        import hashlib
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        interruptible(lambda: hashlib.pbkdf2_hmac("sha512", b"", b"", 2**31 - 1))
    """,
    "while it was put off, and nobody acted on it": """
        with deferred():
            told_to_stop()
        raise_if_asked()
    """,
}


@pytest.mark.parametrize("how", CASES)
def test_a_signal_is_not_lost(how):
    script = BEGINNING + textwrap.indent(textwrap.dedent(CASES[how]), 8 * " ") + END
    started = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert ended.stdout == "stopped by SIGTERM; the same command goes on from here\n"
    assert ended.stderr == ""
    assert ended.returncode == 75
    assert time.monotonic() - started < 20


def test_work_in_a_thread_returns_and_fails_as_it_would_without():
    from llmctl.interrupts import interruptible

    done = []
    interruptible(lambda: done.append(1))
    assert done == [1]
    with pytest.raises(ZeroDivisionError):
        interruptible(lambda: 1 // 0)  # pyright: ignore[reportArgumentType]


def test_a_signal_for_the_whole_group_stops_workers_in_silence(tmp_path, tokenizer_folder):
    """Ctrl-C in a terminal reaches the processes that tokenise, too."""
    script = textwrap.dedent(
        f"""
        import sys
        from pathlib import Path
        from llmctl.errors import Interrupted
        from llmctl.interrupts import arriving, leave, raise_on_signals
        from llmctl.tokens.text_shards import TextShards
        text = "def f(x):\\n    return x + 1\\n" * 4000
        if __name__ == "__main__":
            raise_on_signals()
            shards = TextShards({str(tokenizer_folder)!r}, Path({str(tmp_path / "out")!r}), part_bytes=100_000, workers=2)
            try:
                with arriving():
                    shards.write(lambda: ((str(n), text, "") for n in range(4000)), 4000 * len(text))
            except Interrupted as stop:
                print(stop, file=sys.stderr)
                leave(stop.exit_code)
        """
    )
    file = tmp_path / "shards.py"
    file.write_text(script)
    process = subprocess.Popen([sys.executable, str(file)], stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not list((tmp_path / ".out.parts").glob("part-*.json")):  # a worker has done a part
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert errors == "stopped by SIGINT; the same command goes on from here\n"
    assert process.returncode == 130
