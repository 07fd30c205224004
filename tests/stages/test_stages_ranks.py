"""More than one rank through the command line: started by llmctl, and joined under a launcher."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import command, in_process, run_llmctl
from safetensors.torch import load_file


def weights(runs: Path) -> dict[str, torch.Tensor]:
    (folder,) = [path.parent for path in runs.glob("small/pretrain-*/manifest.json")]
    return load_file(folder / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory, text_folder):
    from helpers import SMALL_RECIPE

    folder = tmp_path_factory.mktemp("ranks")
    recipe = folder / "small.toml"
    # AdamW in fp32: what differs between numbers of ranks is the order of sums alone.
    text = SMALL_RECIPE.format(texts=text_folder).replace('"muon"', '"adamw"\nprecision = "fp32"\nlr = 3e-3')
    measured = 'eval = { every_steps = 10, rows = 5, suites = ["copy"], questions = 6, samples = ["def "], sample_tokens = 3 }'
    recipe.write_text(text.replace("warmup_steps = 2", f"warmup_steps = 2\n{measured}"))
    result = run_llmctl("pretrain", recipe, "--runs", folder / "runs")
    assert result.returncode == 0, result.stderr
    return recipe, folder / "runs"


def without_pretraining(runs: Path, to: Path) -> Path:
    shutil.copytree(runs, to, ignore=shutil.ignore_patterns("pretrain-*"))
    return to


def close(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert mine.keys() == theirs.keys()
    for name, weight in theirs.items():
        torch.testing.assert_close(mine[name], weight, rtol=1e-3, atol=1e-4)


def measured(runs: Path) -> dict[int, dict[str, float]]:
    """What was measured while the stage ran, by step."""
    (file,) = runs.glob("small/pretrain-*/metrics.jsonl")
    return {line["step"]: line for line in map(json.loads, file.read_text().splitlines()) if "heldout_loss" in line}


def test_two_processes_train_the_model_that_one_trains(one_rank, tmp_path):
    recipe, runs = one_rank
    mine = without_pretraining(runs, tmp_path / "runs")
    built = tmp_path / "extensions"
    result = run_llmctl(
        "pretrain", recipe, "--runs", mine, "--processes", 2, "--set", "pretrain.zero_stage=3",
        "--set", "pretrain.tiled_mlp=true",  # of five held-out rows, too, each rank has as many tiles
        env=os.environ | {"TORCH_EXTENSIONS_DIR": str(built)},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert not built.exists()  # a lock that a killed build leaves there would stop every later run
    assert "starting 2 ranks" in result.stdout
    assert "2 ranks x micro-batch 2 x accumulation 1 = 4 rows of 64 tokens, ZeRO stage 3" in result.stdout
    close(weights(mine), weights(runs))
    one, two = measured(runs), measured(mine)
    assert list(two) == list(one) == [10, 20]
    for step, values in one.items():
        assert two[step] == pytest.approx(values, rel=1e-3)


def ranks_of(runs: Path) -> list[int]:
    """Processes that train below a folder of runs."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        if b"llmctl.worker" in words and b"llmctl.launcher" not in words and str(runs).encode() in b" ".join(words):
            found.append(int(process.name))
    return found


