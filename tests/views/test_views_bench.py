"""`llmctl bench` through its entry point."""

import json
import os
import signal
import subprocess
import sys

import pytest
from helpers import command, run_llmctl

OPTIONS = ("--steps", 3, "--set", "pretrain.batch_tokens=256")


@pytest.fixture
def bare_recipe(small_recipe):
    """The recipe on a machine that has none of its text."""
    lines = ['path = "/no/such/corpus"' if line.startswith("path") else line for line in small_recipe.read_text().splitlines()]
    small_recipe.write_text("\n".join(lines))
    return small_recipe


def test_people_get_a_table_and_nothing_is_left(bare_recipe, tmp_path):
    told = run_llmctl("bench", bare_recipe, *OPTIONS, cwd=tmp_path, env=os.environ | {"TMPDIR": str(tmp_path)})
    assert told.returncode == 0, told.stderr
    for part in ("pretrain: 1 rank x micro-batch 2 x accumulation 2 = 4 rows of 64 tokens", "tokens/s, median", "model TFLOP/s",
                 "share of this machine's product rate", "peak memory", "forward", "backward", "optimizer", "data", "rest",
                 "model FLOPs of a token: 6 x 57,344 weights of matrices + 12 x 2 heads x 16 x keys"):  # fmt: skip
        assert part in told.stdout
    assert "measuring: 6 steps of 6 steps" in told.stderr
    assert "row taken for one document" not in told.stdout  # rows are one document here
    left = {path.name for path in tmp_path.iterdir()} - {bare_recipe.name}
    assert not {name for name in left if "bench" in name or name == "runs"}


def test_scripts_get_json_and_nothing_else_on_stdout(bare_recipe):
    told = run_llmctl("bench", bare_recipe, *OPTIONS, "--json", "--processes", 2)
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    assert (found["ranks"], found["device_type"], len(found["step_seconds"])) == (2, "cpu", 3)
    assert found["tokens_per_second"] == pytest.approx(256 / sorted(found["step_seconds"])[1])
    assert found["mfu"] == pytest.approx(found["flops_per_token"] * found["tokens_per_second"] / found["peak_flops"])
    assert found["work"]["windows"] == [32, 32, 32, None]


def test_under_a_launcher_the_first_rank_alone_speaks(bare_recipe):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "llmctl.cli"]
    line = [*launcher, "bench", str(bare_recipe), *map(str, OPTIONS), "--json"]
    told = subprocess.run(line, capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["ranks"] == 2
    assert told.stderr.count("measuring: 6 steps of 6 steps") == 1


def test_mistakes_are_told_with_exit_code_two(bare_recipe):
    for arguments, message in {
        ("--stage", "eval"): "the recipe has no stage 'eval' that trains; it has pretrain",
        ("--processes", 3): "cannot be shared by 3 ranks",
        ("--set", "pretrain.sequence=3"): "unknown key",
    }.items():
        told = run_llmctl("bench", bare_recipe, *arguments)
        assert told.returncode == 2
        assert message in told.stderr
        assert not told.stdout


def test_it_can_be_stopped(bare_recipe):
    process = subprocess.Popen(
        command("bench", bare_recipe, "--steps", 100_000), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert any("1 rank x" in line for line in process.stderr)
    process.send_signal(signal.SIGTERM)
    out, told = process.communicate(timeout=60)
    assert (process.returncode, out) == (75, "")
    assert "stopped; nothing was measured" in told
