"""Adapters scored as they are: the same as merged, and on the right base."""

import json
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llmctl import events
from llmctl.errors import UserError
from llmctl.evals.score import token_log_probabilities
from llmctl.model.build import ModelShape, build_model
from llmctl.model.load import save_model
from llmctl.model.lora import AdapterSettings, trained_tensors
from llmctl.runs.store import RunStore
from llmctl.stages.adapters import adapted, find_adapter, tokenizer_for_model
from llmctl.stages.measure import opened
from llmctl.train import checkpoint, run
from llmctl.train.checkpoint import Position
from llmctl.train.engine import TorchEngine
from llmctl.train.job import TrainJob
from llmctl.train.objective import CausalObjective

PLAIN = AdapterSettings(rank=4, alpha=8.0)
SEQUENCES = [[int(n) for n in np.random.default_rng(0).integers(0, 512, size)] for size in (30, 7, 50)]


def scores(model: str | Path, base: str | None = None) -> tuple[np.ndarray, list[str]]:
    said: list[str] = []
    with events.listening(lambda event: said.append(getattr(event, "text", ""))), opened(model, base=base) as one:
        return np.concatenate(token_log_probabilities(one, SEQUENCES)), said


def train(stage: Path, base: Path, tokenizer_folder: Path, settings: AdapterSettings, **fields: Any) -> None:
    """Leave `adapter` and, merged, `model` in `stage`, as a lora stage does whose weights have moved."""
    job = TrainJob(
        str(stage), "lora", 1, {}, str(tokenizer_folder), [], parent=str(base), lora=asdict(settings), seed=7, **fields
    )
    trained = run.assemble_model(job)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for tensor in trained_tensors(trained).values():
            tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator))
    engine = TorchEngine(CausalObjective(trained, 0.0, False, "cpu"), torch.optim.AdamW(trained_tensors(trained).values()), 1.0)
    checkpoint.save(engine, job.path / "trainer", Position(1, 1, 1))
    run.write_model(job, job.path / "trainer", job.path / "model")


@pytest.fixture(scope="module")
def store(tmp_path_factory, tokenizer, tokenizer_folder) -> RunStore:
    """A run with a model, and a lora stage on it."""
    store = RunStore(tmp_path_factory.mktemp("runs"))
    sft, lora = store.artifact("tiny", "sft", "0" * 12), store.artifact("tiny", "lora", "1" * 12)
    shape = ModelShape(32, 2, 2, 2, 16, 64, window=16, vocab_size=512, max_length=128)
    save_model(build_model(shape, 3), tokenizer, sft.folder / "model")
    sft.commit("sft", {}, {}, ["model"], [], {}, time.time())
    train(lora.folder, sft.folder / "model", tokenizer_folder, PLAIN)
    lora.commit("lora", {"sft": sft}, {"stage": {"from": "sft"}}, ["model", "adapter"], [], {}, time.time())
    return store


def stage(store: RunStore, name: str) -> Path:
    return next(artifact.folder for artifact in store.checkpoints() if artifact.stage == name)


@pytest.mark.parametrize("settings", [PLAIN, replace(PLAIN, dora=True), replace(PLAIN, init="pissa")])
def test_an_adapter_scores_as_the_merged_model_does(store, tmp_path, tokenizer_folder, settings):
    base = stage(store, "sft") / "model"
    train(tmp_path / "stage", base, tokenizer_folder, settings)
    beside, _ = scores(tmp_path / "stage" / "adapter", str(base))
    merged, _ = scores(tmp_path / "stage" / "model")
    np.testing.assert_allclose(beside, merged, atol=1e-4)
    assert np.abs(beside - scores(base)[0]).max() > 1e-2


def test_the_base_is_that_of_the_lineage_even_if_the_adapter_says_another(store, tmp_path):
    copied = shutil.copytree(store.root, tmp_path / "runs")
    folder = copied / stage(store, "lora").relative_to(store.root) / "adapter"
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": "/gone"}))
    found = adapted(folder)
    assert found is not None
    assert Path(found.base) == copied / stage(store, "sft").relative_to(store.root) / "model"
    beside, said = scores(folder)
    np.testing.assert_allclose(beside, scores(stage(store, "lora") / "model")[0], atol=1e-4)
    assert any(f"its base is {found.base} (which tiny/lora began with)" in line for line in said)


def test_outside_of_runs_the_base_is_named_or_what_the_adapter_records(store, tmp_path):
    folder, base = shutil.copytree(stage(store, "lora") / "adapter", tmp_path / "adapter"), stage(store, "sft") / "model"
    file = folder / "adapter_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps(settings | {"base_model_name_or_path": str(base)}))
    assert (adapted(folder).base, adapted(folder).why) == (str(base), "by its adapter_config.json")
    other = shutil.copytree(base, tmp_path / "other")
    assert adapted(folder, str(other)).base == str(other)
    file.write_text(json.dumps(settings | {"base_model_name_or_path": "/gone/model"}))
    with pytest.raises(UserError, match=r"belongs to /gone/model, which is not there; name its base"):
        adapted(folder)
    file.write_text(json.dumps(settings | {"base_model_name_or_path": None}))
    with pytest.raises(UserError, match=r"does not say which model"):
        adapted(folder)


def test_a_whole_model_is_none_and_takes_no_base(store):
    base = stage(store, "sft") / "model"
    assert adapted(base) is None
    with pytest.raises(UserError, match="no adapter"):
        adapted(base, "another")


def test_a_model_with_an_adapter_beside_it_is_still_refused(store, tmp_path):
    both = shutil.copytree(stage(store, "sft") / "model", tmp_path / "both")
    shutil.copy(stage(store, "lora") / "adapter" / "adapter_config.json", both)
    with pytest.raises(UserError, match="holds an adapter"), opened(both):
        pass


def test_the_tokenizer_is_the_adapters_own_or_else_the_bases(store, tmp_path):
    folder, base = shutil.copytree(stage(store, "lora") / "adapter", tmp_path / "adapter"), str(stage(store, "sft") / "model")
    assert (folder / "tokenizer_config.json").is_file()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": "own"}))
    assert tokenizer_for_model(folder, base).chat_template == "own"
    for file in folder.glob("*token*"):
        file.unlink()
    assert tokenizer_for_model(folder, base).chat_template == tokenizer_for_model(base).chat_template != "own"


def test_an_adapter_is_found_by_folder_and_by_name(store):
    folder = stage(store, "lora") / "adapter"
    for text in (str(folder), "tiny/lora/adapter", "lora/adapter", f"tiny/{folder.parent.name}/adapter"):
        assert find_adapter(store, text) == folder
    assert [find_adapter(store, text) for text in ("tiny/lora", "tiny/sft/adapter", str(folder.parent / "model"))] == [None] * 3
