"""Ranks: the one of this process, joining those that a launcher started, or starting them."""

import atexit
import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from llmctl import events
from llmctl.errors import EXIT_CTRL_C, EXIT_INTERRUPTED, Interrupted, StageFailed

TORCHRUN_SUCCESS = 0


def launched_world_size() -> int:
    """Ranks that `torchrun`, `deepspeed` or `srun` started this process among; 1 if none did."""
    return int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or 1)


def launched_rank() -> int:
    return int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0)


def adopt_slurm_environment() -> None:
    """`srun` sets its own names for what torch reads as RANK, WORLD_SIZE, LOCAL_RANK and MASTER_ADDR."""
    if "RANK" in os.environ or "SLURM_PROCID" not in os.environ:
        return
    os.environ["RANK"] = os.environ["SLURM_PROCID"]
    os.environ["WORLD_SIZE"] = os.environ["SLURM_NTASKS"]
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


def has_compiler() -> bool:
    """Whether extensions can be built and `torch.compile` can work on a CPU."""
    return bool(shutil.which("ninja")) and any(shutil.which(name) for name in ("g++", "c++", "clang++"))


def device_of_this_rank() -> torch.device:
    if torch.cuda.is_available():
        index = int(os.environ.get("LOCAL_RANK", "0"))
        torch.cuda.set_device(index)
        return torch.device("cuda", index)
    return torch.device("cpu")


def join_process_group() -> None:
    """The process group of this process, made once: the launcher's ranks, or this process alone (which needs no port).

    DeepSpeed keeps groups made from it for good, and so it is closed only when the process ends.
    """
    from llmctl.train.deepspeed_engine import import_deepspeed

    if torch.distributed.is_initialized():
        return
    os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed insists on it, with one process too
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    import_deepspeed()
    if launched_world_size() == 1 or not has_compiler():
        from deepspeed.ops import __compatible_ops__

        # Compiled when a group is set up on a CPU, which takes half a minute; gloo serves without it.
        __compatible_ops__["deepspeed_shm_comm"] = False
        if launched_world_size() > 1:
            events.warn("no C++ compiler with ninja found: DeepSpeed's shared-memory operations are off, gloo serves instead")
    if launched_world_size() > 1:
        torch.distributed.init_process_group(backend)
    else:
        torch.distributed.init_process_group(backend, store=torch.distributed.HashStore(), rank=0, world_size=1)
    atexit.register(torch.distributed.destroy_process_group)


def start_ranks(job_file: Path, ranks: int) -> None:
    """Run the job on `ranks` processes of this machine through torch's launcher and wait for the end.

    Raises:
        Interrupted: the ranks stopped on a signal and left a checkpoint.
        StageFailed: a rank failed; its message is on the terminal.
    """
    events.say(f"starting {ranks} ranks on this machine")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads_per_rank(ranks)))}
    process = subprocess.Popen([*command, "-m", "llmctl.worker", str(job_file)], env=environment)
    try:
        code = process.wait()
    except BaseException:
        process.terminate()  # the launcher hands SIGTERM to the ranks, which save and leave
        process.wait()
        raise
    outcome = read_outcome(job_file)
    if outcome in (EXIT_INTERRUPTED, EXIT_CTRL_C):
        raise Interrupted("stopped with a checkpoint; the same command goes on from there", outcome)
    if code != TORCHRUN_SUCCESS or outcome != 0:
        raise StageFailed(f"a rank failed (launcher's exit code {code}); its message stands above")


def threads_per_rank(ranks: int) -> int:
    return max(1, len(os.sched_getaffinity(0)) // ranks)


def outcome_file(job_file: Path) -> Path:
    return job_file.with_name("outcome")


def read_outcome(job_file: Path) -> int | None:
    """Exit code that rank 0 left; the launcher itself only tells success from failure."""
    file = outcome_file(job_file)
    return int(file.read_text()) if file.is_file() else None
