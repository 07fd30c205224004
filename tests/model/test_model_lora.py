"""Adapters of every kind: where they begin, what is saved of them, and that it fits the base as it was."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from llmctl.errors import StageFailed, UserError
from llmctl.model.adapter_files import check_adapter, read_adapter, with_adapters
from llmctl.model.build import ModelShape, build_model
from llmctl.model.embeddings import embedding_weights, resize_embeddings
from llmctl.model.load import load_model, save_model
from llmctl.model.lora import AdapterSettings, add_adapter, trained_tensors
from llmctl.model.merge import COMPARED, largest_difference, logits_of
from llmctl.recipe.chat_schema import INITS
from llmctl.tokens.tokenizer import load_tokenizer
from llmctl.train import checkpoint, run
from llmctl.train.checkpoint import Position
from llmctl.train.engine import TorchEngine
from llmctl.train.job import TrainJob
from llmctl.train.objective import CausalObjective

TOKENS = torch.arange(3, 43)[None] * 7 % 512
PLAIN = AdapterSettings(rank=4, alpha=8.0)
KINDS = {
    "default": PLAIN,
    "gaussian": replace(PLAIN, init="gaussian"),
    "orthogonal": replace(PLAIN, init="orthogonal"),
    "pissa": replace(PLAIN, init="pissa"),
    "pissa_niter_4": replace(PLAIN, init="pissa_niter_4"),
    "olora": replace(PLAIN, init="olora"),
    "rslora": replace(PLAIN, rslora=True),
    "dora": replace(PLAIN, dora=True),
    "pissa and rslora": replace(PLAIN, init="pissa", rslora=True),
    "olora and dora": replace(PLAIN, init="olora", dora=True),
    "two layers": replace(PLAIN, targets=["q_proj", "mlp.up_proj"]),
}


def shape(tied: bool = False) -> ModelShape:
    return ModelShape(
        hidden_size=16, layers=2, heads=2, kv_heads=2, head_size=8, ffn_size=32, window=8, vocab_size=512, max_length=64,
        tie_embeddings=tied,
    )  # fmt: skip


def difference(one: Any, other: Any, tokens: torch.Tensor = TOKENS) -> float:
    return largest_difference(logits_of(one, [tokens]), logits_of(other, [tokens]))


def load_adapted(base: str, folders: list[Path]) -> Any:
    return with_adapters(load_model(base), [check_adapter(folder, base) for folder in folders], [1.0] * len(folders))


def test_of_a_long_prompt_the_last_logits_are_compared():
    model: Any = build_model(shape(), 3)
    long = torch.arange(300)[None] % 512
    (found,) = logits_of(model, [long])
    assert found.shape == (1, COMPARED, 512)
    with torch.no_grad():
        torch.testing.assert_close(found, model(input_ids=long).logits[:, -COMPARED:])


@pytest.fixture
def base(tmp_path, tokenizer) -> Path:
    save_model(build_model(shape(), 3), tokenizer, tmp_path / "base")
    return tmp_path / "base"


def move(model: Any) -> None:
    """What training would do, to everything that is trained."""
    generator = torch.Generator().manual_seed(5)
    for tensor in trained_tensors(model).values():
        tensor.add_(0.02 * torch.randn(tensor.shape, generator=generator))


def left_by(job: TrainJob, trained: Any) -> None:
    """Leave the files of a stage that ends with these weights."""
    engine = TorchEngine(CausalObjective(trained, 0.0, False, "cpu"), torch.optim.AdamW(trained_tensors(trained).values()), 1.0)
    checkpoint.save(engine, job.path / "trainer", Position(1, 1, 1))
    run.write_model(job, job.path / "trainer", job.path / "model")


def job_of(folder: Path, settings: AdapterSettings, parent: Path, tokenizer: Path, **fields: Any) -> TrainJob:
    return TrainJob(str(folder), "lora", 1, {}, str(tokenizer), [], parent=str(parent), lora=asdict(settings), seed=7, **fields)


@pytest.mark.parametrize("name", KINDS)
def test_an_adapter_begins_as_no_change_and_the_seed_decides_it(base, name):
    adapted, same = (add_adapter(load_model(str(base)), KINDS[name], seed=7) for _ in range(2))
    assert difference(adapted, load_model(str(base))) < 1e-5
    for key, tensor in adapted.state_dict().items():
        assert torch.equal(tensor, same.state_dict()[key]), key


@pytest.mark.parametrize("name", KINDS)
def test_trained_model_adapter_on_the_original_base_and_merged_model_are_one(base, tmp_path, tokenizer_folder, name):
    job = job_of(tmp_path / "stage", KINDS[name], base, tokenizer_folder)
    trained = run.assemble_model(job)
    move(trained)
    left_by(job, trained)
    adapted, merged = load_adapted(str(base), [tmp_path / "stage" / "adapter"]), load_model(str(tmp_path / "stage" / "model"))
    assert difference(trained, adapted) < 1e-5
    assert difference(trained, merged) < 1e-5
    assert difference(trained, load_model(str(base))) > 1e-3
    settings = read_adapter(tmp_path / "stage" / "adapter").settings
    assert settings["init_lora_weights"] in (True, "gaussian", "orthogonal")  # no others leave a base as it is
    assert settings["r"] == (8 if KINDS[name].changes_base else 4)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("init", ["default", "pissa"])
def test_embeddings_of_added_tokens_are_trained_and_saved(tmp_path, tokenizer, tokenizer_folder, tied, init):
    from peft import PeftModel

    base, more = tmp_path / "base", load_tokenizer(str(tokenizer_folder))
    save_model(build_model(shape(tied), 3), tokenizer, base)
    more.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|assistant|>"]})
    more.save_pretrained(tmp_path / "more")
    settings = replace(PLAIN, added_tokens=2, init=init)
    job = job_of(tmp_path / "stage", settings, base, tmp_path / "more", vocabulary=len(more))
    trained: Any = run.assemble_model(job)
    names = [name for name in trained_tensors(trained) if "lora" not in name]
    assert len(names) == (1 if tied else 2)
    move(trained)
    left_by(job, trained)
    adapter, merged = tmp_path / "stage" / "adapter", load_model(str(tmp_path / "stage" / "model"))
    with_added = torch.cat([TOKENS, torch.tensor([[512, 513]])], dim=1)
    assert merged.get_input_embeddings().weight.shape[0] == merged.config.vocab_size == 640
    assert difference(trained, merged, with_added) < 1e-5
    assert difference(trained, load_adapted(str(base), [adapter]), with_added) < 1e-5
    resized = load_model(str(base))
    resize_embeddings(resized, len(more))
    alone = PeftModel.from_pretrained(resized, str(adapter))
    assert difference(trained, alone, with_added) < 1e-5
    (adapter / "tokenizer_config.json").unlink()  # what tells that it is the adapter's own vocabulary
    with pytest.raises(UserError, match=r"its vocabulary is 640 .*, and the base's 512"):
        load_adapted(str(base), [adapter])


@pytest.mark.parametrize("tied", [False, True])
def test_new_rows_of_embeddings_are_the_mean_of_the_old(tied):
    model = build_model(shape(tied), 3)
    before = [weight.detach().clone() for weight in embedding_weights(model)]
    resize_embeddings(model, 512)
    assert model.config.vocab_size == 512
    resize_embeddings(model, 513)
    assert model.config.vocab_size == 640
    assert len(embedding_weights(model)) == (1 if tied else 2)
    for old, new in zip(before, embedding_weights(model), strict=True):
        assert torch.equal(new[:512], old)
        torch.testing.assert_close(new[512:], old.mean(0).expand(128, -1))


def test_layers_are_chosen_by_name_and_a_name_of_none_is_told_with_those_there_are():
    adapted = add_adapter(build_model(shape(), 3), KINDS["two layers"], seed=1)
    assert {name.split(".lora_")[0].split(".")[-1] for name in trained_tensors(adapted)} == {"q_proj", "up_proj"}
    with pytest.raises(UserError, match="called 'query'; there are down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj"):
        add_adapter(build_model(shape(), 3), replace(PLAIN, targets=["q_proj", "query"]), seed=1)
    with pytest.raises(UserError, match="called 'lm_head'"):
        add_adapter(build_model(shape(), 3), replace(PLAIN, targets=["lm_head"]), seed=1)


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_a_rank_above_a_layers_width_is_told_where_the_base_gives_the_directions(init):
    with pytest.raises(UserError, match=r"lora.rank = 17: .* is 16 wide"):
        add_adapter(build_model(shape(), 3), replace(PLAIN, init=init, rank=17), seed=1)


@pytest.mark.parametrize("init", INITS)
def test_an_adapter_is_planned_without_weights(init):
    with torch.device("meta"):
        model = add_adapter(build_model(shape(), 3, "meta"), replace(PLAIN, init=init), seed=1)
    assert all(parameter.is_meta for parameter in model.parameters())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_four_bits_without_a_gpu_are_told_before_anything_is_loaded(tmp_path):
    job = job_of(tmp_path, replace(PLAIN, quantize="nf4"), tmp_path / "nowhere", tmp_path)
    with pytest.raises(StageFailed, match="needs an NVIDIA GPU"):
        run.assemble_model(job)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="bitsandbytes packs weights on a GPU")
def test_an_adapter_trained_on_four_bits_is_merged_into_the_original(base, tmp_path, tokenizer_folder):
    bitsandbytes: Any = pytest.importorskip("bitsandbytes")
    job = job_of(tmp_path / "stage", replace(PLAIN, quantize="nf4"), base, tokenizer_folder)
    trained: Any = run.assemble_model(job).cuda()
    packed = [layer for layer in trained.modules() if isinstance(layer, bitsandbytes.nn.Linear4bit)]
    assert len([layer for layer in packed if layer.weight.quant_type == "nf4"]) >= 14
    move(trained)
    trained(input_ids=TOKENS.cuda()).logits.sum().backward()
    left_by(job, trained)
    adapted, merged = load_adapted(str(base), [tmp_path / "stage" / "adapter"]), load_model(str(tmp_path / "stage" / "model"))
    assert difference(adapted, merged) < 1e-5
    assert (trained(input_ids=TOKENS.cuda()).logits.cpu() - merged(input_ids=TOKENS).logits).abs().max() < 0.5


def test_two_jobs_on_one_base_leave_each_its_own_adapter(base, tmp_path, tokenizer_folder):
    before = (base / "model.safetensors").read_bytes()
    for seed, name in enumerate(("a", "b")):
        job = job_of(tmp_path / name, PLAIN, base, tokenizer_folder)
        trained = run.assemble_model(job)
        for tensor in trained_tensors(trained).values():
            tensor.add_(0.02 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(seed)))
        left_by(job, trained)
    assert (base / "model.safetensors").read_bytes() == before
    both = [tmp_path / name / "adapter" for name in ("a", "b")]
    assert difference(load_adapted(str(base), both), load_adapted(str(base), both[:1])) > 1e-3
    assert json.loads((both[0] / "adapter_config.json").read_text())["base_model_name_or_path"] == str(base)
