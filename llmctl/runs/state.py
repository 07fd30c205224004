"""Where an artifact stands, as its state file and the process it names tell."""

from textwrap import shorten

from llmctl.runs.artifact import Artifact

SHOWN = 120  # characters of why a stage failed


def status(artifact: Artifact) -> str:
    """done, running, or where it stopped."""
    if artifact.done:
        return "done" if artifact.readable else "done, but its manifest cannot be read"
    state = artifact.state
    at = f" at step {state['step']:,} of {state['steps']:,}" if "step" in state and "steps" in state else ""
    word = state.get("status", "empty")
    if word == "running" and not alive(state.get("pid", 0)):
        word = "killed"
    why = str(state.get("why") or "").partition("\n")[0]
    return f"{word}{at}{f': {shorten(why, SHOWN)}' if why and word == 'failed' else ''}"


def running(artifact: Artifact) -> bool:
    """Whether a process of this machine works on it."""
    return artifact.state.get("status") == "running" and alive(artifact.state.get("pid", 0))


def alive(pid: int) -> bool:
    import psutil  # os.kill(pid, 0) would stop the process on Windows

    return pid > 0 and psutil.pid_exists(pid)
