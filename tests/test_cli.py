"""The command line as it is typed: help, exit codes, messages for the user's mistakes."""

import errno
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from helpers import REPOSITORY, run_llmctl

from llmctl.cli_options import readable_errors

COMMANDS = ("run", "curate", "tokenizer", "pretrain", "midtrain", "longctx", "sft", "bench", "average", "export", "eval",
            "generate", "chat", "lineage", "verify", "runs", "explain", "inspect")  # fmt: skip


def test_help_names_every_command_and_is_quick():
    fastest = 9.0
    for _ in range(5):
        started = time.perf_counter()
        result = run_llmctl("--help")
        fastest = min(fastest, time.perf_counter() - started)
    for name in COMMANDS:
        assert f" {name} " in result.stdout
    bare = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import typer, rich"], check=True)
        bare.append(time.perf_counter() - started)
    assert fastest < 0.3 or fastest < 3 * min(bare)


@pytest.mark.parametrize("arguments", [["--help"], ["sft", "--help"], ["--version"], ["explain", "pretrain.lr"]])
def test_no_torch_is_imported_to_explain(arguments):
    code = "import sys\nfrom llmctl.cli import app\ntry:\n    app(sys.argv[1:])\nfinally:\n    assert 'torch' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert "AssertionError" not in result.stderr, result.stderr
    assert result.returncode == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name):
    result = run_llmctl(name, "--help")
    assert result.returncode == 0
    assert "Usage: llmctl " + name in result.stdout


def test_a_mistake_in_the_recipe_costs_a_message_and_nothing_else(write_recipe, tmp_path):
    recipe = write_recipe(
        """\
        [corpus.sources.code]
        path = "nowhere"
        [tokenizer]
        [pretrain]
        tokens = 1000
        seq_len = 64
        batch_tokens = 100
        learning_rate = 3e-4
        mix = { code = 0.9 }
        """
    )
    result = run_llmctl("pretrain", recipe, "--runs", tmp_path / "runs")
    assert result.returncode == 2
    assert f"{recipe}:8: pretrain.learning_rate = 0.0003: unknown key; did you mean 'lr'?" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "runs").exists()
    recipe.write_text(recipe.read_text().replace("learning_rate = 3e-4\n", ""))
    result = run_llmctl("pretrain", recipe, "--runs", tmp_path / "runs")
    assert result.returncode == 2
    for mistake in ("nowhere", "batch_tokens = 100 is no multiple of seq_len = 64", "sum to 0.9", "there is no [model]"):
        assert mistake in result.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nowhere.toml"], "nowhere.toml: no such recipe"),
        (["sft"], "no runs yet; start one with `llmctl run recipes/olmo_small.toml`"),
        (["eval", "--few-shot"], "no runs yet"),
        (["generate", "no/such", "text"], "'no/such' is no model folder and no checkpoint of a run"),
        (["explain", "pretrain.learning_rate"], "did you mean"),
        (["lineage"], "no runs yet"),
    ],
)
def test_what_is_not_there_is_named_with_exit_code_two(arguments, message, tmp_path):
    result = run_llmctl(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_the_argument_that_deepspeeds_launcher_adds_is_taken():
    result = run_llmctl("--local_rank=0", "explain", "pretrain.lr")
    assert result.returncode == 0, result.stderr


def test_explain_shows_type_default_and_role():
    text = run_llmctl("explain", "pretrain.lr").stdout
    for part in ("Peak learning rate of AdamW", "number", "left out", "identity"):
        assert part in text
    assert "execution" in run_llmctl("explain", "sft.micro_batch").stdout


def test_transformers_imports_from_the_repository_with_its_kernels_folder():
    """Hugging Face's package `kernels` is imported when it seems to be there; our folder must not pass for it."""
    code = "import transformers; from transformers import AutoModelForCausalLM; print(AutoModelForCausalLM.__name__)"
    result = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert not (Path(REPOSITORY) / "kernels" / "__init__.py").exists()


def test_a_full_disk_is_told(capsys):
    with pytest.raises(typer.Exit) as stopped, readable_errors():
        raise OSError(errno.ENOSPC, "No space left on device", "runs/own/tokens.bin")
    assert stopped.value.exit_code == 1
    assert "no space is left on the disk (runs/own/tokens.bin)" in capsys.readouterr().err
