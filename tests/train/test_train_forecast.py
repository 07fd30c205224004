"""What training takes is told ahead: by a probe within a quarter of the time, and nothing that is learnt changes."""

import json
import statistics
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from llmctl import events
from llmctl.model.loss import base_model
from llmctl.model.precision import multiplies_bfloat16
from llmctl.preflight.decoder import decoder_of
from llmctl.preflight.fit import Task
from llmctl.preflight.memory import Machine
from llmctl.recipe.graph import training_stage
from llmctl.recipe.load import load_recipe
from llmctl.stages.bench import job_of_random_rows
from llmctl.train import forecast
from llmctl.train.bench import make_step
from llmctl.train.data import TrainingRows
from llmctl.train.distributed import join_process_group
from llmctl.train.forecast import FORECAST_FILE, Forecast, room_for, tell
from llmctl.train.prefetch import Prefetch
from llmctl.train.probe_step import Probed, Subject, Trial, period_of, probe, trials_of
from llmctl.train.run import assemble_model, engine_for

LARGER = [f"model.{key}" for key in ("hidden_size=128", "heads=2", "ffn_size=512", "layers=12")]
STAGE = ["pretrain.seq_len=256", "pretrain.batch_tokens=2048", "pretrain.micro_batch=4", "pretrain.optimizer=adamw"]


@pytest.fixture
def subject(small_recipe, tmp_path):
    recipe = load_recipe(small_recipe, LARGER + STAGE)
    job = job_of_random_rows(recipe, training_stage(recipe, "pretrain"), 8, 1, tmp_path / "job")
    model = assemble_model(job)
    task = Task(decoder_of(model), job.settings, Machine(1, 0, False, multiplies_bfloat16("cpu"), ""))
    return Subject(job, TrainingRows(job), base_model(model).config, task, 4)


def seconds_of_a_step(subject: Subject) -> float:
    """The training loop's own."""
    join_process_group()
    engine, _ = engine_for(subject.job, assemble_model(subject.job), subject.rows)
    data, marks = Prefetch(subject.rows, subject.micro_batch, 0, 1, engine.device, 8), []
    for step in range(6):
        started = time.perf_counter()
        make_step(engine, data, step)
        marks.append(time.perf_counter() - started)
    return statistics.median(marks[1:])


def probed(subject: Subject) -> Probed:
    """All blocks, in their own micro-batches."""
    return probe(subject, (Trial(12, subject.micro_batch),), 5.0)


def test_a_step_is_told_within_a_quarter(subject):
    for attempt in range(3):  # other processes may take the machine's cores for a while
        ratio = probed(subject).step(subject) / seconds_of_a_step(subject)
        if attempt == 2 or ratio == pytest.approx(1, rel=0.25):
            break
    assert ratio == pytest.approx(1, rel=0.25)


def test_fewer_blocks_stand_for_many(subject, monkeypatch):
    """Where all of them would take too long."""
    from llmctl.train import probe_step

    seconds = {4: [5.0, 5.0], 8: [9.0, 9.0, 50.0]}  # of the third batch there is no pair
    monkeypatch.setattr(probe_step, "timed", lambda subject, trial, budget: (seconds[trial.blocks], float(trial.blocks)))
    decoder = subject.task.decoder
    assert period_of(decoder.windows) == 4
    twice = replace(decoder, windows=2 * decoder.windows, block_matrices=2 * decoder.block_matrices)
    twice = replace(subject, task=replace(subject.task, decoder=twice))
    trials = trials_of(twice.task, 4, 48.0, 11.9)
    assert trials == (Trial(8, 1), Trial(4, 1))
    assert probe(twice, trials, 11.9) == Probed(4 * 25, 24)
    seconds[8] = [4.0, 4.0]  # by chance: no block takes less than none
    assert probe(twice, trials, 11.9) == Probed(4 * 5, 24)
    assert trials_of(twice.task, 4, 48.0, 1.0) == ()
    assert trials_of(twice.task, 4, 8.0, 11.9) == (Trial(24, 4),)
    assert trials_of(twice.task, 4, 20.0, 11.9) == (Trial(24, 1),)


