"""Where an artifact stands, as its state file and the process it names tell."""

import os

from llmctl.runs.artifact import Artifact


def status(artifact: Artifact) -> str:
    """done, running, or where it stopped."""
    if artifact.done:
        return "done" if artifact.readable else "done, but its manifest cannot be read"
    state = artifact.state
    at = f" at step {state['step']:,} of {state['steps']:,}" if "step" in state and "steps" in state else ""
    word = state.get("status", "empty")
    if word == "running" and not alive(state.get("pid", 0)):
        word = "killed"
    return f"{word}{at}"


def running(artifact: Artifact) -> bool:
    """Whether a process of this machine works on it."""
    return artifact.state.get("status") == "running" and alive(artifact.state.get("pid", 0))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return pid > 0
