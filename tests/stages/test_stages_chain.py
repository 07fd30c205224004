"""What a finished run leaves, and what the commands say about it."""

import json
import shutil
import time

import pytest
import torch
from helpers import in_process

STAGES = ("pretrain", "midtrain", "longctx", "sft", "lora")


def test_every_stage_leaves_a_model_that_transformers_opens(finished):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for stage in STAGES:
        folder = finished.stage(stage) / "model"
        model = AutoModelForCausalLM.from_pretrained(folder)
        assert model.config.model_type == "olmo3"
        assert AutoTokenizer.from_pretrained(folder).chat_template
        assert model.config.max_position_embeddings == (64 if stage in ("pretrain", "midtrain") else 512)


def test_yarn_is_on_the_full_attention_layers_alone(finished):
    config = json.loads((finished.stage("longctx") / "model" / "config.json").read_text())
    assert config["rope_parameters"]["full_attention"]["rope_type"] == "yarn"
    assert config["rope_parameters"]["full_attention"]["factor"] == 8.0
    assert config["rope_parameters"]["sliding_attention"]["rope_type"] == "default"


def test_each_stage_starts_from_its_parents_weights(finished):
    for child, parent in zip(STAGES[1:], STAGES, strict=False):
        assert parent in finished.manifest(child)["parents"]
    job = json.loads((finished.stage("midtrain") / "job.json").read_text())
    assert job["parent"] == str(finished.stage("pretrain") / "model")
    assert job["moments"] == str(finished.stage("pretrain") / "trainer")
    assert "optimizer moments carried over" in finished.printed


def test_no_checkpoint_of_a_finished_stage_stays(finished):
    assert not list(finished.folder.glob("*/checkpoints"))


def test_peft_loads_the_adapter_and_the_merged_model_is_the_same(finished):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(finished.stage("sft") / "model")
    adapted = PeftModel.from_pretrained(base, finished.stage("lora") / "adapter")
    merged = AutoModelForCausalLM.from_pretrained(finished.stage("lora") / "model")
    tokens = torch.arange(20, 80)[None]
    with torch.no_grad():
        difference = (adapted(tokens).logits - merged(tokens).logits).abs().max()
        moved = (merged(tokens).logits - AutoModelForCausalLM.from_pretrained(
            finished.stage("sft") / "model")(tokens).logits).abs().max()  # fmt: skip
    assert difference < 1e-5
    assert moved > 1e-4


def test_metrics_of_every_step(finished):
    lines = [json.loads(line) for line in (finished.stage("pretrain") / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 17))
    assert {"loss", "learning_rate", "tokens_per_second", "gradient_norm", "memory_bytes"} <= lines[0].keys()


def test_a_finished_run_is_left_alone_in_under_two_seconds(finished, llmctl):
    before = {path: path.stat().st_mtime_ns for path in finished.folder.glob("*/manifest.json")}
    started = time.monotonic()
    result = llmctl("run", finished.recipe, "--runs", finished.runs)
    seconds = time.monotonic() - started
    assert result.returncode == 0
    assert result.stdout.count("done before") == len(before) == 9
    assert before == {path: path.stat().st_mtime_ns for path in finished.folder.glob("*/manifest.json")}
    assert seconds < 2 * 3  # 0.7 s on an idle machine; this one may be running other tests


def test_a_changed_key_makes_the_stage_and_its_children_anew_beside_the_old(finished, llmctl):
    result = llmctl("pretrain", finished.recipe, "--runs", finished.runs, "--set", "pretrain.tokens=1024")
    assert result.returncode == 0, result.stderr
    folders = list(finished.folder.glob("pretrain-*"))
    assert len(folders) == 2
    for folder in folders:
        assert (folder / "manifest.json").exists()
    keys = in_process("pretrain", finished.recipe, "--runs", finished.runs, "--set", "pretrain.micro_batch=1")
    assert "pretrain: done before" in keys.stdout  # how the work is done is no part of what it is
    (changed,) = [f for f in folders if json.loads((f / "manifest.json").read_text())["recipe"]["stage"]["tokens"] == 1024]
    shutil.rmtree(changed)


