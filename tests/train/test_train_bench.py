"""A step is measured by the real loop's own calls, and nothing is learnt from it."""

import time
from dataclasses import replace

import pytest
import torch

from llmctl import events
from llmctl.model.build import ModelShape, build_model
from llmctl.preflight.flops import Work
from llmctl.recipe.graph import training_stage
from llmctl.recipe.load import load_recipe
from llmctl.stages.bench import job_of_random_rows
from llmctl.train import bench, devices
from llmctl.train.bench import WARM_UP, Stopwatch, measure, shown_documents, timed_parts, work_of
from llmctl.train.data import TrainingRows
from llmctl.train.distributed import join_process_group
from llmctl.train.engine import TorchEngine
from llmctl.train.prefetch import Prefetch
from llmctl.train.run import assemble_model, engine_for


@pytest.fixture
def job(small_recipe, tmp_path):
    recipe = load_recipe(small_recipe, ["pretrain.document_boundaries=true"])
    return job_of_random_rows(recipe, training_stage(recipe, "pretrain"), 4, 1, tmp_path / "job")


def test_steps_are_made_with_every_update_and_no_weight_moves(job, monkeypatch):
    monkeypatch.setattr(devices, "SIZE", 256)
    made = []

    def keep(job, model, rows):
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        engine, micro_batch = engine_for(job, model, rows)
        made.append((engine, before))
        return engine, micro_batch

    monkeypatch.setattr(bench, "engine_for", keep)
    found = measure(job, 4)
    ((engine, before),) = made
    assert len(found.step_seconds) == 4
    assert (found.micro_batch, found.batch_rows, found.seq_len, found.ranks) == (2, 4, 64, 1)
    for name, state in engine.named_state():
        assert torch.equal(state["weight"], before[name])
    moments = [state["momentum"].abs().max() for _, state in engine.named_state() if "momentum" in state]
    assert min(moments) > 0
    assert found.memory_bytes > 10_000_000
    assert found.flops_per_token is not None
    assert found.flops_per_token_by_rows is not None
    assert found.flops_per_token < found.flops_per_token_by_rows  # documents end inside of rows
    assert found.peak_flops is not None
    assert found.share_of_peak(1e5) == 1e5 * found.tokens_per_second / found.peak_flops
    low, high = found.middle_half
    assert low <= found.tokens_per_second <= high


def test_parts_are_where_the_time_goes(job, monkeypatch):
    """Every part is made slower by a time of its own, and only there is it found."""
    monkeypatch.setattr(bench, "IN_PARTS", 2)
    join_process_group()
    rows = TrainingRows(job)
    engine, micro_batch = engine_for(job, assemble_model(job), rows)
    data = Prefetch(rows, micro_batch, 0, 1, engine.device, steps=0)

    def slower(owner, name, seconds):
        call = getattr(type(owner), name)

        def late(*arguments):
            time.sleep(seconds)
            return call(*arguments)

        monkeypatch.setattr(type(owner), name, late)

    slower(rows.sources[0], "row", 0.2)  # 4 rows of a step
    slower(engine.objective, "forward", 0.3)  # 2 micro-batches
    slower(engine, "step", 1.0)
    slow = timed_parts(engine, data, 0)
    assert list(slow) == ["data", "forward", "backward", "optimizer", "rest"]
    for part, seconds in {"data": 0.8, "forward": 0.6, "optimizer": 1.0}.items():
        assert slow[part] >= 0.99 * seconds, part
    assert "step" not in vars(data)


def test_documents_and_padding_are_those_of_the_steps(job):
    rows = TrainingRows(job)
    documents, padding = shown_documents(rows, range(WARM_UP, WARM_UP + 2))
    assert sum(length * count for length, count in documents.items()) == 2 * 4 * 64
    assert padding == 0
    part = replace(job.parts[0], packing="best_fit")
    packed = TrainingRows(replace(job, parts=[part]))
    _, padding = shown_documents(packed, range(2))
    ignored = sum(int((packed.sources[s].row(r).labels == -100).sum()) for n in range(2) for s, r in packed.of_step(n))
    assert 0 <= padding <= ignored / (2 * 4 * 64)


def test_what_is_not_known_is_not_counted():
    told = []
    model = build_model(
        ModelShape(
            vocab_size=64, hidden_size=16, layers=2, heads=2, kv_heads=2, head_size=8, ffn_size=32, window=8, max_length=32
        ),
        1,
    )
    assert isinstance(work_of(model), Work)
    model.experts = torch.nn.Parameter(torch.zeros(2, 16, 16))
    with events.listening(lambda event: told.append(event.text)):
        assert work_of(model) is None
    assert told[0].startswith("FLOPs are not counted: experts")


def test_a_stopwatch_takes_itself_off_again():
    watch = Stopwatch(torch.device("cpu"))
    engine = TorchEngine.__new__(TorchEngine)
    with watch.on(engine, "discard", "part"):
        assert "discard" in vars(engine)
    assert "discard" not in vars(engine)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu(job):  # what a CPU has no say in: events, peak memory, the trial of micro-batches
    found = measure(job, 4)
    assert found.device_type == "cuda"
    assert found.precision == "bf16"
    assert found.memory_bytes == pytest.approx(torch.cuda.max_memory_allocated(), rel=0.5)
    assert sum(found.part_seconds.values()) > 0.5 * min(found.step_seconds)
