"""What is measured and kept while the loop runs, and what a signal does to it."""

import math
import os
import signal
import time
from typing import Any

import pytest
from one_weight import ROWS, Engine, settings

from llmctl.errors import Interrupted
from llmctl.recipe.execution_schema import CheckpointTable
from llmctl.train import checkpoint
from llmctl.train.checkpoint import Position, SavedState
from llmctl.train.loop import train


def run(engine: Any, folder, measure, position=None, **keys) -> tuple[Position, list[tuple[int, str]]]:
    kept = []
    table = CheckpointTable(every_steps=5, keep=4, keep_best=True)
    made = settings(folder, checkpoint=table, measure_every=6, **keys)
    end = train(engine, ROWS, made, position or Position(0, 0, 0), lambda where, name: kept.append((where.step, name)), measure)
    return end, kept


def test_the_best_model_is_kept_whenever_there_is_a_better_one(tmp_path):
    losses = {6: 3.0, 12: 2.5, 18: 2.7, 24: 2.6, 30: 2.2, 36: 2.3, 40: 2.3}  # the last step is measured, too
    measured = []
    end, kept = run(Engine({}), tmp_path, lambda step, stop: measured.append(step) or losses[step])
    assert measured == list(losses)
    assert kept == [(6, "best"), (12, "best"), (30, "best")]
    assert end.best == 2.2


def test_the_best_so_far_is_known_after_a_resume(tmp_path):
    run(Engine({}), tmp_path, lambda step, stop: 2.0 if step == 12 else 3.0)
    saved = SavedState(tmp_path / "checkpoints" / checkpoint.step_name(20)).position
    assert (saved.step, saved.best) == (20, 2.0)
    _, kept = run(Engine({}), tmp_path, lambda step, stop: 2.5, saved)
    assert kept == []


FALLING_THEN_RISING = {6: 3.0, 12: 2.0, 18: 2.5, 24: 2.4, 30: 1.0, 36: 1.0, 40: 1.0}


def test_training_ends_when_the_loss_has_not_fallen_for_a_while_and_has_the_best_step_on_disk(tmp_path):
    end, _ = run(Engine({}), tmp_path, lambda step, stop: FALLING_THEN_RISING[step], early_stopping=2)
    assert (end.step, end.best, end.since_best) == (24, 2.0, 2)
    best = SavedState(tmp_path / "best")
    assert best.position.step == 12
    assert float(best.read("w")["weight"]) == 12.0


def test_patience_is_not_begun_anew_by_a_resume(tmp_path):
    run(Engine({}), tmp_path, lambda step, stop: FALLING_THEN_RISING[step], early_stopping=2)
    saved = SavedState(tmp_path / "checkpoints" / checkpoint.step_name(20)).position
    assert (saved.measured, saved.since_best) == (18, 1)
    end, _ = run(Engine({}), tmp_path, lambda step, stop: FALLING_THEN_RISING[step], saved, early_stopping=2)
    assert end.step == 24


def test_a_loss_that_is_no_number_is_never_the_best(tmp_path):
    losses = FALLING_THEN_RISING | {6: math.nan, 24: math.nan}
    end, _ = run(Engine({}), tmp_path, lambda step, stop: losses[step], early_stopping=2)
    assert (end.step, end.best) == (24, 2.0)


def test_what_was_the_best_of_steps_that_are_gone_back_on_is_forgotten(tmp_path):
    told = iter([3.0, 2.5, 1.5, 2.7, 2.6, 2.6, 2.6, 2.6])  # steps 6, 12, 18; back to 15; 18, 24, 30, 36, 40
    end, _ = run(Engine({18: math.nan}), tmp_path, lambda step, stop: next(told), early_stopping=9)
    assert end.left_out
    assert (end.step, end.best) == (40, 2.6)
    assert (left := SavedState(tmp_path / "best").position).best == 2.6
    assert left.step == 24


def test_a_measurement_that_a_signal_came_before_is_made_up_for(tmp_path):
    stopped = Position(12, 0, 12, best=3.0, measured=6)
    measured = []
    run(Engine({}), tmp_path, lambda step, stop: measured.append(step) or 2.0, stopped, early_stopping=9)
    assert measured[:2] == [12, 18]


def test_what_cannot_be_measured_keeps_nothing(tmp_path):
    assert run(Engine({}), tmp_path, lambda step, stop: None)[1] == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_a_signal_while_measuring_ends_after_the_step_that_was_measured(tmp_path, number, code):
    engine: Any = Engine({})

    def measure(step, stop):
        os.kill(os.getpid(), number)
        assert stop.number == number  # so that a long measurement can leave off

    with pytest.raises(Interrupted, match="stopped at step 6 of 40 with a checkpoint of it") as stopped:
        run(engine, tmp_path, measure)
    assert stopped.value.exit_code == code
    assert engine.weight == 6.0
    assert checkpoint.steps_on_disk(tmp_path / "checkpoints")[0].name == checkpoint.step_name(6)


@pytest.mark.parametrize(("grace", "left"), [(1, "without a checkpoint of it; .* from step-00000005"), (60, "with a checkpoint")])
def test_a_checkpoint_that_takes_longer_than_the_grace_is_not_begun(tmp_path, monkeypatch, grace, left):
    write = checkpoint.write_shard

    def slowly(*arguments):
        time.sleep(1.2)
        write(*arguments)

    class Told(Engine):
        def step(self, multiplier: float, norm_limit: float = math.inf) -> float:
            if self.weight == 8.0:
                while not (tmp_path / "checkpoints" / checkpoint.step_name(5)).exists():
                    time.sleep(0.05)
                time.sleep(0.1)
                os.kill(os.getpid(), signal.SIGTERM)
            return super().step(multiplier, norm_limit)

    monkeypatch.setattr(checkpoint, "write_shard", slowly)
    table = CheckpointTable(every_steps=5, grace_seconds=grace)
    engine: Any = Told({})
    with pytest.raises(Interrupted, match=left):
        train(engine, ROWS, settings(tmp_path, checkpoint=table), Position(0, 0, 0))
