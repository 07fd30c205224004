"""Checkpoints are written while training goes on: of the weights as they were, and again after a failure."""

import errno
import time
from typing import Any

import pytest
from one_weight import ROWS, Engine, settings

from llmctl import events
from llmctl.recipe.execution_schema import CheckpointTable
from llmctl.train import checkpoint
from llmctl.train.checkpoint import Position, SavedState
from llmctl.train.loop import train


def saved(folder) -> dict[int, float]:
    """The weight in every checkpoint, by step."""
    found = {}
    for path in checkpoint.steps_on_disk(folder / "checkpoints"):
        assert not checkpoint.problems(path)
        state = SavedState(path)
        found[state.position.step] = float(state.read("w")["weight"])
    return found


def test_what_is_written_is_the_state_of_its_step(tmp_path, monkeypatch):
    """Writing takes longer than many steps, which go on meanwhile."""
    write = checkpoint.write_shard

    def slowly(*arguments):
        time.sleep(0.3)
        write(*arguments)

    monkeypatch.setattr(checkpoint, "write_shard", slowly)
    engine: Any = Engine({})
    seen: list[int] = []
    with events.listening(lambda event: seen.append(len(saved(tmp_path)))):
        train(engine, ROWS, settings(tmp_path), Position(0, 0, 0))
    assert saved(tmp_path) == {step: float(step) for step in (20, 25, 30, 35)}
    assert seen[5] == 0  # the first was not there yet when the sixth step was made


def test_a_full_disk_costs_one_checkpoint_and_no_more(tmp_path, monkeypatch):
    write, failing = checkpoint.write_shard, [2]

    def sometimes(*arguments):
        failing[0] -= 1
        if failing[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*arguments)

    monkeypatch.setattr(checkpoint, "write_shard", sometimes)
    engine: Any = Engine({})
    heard = []
    table = CheckpointTable(every_steps=10, keep=9)
    with events.listening(heard.append):
        position = train(engine, ROWS, settings(tmp_path, checkpoint=table), Position(0, 0, 0))
    assert (position.step, engine.weight) == (40, 40.0)
    assert list(saved(tmp_path)) == [30, 10]
    warned = [event.text for event in heard if isinstance(event, events.Message) and event.level == "warning"]
    assert len(warned) == 1
    assert "no space is left on the disk" in warned[0]
    assert "step-00000010" in warned[0]
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_an_error_of_safetensors_is_one_of_the_system(tmp_path, monkeypatch):
    import safetensors.torch

    def full(*_):
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match="No space") as error:
        checkpoint.write_shard(tmp_path, {}, 0, 1)
    assert error.value.errno == errno.ENOSPC
