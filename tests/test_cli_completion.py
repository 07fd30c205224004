"""What the shells are offered, asked as their scripts ask, and in bash itself."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import REPOSITORY, run_llmctl


def offered(shell: str, line: str, **further: str) -> list[str]:
    """The words that the entry point writes when `shell` asks at the end of `line`."""
    words = line.split(" ")
    asked = {"_LLMCTL_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    asked |= {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)} if shell == "bash" else {}
    result = run_llmctl(cwd=REPOSITORY, env=os.environ | asked | further)
    assert result.stderr == ""
    lines = [text for text in result.stdout.splitlines() if text]
    if shell == "zsh":
        return [text.split('"')[1].replace("\\\\:", ":") for text in lines if '"' in text]
    return [text.split("\t")[0] for text in lines]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("llmctl longc", ["longctx"]),
        ("llmctl run recipes/olmo_sm", ["recipes/olmo_small.toml"]),
        ("llmctl inspect sft recipes/olmo_small.toml --stage s", ["sft"]),
        ("llmctl explain pretrain.ema", ["pretrain.ema_decay"]),
        ("llmctl run own.toml --set pretrain.ema_d", ["pretrain.ema_decay=", "pretrain.ema_decay=NUMBER"]),
        ("llmctl eval --task docs", ["docstring"]),
        ("llmctl pretrain nowhere/x", []),
        ("llmctl nonsense x", []),
    ],
)
def test_what_is_offered(shell, line, words):
    assert offered(shell, line) == words


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_checkpoints_and_runs_are_offered(shell, pretrained_runs):
    assert offered(shell, f"llmctl generate --runs {pretrained_runs} sm") == ["small/pretrain"]
    assert offered(shell, "llmctl inspect corpus sm", LLMCTL_RUNS=str(pretrained_runs)) == ["small"]
    made = offered(shell, "llmctl lineage small/tok", LLMCTL_RUNS=str(pretrained_runs))
    assert sorted(made) == ["small/tokenizer", "small/tokens"]
    assert offered(shell, "llmctl chat ", LLMCTL_RUNS="/nowhere") == []


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_values_of_a_key_are_offered(shell):
    assert offered(shell, "llmctl run own.toml --set pretrain.schedule=co") == [
        "pretrain.schedule=constant",
        "pretrain.schedule=cosine",
    ]


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_itself_completes_words_that_it_splits_at_signs(tmp_path):
    script = """
    eval "$(_LLMCTL_COMPLETE=source_bash llmctl)"
    try() { COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); COMPREPLY=(); _llmctl_completion llmctl; echo "${COMPREPLY[*]}"; }
    try llmctl run own.toml --set pretrain.schedule = co
    try llmctl run own.toml --set pretrain.schedule =
    try llmctl eval --task copycolors : mc
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        ["bash", "-c", script], env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert result.stderr == ""
    first, second, third = result.stdout.splitlines()
    assert first == "constant cosine"
    assert second == "constant linear cosine wsd"
    assert third.split()[0] in ("mc", "")


def test_no_torch_is_imported_to_complete():
    code = "import sys\nfrom llmctl.cli_completion import overrides, tasks\noverrides(None, 'pre'), tasks(None, '')\n"
    result = subprocess.run([sys.executable, "-c", code + "sys.exit('torch' in sys.modules)"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
