"""`llmctl export`: what others get, what it says of itself, and what is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers import in_process
from safetensors.torch import load_file

from llmctl.errors import StageFailed, UserError
from llmctl.model.load import load_model
from llmctl.recipe.outside import check_model_folder
from llmctl.recipe.schema import Recipe
from llmctl.runs.files import sha256_file
from llmctl.stages import exporting
from llmctl.stages.exporting import Wish, export_checkpoint
from llmctl.tokens.tokenizer import load_tokenizer


def front_matter(readme: str) -> list[str]:
    return readme.split("---")[1].strip().splitlines()


def test_a_folder_holds_the_model_as_it_is_and_a_card_of_its_making(llmctl, finished, tmp_path):
    result = llmctl("export", "tiny/sft", tmp_path / "out", "--runs", finished.runs)
    assert result.returncode == 0, result.stderr
    for file in (finished.stage("sft") / "model").iterdir():
        assert sha256_file(tmp_path / "out" / file.name) == sha256_file(file)
    readme = (tmp_path / "out" / "README.md").read_text()
    assert {"library_name: transformers", "pipeline_tag: text-generation", "- olmo3"} <= set(front_matter(readme))
    assert not any(line.startswith("license:") for line in front_matter(readme))
    for name in ("corpus", "tokenizer", "pretrain", "midtrain", "longctx", "sft"):
        assert f"`{finished.manifest(name)['key']}`" in readme
    assert f"{finished.manifest('pretrain')['metrics']['tokens/code']:,} tokens" in readme
    assert "loss on held-out answers/after" in readme
    assert "| lora" not in readme  # comes after it
    assert "measured/" not in readme
    assert "<|im_start|>user\nWhat is a tokenizer?<|im_end|>" in readme
    assert str(finished.runs) not in readme


def test_the_card_has_the_scores_of_this_very_model(finished, tmp_path):
    in_process("export", "tiny/midtrain", tmp_path / "out", "--runs", finished.runs)
    readme = (tmp_path / "out" / "README.md").read_text()
    own = {k: v for k, v in finished.manifest("eval")["metrics"].items() if k.startswith("midtrain/")}
    assert own
    for name, value in own.items():
        assert f"| {name.removeprefix('midtrain/')} | {value:.4g} |" in readme


def test_weights_are_cast_and_say_so(finished, tmp_path):
    result = in_process("export", "sft", tmp_path / "out", "--run", "tiny", "--type", "bf16", "--runs", finished.runs)
    assert result.returncode == 0, result.stderr
    before = load_file(finished.stage("sft") / "model" / "model.safetensors")
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(after[name], tensor.bfloat16()) for name, tensor in before.items())
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    assert load_tokenizer(str(tmp_path / "out")).chat_template
    load_model(str(tmp_path / "out"))


def test_a_gguf_file_is_compared_with_the_model_as_it_is_written(llmctl, finished, tmp_path):
    pytest.importorskip("xllamacpp", reason="llama.cpp comes with the package xllamacpp")
    result = llmctl("export", "tiny/lora", tmp_path, "--format", "gguf", "--runs", finished.runs)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "12 of 12 texts split alike" in result.stdout
    file = tmp_path / "tiny-lora-F16.gguf"
    assert file.is_file()
    readme = (tmp_path / "README.md").read_text()
    assert f"llama-cli -m {file.name}" in readme
    assert "library_name: gguf" in front_matter(readme)
    again = in_process("export", "tiny/lora", file, "--runs", finished.runs)
    assert again.returncode == 2
    assert "is there already" in again.stderr
    told = [*check_model_folder(Recipe(name="next"), str(file))]
    assert "sliding window" in told[0]  # transformers would start from another model


def test_a_gguf_file_that_llama_cpp_reads_as_another_model_is_not_left(finished, tmp_path, monkeypatch):
    from llmctl.model.gguf import check

    monkeypatch.setattr(check, "compare", lambda *_: check.Agreement(texts=1, split_alike=1, next_tokens=9, equal=8, gaps=[0.4]))
    monkeypatch.setattr(exporting, "wanted", lambda _: True)
    with pytest.raises(StageFailed, match="computes something else"):
        export_checkpoint("tiny/sft", tmp_path / "x.gguf", Wish(), None, finished.runs)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("target", ["out", "out.gguf"])
def test_a_file_that_has_changed_since_it_was_made_is_not_exported(finished, tmp_path, target):
    runs = shutil.copytree(finished.runs, tmp_path / "runs")
    model = runs / "tiny" / finished.stage("sft").name / "model"
    (model / "tokenizer_config.json").write_text((model / "tokenizer_config.json").read_text() + " ")
    result = in_process("export", "tiny/sft", tmp_path / target, "--runs", runs)
    assert result.returncode == 1
    assert "tokenizer_config.json: its bytes have changed" in result.stderr
    assert not (tmp_path / target).exists()


def test_a_model_of_others_gets_a_card_of_what_is_known(finished, tmp_path):
    shutil.copytree(finished.stage("sft") / "model", tmp_path / "stranger")
    result = in_process("export", tmp_path / "stranger", tmp_path / "out", "--runs", finished.runs)
    assert result.returncode == 0, result.stderr
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "# stranger" in readme
    assert "No record of how it was made" in readme
    assert "AutoModelForCausalLM" in readme


def test_a_card_that_comes_with_the_model_stays(finished, tmp_path):
    folder = shutil.copytree(finished.stage("sft") / "model", tmp_path / "stranger")
    (folder / "README.md").write_text("theirs")
    in_process("export", folder, tmp_path / "out", "--runs", finished.runs)
    assert (tmp_path / "out" / "README.md").read_text() == "theirs"


def test_what_cannot_be_done_is_told(finished, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    for arguments, words in (
        (("tiny/sft", tmp_path / "full"), "is there already"),
        (("tiny/sft", tmp_path / "new", "--type", "q8_0"), "only GGUF files are quantised"),
        (("tiny/sft", tmp_path / "new", "--check"), "only a GGUF file"),
        (("tiny/sft", tmp_path / "new.gguf", "--format", "safetensors"), "writes a folder"),
        (("tiny/nothing", tmp_path / "new"), "no checkpoint of a run"),
    ):
        result = in_process("export", *arguments, "--runs", finished.runs)
        assert result.returncode == 2, result.stdout
        assert words in result.stderr
    assert (tmp_path / "full" / "thesis.tex").exists()


def test_gguf_without_its_package_names_what_to_install(finished, tmp_path, monkeypatch):
    monkeypatch.setattr("llmctl.errors.find_spec", lambda name: None if name == "gguf" else True)
    with pytest.raises(UserError, match="pip install gguf"):
        export_checkpoint("tiny/sft", Path(tmp_path / "x.gguf"), Wish(), None, finished.runs)