def test_lora_without_a_recipe_takes_the_newest_run_and_says_so(finished):
    result = in_process("sft", "--lora", "--runs", finished.runs)
    assert result.returncode == 0
    assert "the newest run is 'tiny'" in result.stderr
    assert "lora: done before" in result.stdout


@pytest.mark.parametrize(("shots", "expected"), [((), {0, 2}), (("--shots", 1), {0, 1})])
def test_eval_few_shot_compares_a_checkpoint_with_its_parent(finished, tmp_path, shots, expected):
    out = tmp_path / "out.json"
    result = in_process("eval", "tiny/sft", "--few-shot", *shots, "--json", out, "--runs", finished.runs)
    assert result.returncode == 0, result.stderr
    rows = json.loads(out.read_text())["results"]
    assert {row["checkpoint"] for row in rows} == {"longctx", "sft"}
    assert {row["shots"] for row in rows} == expected
    for row in rows:
        assert 0 <= row["value"] <= 1
        assert row["chance"] == pytest.approx(0.25)


def test_eval_without_a_checkpoint_takes_the_newest(finished):
    result = in_process("eval", "--few-shot", "--runs", finished.runs)
    assert result.returncode == 0, result.stderr
    assert "no checkpoint given: the newest is tiny/lora" in result.stderr


def test_generate_goes_on_from_the_prompt(finished, llmctl):
    result = llmctl("generate", "tiny/longctx", "def fibonacci(n):", "--tokens", 8, "--runs", finished.runs)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("def fibonacci(n):")
    assert len(result.stdout) > len("def fibonacci(n):\n")
    again = in_process("generate", finished.stage("longctx"), "def fibonacci(n):", "--tokens", 8)
    assert again.stdout == result.stdout


def test_chat_answers_until_the_input_ends(finished, llmctl):
    result = llmctl("chat", "tiny/sft", "--tokens", 5, "--runs", finished.runs, input="Triple 3?\nAnd 4?\n")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("model: ") == 2


def test_lineage_reaches_back_to_the_corpus(finished):
    text = in_process("lineage", "tiny/lora", "--runs", finished.runs).stdout
    for stage in ("lora", "sft", "longctx", "midtrain", "pretrain", "tokenizer", "corpus"):
        assert stage in text
    tree = json.loads(in_process("lineage", "tiny/lora", "--json", "--runs", finished.runs).stdout)
    assert "lora" in json.dumps(tree)


def test_verify_names_the_file_whose_bytes_changed(finished, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(finished.runs, runs)
    assert in_process("verify", "tiny/lora", "--runs", runs).returncode == 0
    victim = next((runs / "tiny").glob("pretrain-*")) / "model" / "config.json"
    victim.write_text(victim.read_text() + " ")
    result = in_process("verify", "tiny/lora", "--runs", runs)
    assert result.returncode == 1
    assert str(victim) in result.stdout + result.stderr


def test_runs_are_listed_with_where_each_stands(finished):
    text = in_process("runs", "--runs", finished.runs).stdout
    assert "tiny" in text
    assert "lora" in text
    assert json.loads(in_process("runs", "--json", "--runs", finished.runs).stdout)


def test_a_stage_command_makes_what_comes_before_it(finished, llmctl, tmp_path):
    result = llmctl("tokenizer", "train", finished.recipe, "--runs", tmp_path)
    assert result.returncode == 0
    assert "corpus is not there yet and is made first" in result.stdout
    assert {path.name.split("-")[0] for path in (tmp_path / "tiny").glob("*-*")} == {"corpus", "tokenizer"}


def test_the_held_out_documents_are_in_no_training_text(finished):
    from llmctl.corpus.documents import read_documents

    corpus = finished.stage("corpus")
    held = {document.text for document in read_documents(corpus, "code", "heldout")}
    trained = {document.text for document in read_documents(corpus, "code", "train")}
    assert held
    assert trained
    assert not held & trained