def test_the_head_counts_in_what_shorter_models_take(subject):
    """Both have the whole of it."""
    wide = replace(subject.task, decoder=replace(subject.task.decoder, vocab_size=10**9))
    assert Trial(4, 1).seconds(wide, 48.0, 4) == pytest.approx(12.0, rel=0.1)
    assert Trial(4, 1).seconds(subject.task, 48.0, 4) < 5.0


def test_ranks_share_the_update_out_but_not_at_stage_0(subject):
    def step(stage: int, ranks: int) -> float:
        table = subject.task.table.model_copy(update={"zero_stage": stage})
        shared = replace(subject.task, table=table, machine=replace(subject.task.machine, ranks=ranks))
        return Probed(0.0, 8.0).step(replace(subject, task=shared))

    assert step(0, 1) == 8.0
    assert 8.0 < step(0, 2) < 8.1
    assert 4.0 < step(1, 2) < 4.1


def test_a_probe_leaves_random_numbers_and_listeners_as_they_were(subject):
    heard = []
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with events.listening(heard.append):
        assert probed(subject).update > 0
        events.say("still here")
    assert torch.equal(torch.rand(3), expected)
    assert [event.text for event in heard] == ["still here"]


@pytest.fixture
def engine() -> Any:
    join_process_group()
    return SimpleNamespace(rank=0, world_size=1, data_ranks=1, device=torch.device("cpu"))


def test_a_probe_that_fails_is_told_and_training_goes_on(subject, engine, monkeypatch):
    monkeypatch.setattr(forecast, "SHORTEST", 0.0)
    heard, trained = [], []
    told = Forecast(subject.job, assemble_model(subject.job))
    told.config = SimpleNamespace(num_hidden_layers=12)  # of no model that is known
    with events.listening(heard.append), told.against(engine, subject.rows, 4, 0):
        trained.append(True)
    assert trained
    assert "no time is predicted" in heard[0].text
    assert list(json.loads((subject.job.path / FORECAST_FILE).read_text())["predicted"]) == ["memory_bytes"]


def test_a_stage_that_has_no_step_left_is_told_nothing_of(subject, engine):
    heard = []
    with (
        events.listening(heard.append),
        Forecast(subject.job, assemble_model(subject.job)).against(engine, subject.rows, 4, subject.job.steps),
    ):
        pass
    assert not heard
    assert not (subject.job.path / FORECAST_FILE).exists()


def test_a_probe_has_to_fit_beside_what_training_takes(subject, engine):
    trials = (Trial(12, 4),)
    assert room_for(engine, subject.task, trials, 0.0)
    assert not room_for(engine, subject.task, trials, 1e18)


def test_both_are_told_in_one_line():
    heard = []
    with events.listening(heard.append):
        tell("pretrain", {"memory_bytes": 2.0**30, "tokens_per_second": 5900, "seconds": 271},
             {"memory_bytes": 1.06 * 2**30, "tokens_per_second": 6120})  # fmt: skip
        tell("pretrain", {}, {"memory_bytes": 2.0**30})
    (line,) = heard
    assert line.text == "pretrain: predicted 5,900 tokens/s, 0:04:31, 1.00 GiB; measured 6,120 tokens/s (+4%), 1.06 GiB (+6%)"


def test_a_stage_keeps_both_in_its_manifest(pretrained_runs):
    (manifest,) = (pretrained_runs / "small").glob("pretrain-*/manifest.json")
    metrics = json.loads(manifest.read_text())["metrics"]
    assert metrics["predicted/memory_bytes"] == pytest.approx(metrics["measured/memory_bytes"], rel=0.1)
    assert metrics["measured/tokens_per_second"] > 0
    assert metrics["measured/seconds"] == pytest.approx(5120 / metrics["measured/tokens_per_second"])
    assert "predicted/seconds" not in metrics  # so short a training is not timed ahead