def started(recipe: Path, runs: Path, step: int) -> subprocess.Popen[str]:
    """A pretraining on two ranks that has left the checkpoint of this step, or one after it."""
    process = subprocess.Popen(
        command("pretrain", recipe, "--runs", runs, "--processes", 2, "--set", "pretrain.tokens=51200"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 120
    while not any(int(path.name[5:]) >= step for path in runs.glob("small/pretrain-*/checkpoints/step-*")):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    return process


def test_when_a_rank_is_killed_the_others_stop_and_it_goes_on_from_the_last_checkpoint(one_rank, tmp_path):
    recipe, runs = one_rank
    mine = without_pretraining(runs, tmp_path / "runs")
    process = started(recipe, mine, 6)
    os.kill(ranks_of(mine)[-1], signal.SIGKILL)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "error: a rank failed" in told
    assert not ranks_of(mine)
    process = started(recipe, mine, 30)
    process.terminate()
    _, stopped = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "the same command goes on from" in stopped
    assert "Traceback" not in told + stopped
    again = run_llmctl("pretrain", recipe, "--runs", mine, "--processes", 2, "--set", "pretrain.tokens=51200")
    assert again.returncode == 0, again.stderr
    assert "resumed from step" in again.stdout


def test_under_a_launcher_llmctl_joins_the_ranks_that_are_there(one_rank, tmp_path):
    recipe, runs = one_rank
    mine = without_pretraining(runs, tmp_path / "runs")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "llmctl.cli"]
    result = subprocess.run(
        [*launcher, "pretrain", str(recipe), "--runs", str(mine)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("2 ranks x micro-batch 2") == 1  # one rank alone speaks
    close(weights(mine), weights(runs))


def test_a_batch_that_the_ranks_cannot_share_is_refused(one_rank, tmp_path):
    recipe, runs = one_rank
    result = run_llmctl("pretrain", recipe, "--runs", without_pretraining(runs, tmp_path / "runs"), "--processes", 3)
    assert result.returncode == 2
    assert "cannot be shared by 3 ranks" in result.stderr


def test_two_processes_that_share_every_row_train_the_model_that_one_trains(one_rank, tmp_path):
    recipe, runs = one_rank
    mine = without_pretraining(runs, tmp_path / "runs")
    result = run_llmctl(
        "pretrain", recipe, "--runs", mine, "--processes", 2, "--set", "pretrain.zero_stage=3",
        "--set", "pretrain.sequence_parallel=2", "--set", "pretrain.tiled_mlp=true",
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 ranks / 2 that share each row by heads x micro-batch 2 x accumulation 2 = 4 rows of 64 tokens" in result.stdout
    close(weights(mine), weights(runs))
    one, two = measured(runs), measured(mine)
    assert list(two) == list(one) == [10, 20]
    for step, values in one.items():
        assert two[step] == pytest.approx(values, rel=1e-3)


@pytest.mark.parametrize(("options", "environment"), [(["--processes", "3"], {}), ([], {"RANK": "0", "WORLD_SIZE": "3"})])
def test_ranks_that_cannot_share_a_row_are_refused_before_any_work(small_recipe, tmp_path, options, environment):
    shared = ["--set", "pretrain.sequence_parallel=2"]
    result = run_llmctl("pretrain", small_recipe, "--runs", tmp_path / "runs", *options, *shared, env=os.environ | environment)
    assert result.returncode == 2
    assert "[pretrain] sequence_parallel = 2: the number of ranks must be a multiple of it, and it is 3" in result.stderr
    assert not (tmp_path / "runs").exists()


def test_without_a_compiler_it_still_runs_and_says_so_once(one_rank, tmp_path):
    """DeepSpeed builds nothing, and `compile` falls back to eager mode."""
    recipe, runs = one_rank
    mine = without_pretraining(runs, tmp_path / "runs")
    bare = tmp_path / "bin"
    bare.mkdir()
    for name in ("env", "uname", "ldconfig"):
        if found := shutil.which(name):
            (bare / name).symlink_to(found)
    result = run_llmctl(
        "pretrain", recipe, "--runs", mine, "--processes", 2, "--set", "pretrain.compile=true",
        env=os.environ | {"PATH": str(bare)},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    said = (result.stdout + result.stderr).count("no C++ compiler found (g++): nothing is compiled")
    assert said == 1
    close(weights(mine), weights(runs))


def test_under_srun_llmctl_joins_the_tasks_of_the_step(one_rank, tmp_path):
    """What `srun --ntasks 2` sets in the environment of each task; MASTER_ADDR spares the question to Slurm for the hosts."""
    recipe, runs = one_rank
    mine = without_pretraining(runs, tmp_path / "runs")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    tasks = []
    for rank in ("0", "1"):
        slurm = {"SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2"}
        environment = os.environ | slurm | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
        line = command("pretrain", recipe, "--runs", mine)
        tasks.append(subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    printed = [task.communicate(timeout=300)[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], printed
    assert "2 ranks x micro-batch 2" in printed[0]
    close(weights(mine), weights(runs))


def test_under_a_launcher_one_stage_follows_the_other(finished, tmp_path):
    """Rank 0 makes ready alone what the next stage trains on; the other rank waits for it."""
    runs = tmp_path / "runs"
    shutil.copytree(finished.runs, runs, ignore=shutil.ignore_patterns("sft-*", "lora-*", "eval-*"))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "llmctl.cli"]
    result = subprocess.run(
        [*launcher, "sft", str(finished.recipe), "--lora", "--runs", str(runs)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "sft is not there yet and is made first" in result.stdout
    for stage in ("sft", "lora"):
        assert list((runs / "tiny").glob(f"{stage}-*/manifest.json")), stage


def test_ranks_that_no_step_can_be_shared_by_are_refused_before_any_work(finished, tmp_path):
    options = ["--runs", tmp_path / "runs", "--processes", 4, "--set", "pretrain.micro_batch=1"]
    result = in_process("run", finished.recipe, *options)
    assert result.returncode == 2
    assert "[longctx] a step of 2 rows (1,024 tokens) cannot be shared by 4 ranks" in result.stderr
    assert not (tmp_path / "runs").exists()


def test_more_gpus_than_there_are_is_refused(finished, tmp_path):
    result = in_process("run", finished.recipe, "--runs", tmp_path / "runs", "--gpus", 99)
    assert result.returncode == 2
    assert "--gpus 99: torch sees" in result.stderr
