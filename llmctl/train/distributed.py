"""Ranks: the one of this process, joining those that a launcher started, or starting them."""

import atexit
import gc
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from llmctl import events
from llmctl.errors import EXIT_CTRL_C, EXIT_FAILED, EXIT_INTERRUPTED, Interrupted, StageFailed, UserError
from llmctl.interrupts import deferred
from llmctl.runs.machine import usable_cores

TORCHRUN_SUCCESS = 0
SRUN_TASKS = "SLURM_STEP_NUM_TASKS"  # set by srun alone; a batch script has SLURM_PROCID too, and is alone
PATIENCE = timedelta(days=1)  # ranks wait while rank 0 tokenises, measures and writes alone


def launched_world_size() -> int:
    """Ranks that `torchrun`, `deepspeed` or `srun` started this process among; 1 if none did."""
    return int(os.environ.get("WORLD_SIZE") or os.environ.get(SRUN_TASKS) or 1)


def launched_rank() -> int:
    return int(os.environ.get("RANK") or (os.environ.get("SLURM_PROCID") if SRUN_TASKS in os.environ else 0) or 0)


def adopt_slurm_environment() -> None:
    """`srun` sets its own names for what torch reads as RANK, WORLD_SIZE, LOCAL_RANK and MASTER_ADDR."""
    if "RANK" in os.environ or SRUN_TASKS not in os.environ:
        return
    os.environ["RANK"] = os.environ["SLURM_PROCID"]
    os.environ["WORLD_SIZE"] = os.environ[SRUN_TASKS]
    os.environ["LOCAL_RANK"] = os.environ.get("SLURM_LOCALID", "0")
    if "MASTER_ADDR" not in os.environ:
        nodes = subprocess.run(
            ["scontrol", "show", "hostnames", os.environ.get("SLURM_NODELIST", "")],
            capture_output=True,
            text=True,
            check=True,
        )
        os.environ["MASTER_ADDR"] = nodes.stdout.split()[0]
    os.environ.setdefault("MASTER_PORT", "29500")


def device_of_this_rank() -> torch.device:
    if torch.cuda.is_available():
        index = int(os.environ.get("LOCAL_RANK", "0"))
        torch.cuda.set_device(index)
        return torch.device("cuda", index)
    return torch.device("cpu")


def require_gpus(count: int) -> None:
    """Raises:
    UserError: this machine has fewer.
    """
    if torch.cuda.device_count() < count:
        raise UserError(f"--gpus {count}: torch sees {torch.cuda.device_count()} GPUs here; --processes starts ranks on the CPU")


def join_process_group() -> None:
    """The process group of this process, made once: the launcher's ranks, or this process alone (which needs no port).

    DeepSpeed keeps groups made from it for good, and so it is closed only when the process ends.

    Raises:
        StageFailed: this is Windows, whose torch lacks what a group of one process is made of.
    """
    if sys.platform == "win32":
        raise StageFailed(
            "training does not run on Windows itself; install llmctl inside WSL 2 (`wsl --install`), which is Linux"
        )
    from llmctl.train.deepspeed_engine import import_deepspeed

    if torch.distributed.is_initialized():
        return
    os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed insists on it, with one process too
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    import_deepspeed()
    from deepspeed.ops import __compatible_ops__

    # Serves inference alone, yet is compiled for half a minute when a group is set up on a CPU, and a build that was killed
    # leaves a lock in the user's cache that every later rank waits on for good.
    __compatible_ops__["deepspeed_shm_comm"] = False
    if launched_world_size() > 1:
        torch.distributed.init_process_group(backend, timeout=PATIENCE)
    else:
        torch.distributed.init_process_group(backend, store=torch.distributed.HashStore(), rank=0, world_size=1)
    atexit.register(torch.distributed.destroy_process_group)


def wait_for_all() -> None:
    """Return when every rank has come here. By then rank 0 has done what it does alone."""
    if torch.distributed.get_world_size() > 1:
        torch.distributed.all_reduce(torch.zeros(1))


def agreed_maximum(engine: Any, mine: int) -> int:
    """The largest number that any rank has, on every rank. Collective."""
    if engine.world_size == 1:
        return mine
    number = torch.tensor(mine)
    torch.distributed.all_reduce(number, op=torch.distributed.ReduceOp.MAX)
    return int(number)


def start_ranks(job_file: Path, ranks: int, *further: str) -> None:
    """Run the job on `ranks` processes of this machine through torch's launcher and wait for the end. `further` arguments go to
    the worker.

    Raises:
        Interrupted: the ranks stopped on a signal and left a checkpoint.
        StageFailed: a rank failed; its message is on the terminal.
    """
    events.say(f"starting {ranks} ranks on this machine")
    outcome_file(job_file).unlink(missing_ok=True)
    if torch.cuda.is_initialized():  # what this process has measured with, so that the ranks have the whole memory
        gc.collect()
        torch.cuda.empty_cache()
    command = [sys.executable, "-m", "llmctl.launcher", "--standalone", f"--nproc-per-node={ranks}"]
    environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads_per_rank(ranks)))}
    command += ["-m", "llmctl.worker", str(job_file), *further]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, errors="replace")
    try:
        code = _listen(process)
    except BaseException:
        with deferred():
            process.terminate()  # the launcher hands SIGTERM to the ranks, which save and leave
            _listen(process)
        raise
    outcome = read_outcome(job_file)
    if outcome in (EXIT_INTERRUPTED, EXIT_CTRL_C):
        raise Interrupted("stopped with a checkpoint; the same command goes on from there", outcome)
    if code != TORCHRUN_SUCCESS or outcome != 0:
        failure = StageFailed(f"a rank failed (launcher's exit code {code}); its message stands above")
        failure.exit_code = outcome or EXIT_FAILED
        raise failure


def _listen(process: subprocess.Popen[str]) -> int:
    """Emit the events that rank 0 hands on, print what else the ranks write, and return the launcher's exit code."""
    assert process.stdout is not None
    for line in process.stdout:
        event = events.from_line(line)
        if event is None:
            print(line, end="", file=sys.stderr)
        else:
            events.emit(event)
    return process.wait()


def threads_per_rank(ranks: int) -> int:
    return max(1, usable_cores() // ranks)


def outcome_file(job_file: Path) -> Path:
    return job_file.with_name("outcome")


def read_outcome(job_file: Path) -> int | None:
    """Exit code that rank 0 left; the launcher itself only tells success from failure."""
    file = outcome_file(job_file)
    return int(file.read_text()) if file.is_file() else None
