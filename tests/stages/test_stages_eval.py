"""`llmctl eval` through its real entry point: which checkpoints, which questions, where the numbers go, and bad input."""

import json
import shutil

import pytest
from helpers import in_process, run_llmctl
from typer.testing import CliRunner

from llmctl.cli import app
from llmctl.model.build import ModelShape, build_model
from llmctl.model.load import save_model
from llmctl.tokens.template import ensure_template

TASK = """
description = "what follows a keyword"
[[questions]]
context = "def f(x): return"
choices = ["x", "import", "class"]
answer = 0
[[questions]]
context = "import"
choices = ["os", "return", "yield"]
answer = 0
[[questions]]
context = "for x in"
choices = ["range(3):", "def", "while"]
answer = 0
[[questions]]
context = "while"
choices = ["True:", "is", "as"]
answer = 0
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory, pretrained_runs):
    """Evaluations are noted in manifests: a copy."""
    folder = tmp_path_factory.mktemp("evaluated") / "runs"
    shutil.copytree(pretrained_runs, folder)
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory, tokenizer):
    """A model from elsewhere, of no run."""
    model = build_model(ModelShape(32, 2, 2, 2, 16, 64, window=16, vocab_size=512, max_length=64), seed=3)
    ensure_template(tokenizer)
    folder = tmp_path_factory.mktemp("other") / "stranger"
    save_model(model, tokenizer, folder)
    return folder


@pytest.fixture
def task(tmp_path):
    file = tmp_path / "keywords.toml"
    file.write_text(TASK)
    return file


def scores(file):
    return json.loads(file.read_text())


def test_an_own_task_beside_another_checkpoint(runs, other, task, tmp_path):
    out = tmp_path / "scores.json"
    result = run_llmctl("eval", "--task", task, "--against", other, "--json", out, "--runs", runs, "--show-prompts", 1)
    assert result.returncode == 0, result.stderr
    assert "no checkpoint given: the newest is small/pretrain" in result.stderr
    assert "def f(x): return⟦ x⟧" in result.stdout
    assert "pretrain - stranger" in result.stdout
    first, second = scores(out)["results"]
    assert (first["checkpoint"], second["checkpoint"]) == ("stranger", "pretrain")
    assert "compared_with" not in first
    assert second["compared_with"] == "stranger"
    assert second["difference"] == pytest.approx(second["value"] - first["value"])
    low, high = second["difference_interval"]
    assert low <= second["difference"] <= high
    assert second["better"] + second["worse"] + second["equal"] == 4
    assert second["chance"] == pytest.approx(1 / 3)
    assert second["template"] == "plain"
    assert {"accuracy/none", "accuracy/character", "accuracy/byte", "accuracy/token", "bits_per_byte"} <= second[
        "measures"
    ].keys()


def test_the_same_questions_and_examples_for_all_and_again(runs, other, tmp_path):
    found = []
    for name in ("one", "two"):
        out = tmp_path / f"{name}.json"
        arguments = ("eval", "small/pretrain", other, "--suite", "builtin", "--few-shot", "--json", out, "--runs", runs)
        result = in_process(*arguments)
        assert result.returncode == 0, result.stderr
        found.append(scores(out)["results"])
    assert found[0] == found[1]
    assert {row["checkpoint"] for row in found[0]} == {"pretrain", "stranger"}
    assert {row["shots"] for row in found[0]} == {0, 3}
    assert any(row["questions_with_fewer_shots"] for row in found[0])  # 64 tokens hold no three examples
    assert "* pretrain: examples were left out" in result.stdout


def test_scores_are_noted_in_the_manifest_and_the_artifact_stays_what_it_was(runs, task):
    (manifest,) = runs.glob("small/pretrain-*/manifest.json")
    before = scores(manifest)
    assert in_process("eval", "--task", task, "--runs", runs).returncode == 0
    after = scores(manifest)
    (noted,) = [note for note in after["evaluations"] if note["asked"]["task"] == "keywords"]  # asked before, too: the newest
    assert noted["asked"]["model"] == "model"
    assert 0 <= noted["found"]["value"] <= 1
    assert {key: after[key] for key in before if key != "evaluations"} == {
        key: before[key] for key in before if key != "evaluations"
    }
    assert in_process("verify", "--runs", runs).returncode == 0
    assert "keywords" in in_process("lineage", "--runs", runs).stdout


def test_without_any_run(other, task, tmp_path):
    result = in_process("eval", other, "--task", task, "--runs", tmp_path / "none")
    assert result.returncode == 0, result.stderr
    assert "keywords" in result.stdout
    result = in_process("eval", other, "--few-shot", "--runs", tmp_path / "none")
    assert result.returncode == 2
    assert "made from the held-out text of a run, and there is none: name others" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_chat_template_is_used_when_it_is_asked_for(other, task, tmp_path):
    result = in_process("eval", other, "--task", task, "--chat", "--show-prompts", 1, "--runs", tmp_path / "none")
    assert result.returncode == 0, result.stderr
    assert "prompts through the chat template" in result.stdout
    assert "assistant" in result.stdout


def test_the_results_format_of_lm_eval(other, runs, task, tmp_path):
    out = tmp_path / "theirs"
    result = in_process("eval", other, "--task", task, "--lm-eval-json", out, "--runs", runs)
    assert result.returncode == 0, result.stderr
    (file,) = out.rglob("results_*.json")
    found = scores(file)
    assert set(found["results"]["keywords"]) >= {"acc,none", "acc_stderr,none", "acc_per_char,none"}
    assert found["n-samples"]["keywords"] == {"original": 4, "effective": 4}


def test_perplexity_of_held_out_text_and_of_an_own_file(runs, other, tmp_path):
    text = tmp_path / "own.txt"
    text.write_text("def f(x):\n    return x + 1\n" * 40)
    out = tmp_path / "scores.json"
    arguments = ("eval", "small/pretrain", "--against", other, "--perplexity", "--text", text, "--json", out, "--runs", runs)
    result = in_process(*arguments)
    assert result.returncode == 0, result.stderr
    rows = scores(out)["perplexity"]["results"]
    assert {(row["checkpoint"], row["source"]) for row in rows} == {
        (checkpoint, source) for checkpoint in ("stranger", "pretrain") for source in ("code", str(text))
    }
    assert "results" not in scores(out)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--task", "next_lin"), 2, "did you mean next_line"),
        (("--task", "lm-eval:arc_eas", "--lm-eval-tasks", "nowhere"), 2, "nowhere: a folder with task files"),
        (("--task", "nowhere.toml"), 2, "nowhere.toml"),
        (("--questions", "few"), 2, "--questions few: expected a number from 1 on, or all"),
        (("--precision", "fp8"), 2, "--precision fp8: expected auto, bf16, fp32"),
        (("--base", "x"), 2, "--base x: the newest checkpoint is no adapter"),
        (("--json", "nowhere/x.json"), 2, "--json nowhere/x.json: there is no folder nowhere"),
        (("--plots", "pictures"), 2, "--plots draws what --long or --over-run measures"),
        (("--task", "next_line", "--text", "nowhere.txt"), 2, "nowhere.txt"),
        (("nothing/here",), 2, "nothing/here"),
    ],
)
def test_bad_input_is_told_in_a_line(runs, arguments, code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["eval", *arguments, "--runs", str(runs)])
    assert result.exit_code == code
    assert message in result.output.replace("\n", " ")


def test_a_checkpoint_without_a_tokenizer(other, task, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(other, bare)
    for file in bare.glob("tokenizer*"):
        file.unlink()
    result = in_process("eval", bare, "--task", task, "--runs", tmp_path / "none")
    assert result.returncode == 2
    assert "no tokenizer could be loaded" in result.stderr


def test_an_empty_task_file(other, tmp_path):
    file = tmp_path / "empty.jsonl"
    file.write_text("")
    result = in_process("eval", other, "--task", file, "--runs", tmp_path / "none")
    assert result.returncode == 2
    assert "an empty task file" in result.stderr


def test_every_name_is_listed():
    result = run_llmctl("eval", "--list")
    assert result.returncode == 0
    assert "next_line" in result.stdout
    assert "lm-eval:TASK" in result.stdout


def test_a_recipe_that_names_a_task_which_is_not_there_stops_before_any_work(small_recipe, tmp_path):
    for key in ('eval.suites=["nex_line"]', 'pretrain.eval.suites=["nex_line"]', 'eval.suites=["lm-eval:piqa"]'):
        result = CliRunner().invoke(app, ["pretrain", str(small_recipe), "--set", key, "--runs", str(tmp_path / "runs")])
        assert result.exit_code == 2, key
        assert key.partition("=")[0] in result.output
        assert not list((tmp_path / "runs").glob("*/*-*"))
