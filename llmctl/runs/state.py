"""Where an artifact stands, as its state file and the process it names tell."""

import platform
from textwrap import shorten
from typing import Any

from llmctl.runs.artifact import Artifact
from llmctl.runs.files import alive

SHOWN = 120  # characters of why a stage failed


def status(artifact: Artifact) -> str:
    """done, running, or where it stopped."""
    if artifact.done:
        return "done" if artifact.readable else "done, but its manifest cannot be read"
    state = artifact.state
    at = f" at step {state['step']:,} of {state['steps']:,}" if "step" in state and "steps" in state else ""
    word = state.get("status", "empty")
    if word == "done":
        return "not whole: its manifest is not there"
    if word == "running":
        word = "killed" if not running(artifact) else f"running on {state['host']}" if _elsewhere(state) else "running"
    why = str(state.get("why") or "").partition("\n")[0]
    return f"{word}{at}{f': {shorten(why, SHOWN)}' if why and word == 'failed' else ''}"


def running(artifact: Artifact) -> bool:
    """Whether a process works on it, of this machine or of another one, of which only what it noted last is known."""
    state = artifact.state
    return state.get("status") == "running" and (_elsewhere(state) or alive(state.get("pid", 0)) or artifact.held)


def _elsewhere(state: dict[str, Any]) -> bool:
    """Whether another machine wrote this. Older versions did not name theirs."""
    return state.get("host", platform.node()) != platform.node()
