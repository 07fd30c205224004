"""Expected speed, the settings that it finds, and disk: from shapes and tables alone."""

from dataclasses import replace

import pytest
import torch

from llmctl.model.build import ModelShape, build_model
from llmctl.preflight.decoder import Decoder, decoder_of
from llmctl.preflight.disk import Disk, disk_of, peak_of_run
from llmctl.preflight.fit import Task
from llmctl.preflight.gpus import GPUS
from llmctl.preflight.memory import Machine
from llmctl.preflight.resident import resident_bytes
from llmctl.preflight.search import fastest
from llmctl.preflight.speed import Rates, StepTime, expected_rates, flops_per_token, rates_of_gpu, step_time
from llmctl.recipe.schema import PretrainTable
from llmctl.train.bench import work_of

SEVEN = ModelShape(vocab_size=100_352, hidden_size=4096, layers=32, heads=32, kv_heads=32, head_size=128, ffn_size=11_008,
                   window=4096, max_length=8192)  # fmt: skip


@pytest.fixture(scope="module")
def seven() -> Decoder:
    """Olmo 3 7B."""
    return decoder_of(build_model(SEVEN, seed=1, device="meta"))


def task(decoder: Decoder, ranks: int, gpu: str = "h100", **keys) -> Task:
    base = {"name": "p", "kind": "pretrain", "seq_len": 8192, "batch_tokens": 2**22, "lr": 1e-3, "zero_stage": 1}
    known = GPUS[gpu]
    machine = Machine(ranks, known.memory, True, known.peak is not None, gpu, known)
    return Task(decoder, PretrainTable.model_validate(base | keys), machine)


def rates(gpu: str, ranks: int) -> Rates:
    found = rates_of_gpu(GPUS[gpu], ranks)
    assert found is not None
    return found


def of_step(given: Task, micro_batch: int = 1) -> StepTime:
    return step_time(given, micro_batch, rates(given.machine.name, given.machine.ranks))


def test_a_token_costs_what_the_model_itself_says(seven):
    work = work_of(build_model(SEVEN, seed=1, device="meta"))
    assert work is not None
    assert flops_per_token(seven, 8192) == work.flops_per_token({8192: 1})


def test_olmo_3_in_production_is_within_a_quarter_of_what_is_expected(seven):
    """7,700 tokens/s of an H100 at 8,192 tokens a row, by the report."""
    given = task(seven, 512, zero_stage=3)
    assert 2**22 / of_step(given).seconds / 512 == pytest.approx(7_700, rel=0.25)


def test_what_is_computed_again_costs_up_to_a_third(seven):
    plain = of_step(task(seven, 8)).products
    assert of_step(task(seven, 8, activation_checkpointing=True)).products == pytest.approx(plain * 4 / 3)
    assert of_step(task(seven, 8, activation_checkpointing=2)).products == pytest.approx(plain * 7 / 6)
    assert plain < of_step(task(seven, 8, tiled_mlp=True)).products < plain * 4 / 3


def test_more_is_sent_the_more_is_sharded_and_slow_links_make_it_dear(seven):
    by_stage = [of_step(task(seven, 8, zero_stage=stage), 8).communication for stage in (1, 2, 3)]
    assert by_stage == sorted(by_stage)
    assert of_step(task(seven, 8, "l40s", zero_stage=3)).communication > 10 * by_stage[2]
    assert of_step(task(seven, 1)).communication == 0
    across = of_step(task(seven, 16)).communication, of_step(task(seven, 8)).communication
    assert across[0] > 5 * across[1]


def test_the_host_makes_an_update_slower(seven):
    assert of_step(task(seven, 8, offload_optimizer=True)).host > of_step(task(seven, 8)).update


def test_small_models_are_held_up_by_launches():
    small = decoder_of(build_model(replace(SEVEN, hidden_size=256, heads=4, kv_heads=4, head_size=64, ffn_size=1024, layers=4),
                                   seed=1, device="meta"))  # fmt: skip
    few, many = (of_step(task(small, 1, seq_len=512, zero_stage=0), rows).seconds for rows in (1, 64))
    assert few > 4 * many


