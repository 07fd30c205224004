"""Told to stop outside the training loop, in any phase: soon, readably, and to be gone on with to the same bytes."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers import command, run_llmctl

PATIENCE = 120  # seconds for the moment to come
SOON = 20  # seconds in which it has to end; less than one on an idle machine
CODES = {signal.SIGTERM: 75, signal.SIGUSR1: 75, signal.SIGINT: 130}


@dataclass(frozen=True)
class Phase:
    """What is being made (`stage`) by `command` when the signal comes."""

    command: tuple[str, ...]
    stage: str
    before: tuple[str, ...]
    """Stages that are there already."""
    comes: Callable[[Path], bool]
    """Whether the phase has begun, by the folder of the stage."""


def begun(folder: Path) -> bool:
    return (folder / "state.json").exists()


PHASES = {
    "curating": Phase(("curate",), "corpus", (), lambda folder: (folder / ".pools").exists()),
    "training the tokenizer": Phase(("tokenizer", "train"), "tokenizer", ("corpus",), begun),
    "tokenising": Phase(("pretrain",), "tokens", ("corpus", "tokenizer"), begun),
    "setting up": Phase(
        ("pretrain",), "pretrain", ("corpus", "tokenizer", "tokens"), lambda folder: (folder / "job.json").exists()
    ),
    "measuring": Phase(("pretrain",), "pretrain", ("corpus", "tokenizer", "tokens", "pretrain"), begun),
    "evaluating": Phase(("run",), "eval", ("corpus", "tokenizer", "tokens", "pretrain"), begun),
}
CASES = [
    *(("curating", number) for number in CODES),
    *(("training the tokenizer", number) for number in CODES),
    ("tokenising", signal.SIGTERM),
    ("setting up", signal.SIGTERM),
    ("measuring", signal.SIGTERM),
    ("evaluating", signal.SIGTERM),
]


@pytest.fixture(scope="module")
def recipe(pretrained_runs) -> Path:
    return pretrained_runs.parent / "small.toml"


@pytest.fixture(scope="module")
def undisturbed(pretrained_runs, recipe, tmp_path_factory) -> Path:
    """The runs' folder of the whole recipe, made at one stretch."""
    runs = shutil.copytree(pretrained_runs, tmp_path_factory.mktemp("undisturbed") / "runs")
    result = run_llmctl("run", recipe, "--runs", runs)
    assert result.returncode == 0, result.stderr
    return runs


def stage(runs: Path, name: str) -> Path | None:
    return next(runs.glob(f"small/{name}-*"), None)


def output_hash(runs: Path, name: str) -> str:
    folder = stage(runs, name)
    assert folder is not None
    return json.loads((folder / "manifest.json").read_text())["output_hash"]


@pytest.mark.parametrize(("name", "number"), CASES)
def test_it_ends_soon_and_the_same_command_goes_on(undisturbed, recipe, tmp_path, name, number):
    phase = PHASES[name]
    for before in phase.before:
        folder = stage(undisturbed, before)
        assert folder is not None
        shutil.copytree(folder, tmp_path / "small" / folder.name)
    there = stage(tmp_path, phase.stage)
    if there is not None:  # as it is when all but the measuring is done
        (there / "manifest.json").unlink()
        (there / "state.json").unlink()
    arguments = command(*phase.command, recipe, "--runs", tmp_path)
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + PATIENCE
    while (folder := stage(tmp_path, phase.stage)) is None or not phase.comes(folder):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=SOON)
    assert errors == f"stopped by {number.name}; the same command goes on from here\n"
    assert process.returncode == CODES[number]
    assert json.loads((folder / "state.json").read_text())["status"] == "stopped"
    assert not (folder / "manifest.json").exists()
    if number is not signal.SIGTERM:  # that it goes on is the same for all
        return
    again = run_llmctl(*phase.command, recipe, "--runs", tmp_path)
    assert again.returncode == 0, again.stderr
    assert output_hash(tmp_path, phase.stage) == output_hash(undisturbed, phase.stage)
    assert not [path for path in folder.rglob(".*") if path.name != ".lock"]
