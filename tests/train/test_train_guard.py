"""Bad steps are left out, lost weights are gone back on, and both are the same after a kill."""

import math
from typing import Any

import pytest
from one_weight import ROWS, Engine, settings

from llmctl import events
from llmctl.errors import StageFailed
from llmctl.train import checkpoint
from llmctl.train.checkpoint import Position
from llmctl.train.guard import WINDOW, StepGuard
from llmctl.train.loop import train


def test_a_loss_far_above_the_last_ones_is_left_out():
    guard = StepGuard(6.0)
    for step in range(WINDOW):
        loss = 3.0 + 0.1 * (step % 2)
        assert guard.why_not(step, loss) is None
        guard.record(step, loss, 1.0)
    assert guard.why_not(WINDOW, 3.3) is None
    assert "standard deviations above the last 128" in str(guard.why_not(WINDOW, 3.5))
    assert guard.why_not(WINDOW, 0.1) is None
    assert StepGuard(0.0, guard.losses).why_not(WINDOW, 30.0) is None


def test_a_loss_that_stays_high_is_taken_after_a_while():
    guard = StepGuard(6.0, [3.0 + 0.1 * (step % 2) for step in range(WINDOW)])
    out = 0
    for step in range(WINDOW):
        out += guard.why_not(step, 4.0 + 0.1 * (step % 2)) is not None
        guard.record(step, 4.0 + 0.1 * (step % 2), 0.0)
    assert 0 < out < WINDOW / 4


def test_nothing_is_said_of_the_first_steps_but_that_a_loss_is_no_number():
    guard = StepGuard(6.0, [3.0] * (WINDOW // 2 - 1))
    assert guard.why_not(0, 1000.0) is None
    for loss in (math.nan, math.inf):
        assert f"its loss is {loss}" in str(guard.why_not(0, loss))


def test_a_gradient_far_above_the_last_ones_is_left_out_and_its_norm_counts(tmp_path):
    """Of a hundred steps that of step 80 has a norm of 9, where the others have 1.00 to 1.02."""
    engine: Any = Engine({}, norms={80: 9.0, 90: 1.05})
    heard = []
    with events.listening(heard.append):
        position = train(engine, ROWS, settings(tmp_path, steps=100), Position(0, 0, 0))
    assert engine.made == [step for step in range(100) if step != 80]
    assert (position.step, position.optimizer_step, position.norms[80]) == (100, 99, 9.0)
    warned = [event.text for event in heard if isinstance(event, events.Message) and event.level == "warning"]
    assert len(warned) == 1
    assert "step 81 is left out: its gradient norm 9.0000 is" in warned[0]
    saved = checkpoint.SavedState(checkpoint.steps_on_disk(tmp_path / "checkpoints")[0]).position
    assert saved.norms == position.norms[: saved.step]
    unwatched: Any = Engine({}, norms={80: 9.0})
    train(unwatched, ROWS, settings(tmp_path / "other", steps=100, skip_sigmas=0.0), Position(0, 0, 0))
    assert 80 in unwatched.made


def test_lost_weights_are_gone_back_on_and_the_steps_that_lost_them_left_out(tmp_path):
    """The update of step 22 breaks the weight. Step 23 shows it, and step 26 that it stays so."""
    engine: Any = Engine({22: math.nan})
    heard = []
    with events.listening(heard.append):
        position = train(engine, ROWS, settings(tmp_path), Position(0, 0, 0))
    assert position.step == 40
    assert position.left_out == (22, 23)
    assert engine.weight == position.optimizer_step == 38
    assert engine.made == [*range(23), *range(20, 22), *range(24, 40)]
    warned = [event.text for event in heard if isinstance(event, events.Message) and event.level == "warning"]
    assert any("back to step 20, and on without steps 23 and 24" in text for text in warned)


def test_a_stage_that_goes_on_from_a_checkpoint_leaves_the_same_steps_out(tmp_path):
    engine: Any = Engine({22: math.nan})
    train(engine, ROWS, settings(tmp_path, steps=33), Position(0, 0, 0))
    newest = checkpoint.newest_whole(tmp_path / "checkpoints")
    assert newest is not None
    saved = checkpoint.SavedState(newest)
    assert (saved.position.step, saved.position.left_out) == (30, (22, 23))
    assert len(saved.position.losses) == 30


def test_it_is_not_tried_for_ever(tmp_path):
    engine: Any = Engine({22: math.nan, 31: math.nan, 35: math.nan})
    with pytest.raises(StageFailed, match=r"no number since step 37, .* after going back 2 times"):
        train(engine, ROWS, settings(tmp_path), Position(0, 0, 0))
    broken: Any = Engine({2: math.nan})
    with pytest.raises(StageFailed, match="no checkpoint is from before"):
        train(broken, ROWS, settings(tmp_path / "other"), Position(0, 0, 0))
