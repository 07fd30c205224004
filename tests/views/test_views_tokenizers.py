"""The looks at tokenizers, through the command line."""

import json
import re

import pytest
from helpers import SMALL_RECIPE, in_process, run_llmctl

from llmctl.tokens.samples import SAMPLES


@pytest.fixture(scope="module")
def run(tmp_path_factory, text_folder):
    """A run of which only the tokenizer is made."""
    folder = tmp_path_factory.mktemp("tokenizers")
    recipe = folder / "small.toml"
    recipe.write_text(SMALL_RECIPE.format(texts=text_folder))
    made = run_llmctl("tokenizer", "train", recipe, "--runs", folder / "runs")
    assert made.returncode == 0, made.stderr
    return folder / "runs"


def test_statistics_by_language_and_source(run, tokenizer, tokenizer_folder, tmp_path):
    text = tmp_path / "own.txt"
    text.write_text("grün " * 100)
    result = run_llmctl("tokenizer", "stats", "--runs", run, "--against", tokenizer_folder, "--text", text, "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert set(found) == {"small", str(tokenizer_folder)}
    kinds = found["small"]["kinds"]
    assert set(kinds) == {*SAMPLES, "held-out code", "own.txt"}
    assert found["small"]["vocabulary"] == 512
    assert 256 < found["small"]["used"] <= 512
    assert kinds["own.txt"]["bytes_per_token"] == pytest.approx(kinds["own.txt"]["characters_per_token"] * 6 / 5)
    ids = tokenizer.backend_tokenizer.encode("grün " * 100, add_special_tokens=False).ids
    assert found[str(tokenizer_folder)]["kinds"]["own.txt"]["tokens"] == len(ids)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_chart_is_drawn(run, tmp_path, suffix):
    file = tmp_path / f"chart.{suffix}"
    result = in_process("tokenizer", "stats", "small", "--runs", run, "--plot", file)
    assert result.returncode == 0, result.stderr
    start = file.read_bytes()[:100]
    assert start.startswith(b"\x89PNG") if suffix == "png" else b"<?xml" in start


def test_tokens_are_shown_whole(run):
    text = "def main():\n\treturn '漢字 😀'"
    result = run_llmctl("tokenizer", "show", text, "--tokenizer", "small", "--runs", run)
    assert result.returncode == 0, result.stderr
    shown, count = result.stdout.rsplit("\n", 2)[0:2]
    assert "main│" in shown or "│in│" in shown
    plain = re.sub(r"·|→   |↵|│", "", shown).replace("\n", "")
    assert plain == text.replace("\n", "").replace("\t", "")
    assert re.match(r"\d+ tokens, \d\.\d\d bytes per token", count)


def test_what_is_no_tokenizer_is_told(run, tmp_path):
    result = in_process("tokenizer", "stats", "nothing", "--runs", run)
    assert result.returncode == 2
    assert "'nothing' is no tokenizer's folder, no hub name and no run" in result.stderr
    assert "runs are: small" in result.stderr
    result = in_process("tokenizer", "stats", "--runs", tmp_path)
    assert "make one with `llmctl tokenizer train RECIPE`" in result.stderr
    result = in_process("tokenizer", "stats", "small", "--runs", run, "--plot", tmp_path / "a.jpeg")
    assert "expected a name that ends in .png" in result.stderr
