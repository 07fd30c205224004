"""Killed or told to stop at any moment, the same command goes on and ends with the same bytes."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import SMALL_RECIPE, command, run_llmctl

SECONDS = 120


def weights(runs: Path) -> dict[str, str]:
    (folder,) = runs.glob("small/pretrain-*")
    assert (folder / "manifest.json").exists()
    found = {name: (folder / "model" / name) for name in ("model.safetensors", "config.json")}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in found.items()}


def prepare(pretrained_runs: Path, runs: Path) -> None:
    """Everything before pretraining, so that what is killed is pretraining."""
    shutil.copytree(pretrained_runs, runs, ignore=shutil.ignore_patterns("pretrain-*"))


@pytest.fixture(scope="module")
def uninterrupted(pretrained_runs) -> dict[str, str]:
    return weights(pretrained_runs)


def start(recipe: Path, runs: Path, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command("pretrain", recipe, "--runs", runs),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | environment,
    )


def wait_for(process: subprocess.Popen[bytes], happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not happened():
        assert process.poll() is None, f"ended before the moment came: {process.stderr.read() if process.stderr else ''}"
        assert time.monotonic() < deadline
        time.sleep(0.001)


def folder_of(runs: Path) -> Path | None:
    return next(runs.glob("small/pretrain-*"), None)


def steps_done(runs: Path) -> int:
    folder = folder_of(runs)
    file = folder / "metrics.jsonl" if folder else None
    return len(file.read_text().splitlines()) if file and file.exists() else 0


def has(runs: Path, pattern: str) -> bool:
    folder = folder_of(runs)
    return folder is not None and any(folder.glob(pattern))


MOMENTS = {
    "before the first checkpoint": lambda runs: steps_done(runs) >= 1,
    "in the middle of a checkpoint's writing": lambda runs: has(runs, "checkpoints/.step-00000006.tmp/*"),
    "after several checkpoints": lambda runs: steps_done(runs) >= 11,
    "while the model is written": lambda runs: has(runs, "trainer/state.json"),
    "while the model is measured": lambda runs: has(runs, "model/config.json"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_run_again_ends_with_the_same_bits(small_recipe, tmp_path, pretrained_runs, uninterrupted, moment):
    runs = tmp_path / "runs"
    prepare(pretrained_runs, runs)
    process = start(small_recipe, runs)
    wait_for(process, lambda: MOMENTS[moment](runs))
    process.kill()
    process.wait()
    folder = folder_of(runs)
    assert folder is not None
    assert not (folder / "manifest.json").exists()
    result = run_llmctl("pretrain", small_recipe, "--runs", runs)
    assert result.returncode == 0, result.stderr
    assert weights(runs) == uninterrupted
    assert not list(folder.glob("checkpoints"))
    assert not list(folder.glob(".*tmp*"))


def test_killed_twice(small_recipe, tmp_path, uninterrupted):
    runs = tmp_path / "runs"
    for steps in (4, 9):
        process = start(small_recipe, runs)
        wait_for(process, lambda steps=steps: steps_done(runs) >= steps)
        process.kill()
        process.wait()
    result = run_llmctl("pretrain", small_recipe, "--runs", runs)
    assert "resumed from step" in result.stdout
    assert weights(runs) == uninterrupted


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_told_to_stop_leaves_a_checkpoint_of_the_step_just_made(
    small_recipe, tmp_path, pretrained_runs, uninterrupted, number, code
):
    runs = tmp_path / "runs"
    prepare(pretrained_runs, runs)
    process = start(small_recipe, runs)
    wait_for(process, lambda: steps_done(runs) >= 4)
    process.send_signal(number)
    assert process.wait(timeout=SECONDS) == code
    folder = folder_of(runs)
    assert folder is not None
    newest = sorted((folder / "checkpoints").glob("step-*"))[-1]
    assert json.loads((newest / "state.json").read_text())["step"] == steps_done(runs)
    assert json.loads((folder / "state.json").read_text())["status"] == "stopped"
    result = run_llmctl("pretrain", small_recipe, "--runs", runs)
    assert f"resumed from step {steps_done_in(newest)} of 20" in result.stdout
    assert weights(runs) == uninterrupted


def test_time_that_is_up_stops_it_to_be_gone_on_with(tmp_path, text_folder, pretrained_runs):
    recipe, runs = tmp_path / "small.toml", tmp_path / "runs"
    recipe.write_text(SMALL_RECIPE.format(texts=text_folder).replace("tokens = 5120", "tokens = 1024000"))
    prepare(pretrained_runs, runs)
    stopped = run_llmctl("pretrain", recipe, "--runs", runs, "--max-time", "20s")
    assert stopped.returncode == 75, stopped.stderr
    assert "with a checkpoint of it; the same command goes on from there" in stopped.stderr
    folder = folder_of(runs)
    assert folder is not None
    newest = sorted((folder / "checkpoints").glob("step-*"))[-1]
    assert json.loads((newest / "state.json").read_text())["step"] == steps_done(runs) > 0
    at_once = run_llmctl("pretrain", recipe, "--runs", runs, "--max-time", "0")
    assert at_once.returncode == 75
    assert "stopped by --max-time" in at_once.stderr
    wrong = run_llmctl("pretrain", recipe, "--runs", runs, "--max-time", "soon")
    assert wrong.returncode == 2
    assert "--max-time soon: expected a duration" in wrong.stderr


def steps_done_in(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def test_a_broken_checkpoint_is_named_and_the_one_before_it_used(small_recipe, tmp_path, pretrained_runs, uninterrupted):
    runs = tmp_path / "runs"
    prepare(pretrained_runs, runs)
    process = start(small_recipe, runs)
    wait_for(process, lambda: has(runs, "checkpoints/step-00000006") and steps_done(runs) >= 7)
    process.kill()
    process.wait()
    folder = folder_of(runs)
    assert folder is not None
    newest = sorted((folder / "checkpoints").glob("step-*"))[-1]
    shard = next(newest.glob("*.safetensors"))
    damaged = bytearray(shard.read_bytes())
    damaged[-1] ^= 1
    shard.write_bytes(damaged)
    result = run_llmctl("pretrain", small_recipe, "--runs", runs)
    assert result.returncode == 0, result.stderr
    assert str(shard) in result.stdout + result.stderr
    assert weights(runs) == uninterrupted


def test_two_same_commands_are_kept_apart(small_recipe, tmp_path, pretrained_runs):
    runs = tmp_path / "runs"
    prepare(pretrained_runs, runs)
    process = start(small_recipe, runs)
    try:
        wait_for(process, lambda: steps_done(runs) >= 1)
        second = run_llmctl("pretrain", small_recipe, "--runs", runs)
        assert second.returncode == 1
        assert f"another process (pid {process.pid}) works on this stage" in second.stderr
    finally:
        process.kill()
        process.wait()


def test_an_adapter_that_is_killed_ends_with_the_same_bits(finished, llmctl, tmp_path):
    """Dropout draws what it would have drawn, and the parent's files are as they were."""
    runs = tmp_path / "runs"
    shutil.copytree(finished.runs, runs, ignore=shutil.ignore_patterns("lora-*", "eval-*"))
    options = ["sft", finished.recipe, "--lora", "--runs", runs, "--set", "lora.checkpoint.every_steps=2"]
    process = subprocess.Popen(command(*options), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    folder = runs / "tiny" / finished.stage("lora").name
    wait_for(process, lambda: (folder / "checkpoints" / "step-00000004").exists())
    process.kill()
    process.wait()
    result = llmctl(*options)
    assert result.returncode == 0, result.stderr
    assert "resumed from step" in result.stdout
    assert json.loads((folder / "manifest.json").read_text())["output_hash"] == finished.manifest("lora")["output_hash"]


def test_the_users_own_recipe_is_tried(small_recipe, tmp_path, pretrained_runs):
    runs = tmp_path / "runs"
    prepare(pretrained_runs, runs)
    tried = run_llmctl("verify", "resume", small_recipe, "--steps", 6, "--runs", runs)
    assert tried.returncode == 0, tried.stderr
    assert re.search(r"not the same bits +0\n", tried.stdout)
    assert not list(runs.glob("small/.verify-*"))
    assert not list(runs.glob("small/pretrain-*"))
    wrong = run_llmctl("verify", "resume", small_recipe, "--stage", "sft", "--runs", runs)
    assert wrong.returncode == 2
    assert "no stage 'sft' that trains; it has pretrain" in wrong.stderr