def test_rates_are_known_for_bfloat16_alone(seven):
    assert expected_rates(task(seven, 8)) == rates("h100", 8)
    assert expected_rates(task(seven, 8, precision="fp32", zero_stage=0)) is None
    assert rates_of_gpu(GPUS["t4"], 1) is None


def test_what_is_computed_again_costs_more_below_an_adapter(seven):
    frozen = replace(seven, muon_matrices=0, trained=0, head_trained=False, blocks_trained=False)
    plain = of_step(task(frozen, 8)).products
    assert of_step(task(frozen, 8, activation_checkpointing=True)).products == pytest.approx(plain * 3 / 2)


def test_the_search_finds_what_fits_and_nothing_that_is_slower(seven):
    given = task(seven, 8)
    assert not given.fits(given.micro_batch)
    found = fastest(given, rates("h100", 8))
    assert found.fits
    assert found.before is None
    better = given.changed(found.keys)
    assert better.fits(better.micro_batch)
    assert found.seconds <= of_step(given.changed({"activation_checkpointing": True}), 4).seconds
    again = fastest(better, rates("h100", 8))
    assert again.keys == {}
    assert again.seconds == again.before


def test_the_host_is_the_last_resort_and_what_is_too_large_is_said(seven):
    found = fastest(task(seven, 1, "h200"), rates("h200", 1))
    assert found.fits
    assert "offload_optimizer" not in found.keys
    hopeless = fastest(task(seven, 1, "l4"), rates("l4", 1))
    assert not hopeless.fits
    assert hopeless.keys["offload_optimizer"]


def test_the_host_takes_the_optimizer_of_sharded_weights():
    """14B weights on two H100: whole they do not fit, nor do their states beside them."""
    fourteen = decoder_of(build_model(replace(SEVEN, hidden_size=5120, layers=40, heads=40, kv_heads=40, ffn_size=17_408),
                                      seed=1, device="meta"))  # fmt: skip
    for stage in (0, 1):
        given = task(fourteen, 2, zero_stage=stage)
        found = fastest(given, rates("h100", 2))
        assert found.fits
        assert found.keys["offload_optimizer"]
        assert found.keys["zero_stage"] > 1
        better = given.changed(found.keys)
        assert better.fits(better.micro_batch)
        PretrainTable.model_validate(better.table.model_dump(mode="json", by_alias=True))


def test_new_lengths_of_documents_take_memory_of_a_cpu(seven):
    memory = task(seven, 1).memory(1)
    few = resident_bytes(memory, seven, 2, [512] * 100)
    assert few > memory.needs
    many = resident_bytes(memory, seven, 2, range(1, 512))
    assert few < resident_bytes(memory, seven, 2, range(1, 512), grown=2**28) < many  # room that earlier stages have left
    assert memory.needs < resident_bytes(memory, seven, 2, range(1, 512), grown=2**60)


def test_disk_is_weights_states_and_the_checkpoints_that_are_kept():
    decoder = decoder_of(build_model(replace(SEVEN, layers=2), seed=1, device="meta"))
    adamw, four = task(decoder, 1).table, 4 * decoder.parameters
    assert disk_of(decoder, adamw, 100) == Disk(4 * four, (4 + 3 * 3) * four)
    keeping = task(decoder, 1, checkpoint={"keep": 1, "keep_every": 50}).table
    assert disk_of(decoder, keeping, 100) == Disk(6 * four, (6 + 2 * 3) * four)
    muon = task(decoder, 1, optimizer="muon", muon_lr=0.01, zero_stage=0).table
    assert disk_of(decoder, muon, 100).left == 4 * four - 4 * decoder.muon_matrices
    assert peak_of_run([Disk(1, 5), Disk(1, 9), Disk(1, 3)]) == 10


def test_disk_is_what_a_finished_stage_takes(pretrained_runs):
    from transformers import AutoModelForCausalLM

    from llmctl.train.job import TrainJob

    (folder,) = (pretrained_runs / "small").glob("pretrain-*")
    with torch.device("cpu"):
        decoder = decoder_of(AutoModelForCausalLM.from_pretrained(folder / "model"))
    files = [file for part in ("model", "trainer") for file in (folder / part).rglob("*.safetensors")]
    job = TrainJob.read(folder / "job.json")
    assert disk_of(decoder, job.settings, job.steps).left == pytest.approx(sum(file.stat().st_size for file in files), rel=0.05)
