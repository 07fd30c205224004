"""The machine: Python, processor, memory, disk, compiler, and the variables that change what happens."""

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from llmctl.doctor.findings import Finding
from llmctl.runs.machine import hardware

TRIED_PYTHONS = ((3, 11),)
LEAST_MEMORY, LEAST_FREE = 4 << 30, 10 << 30  # bytes: the small recipe takes 3 GiB; a run keeps several models
SLOW_DISK = 50e6  # bytes per second: a checkpoint of 1 GB would take 20 s
TRIED_BYTES, BLOCK = 64 << 20, 4 << 20
VARIABLES = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MASTER_ADDR", "RANK", "WORLD_SIZE", "CC", "CXX", "HTTPS_PROXY")
FAMILIES = ("LLMCTL_", "HF_", "TRANSFORMERS_", "NCCL_", "GLOO_", "DS_", "PYTORCH_", "TORCH_", "TRITON_", "SLURM_STEP_")
SECRETS = ("TOKEN", "KEY", "SECRET", "PASSWORD")


def check_python() -> Iterator[Finding]:
    version, system = platform.python_version(), f"{platform.system()} {platform.release()} {platform.machine()}"
    if sys.platform == "win32":
        yield Finding(
            "Python", "broken", f"{version} on {system}: no stage that trains runs on Windows itself",
            "install llmctl inside WSL 2 (`wsl --install`), which is Linux", version, needed=True,
        )  # fmt: skip
    elif sys.version_info[:2] in TRIED_PYTHONS and sys.platform == "linux":
        yield Finding("Python", "ok", f"{version} on {system}", version=version, needed=True)
    else:
        told = f"{version} on {system}: llmctl is tested on Linux with Python 3.11 alone"
        yield Finding("Python", "warning", told, "what is known of it: docs/platforms.md", version, needed=True)


def check_processor() -> Iterator[Finding]:
    cores, name = hardware()["cores"], hardware()["processor"] or platform.machine()
    quota = cpu_quota()
    if quota is not None and quota < cores:
        remedy = f"OMP_NUM_THREADS={max(1, int(quota))} keeps threads from waiting for each other"
        yield Finding("processor", "warning", f"{cores} cores of {name}, held to the time of {quota:g} by the container", remedy)
    else:
        yield Finding("processor", "ok", f"{cores} core{'s' * (cores != 1)} of {name}")


def check_memory() -> Iterator[Finding]:
    import psutil

    memory = psutil.virtual_memory()
    limit = memory_limit()
    whole = min(memory.total, limit or memory.total)
    told = f"{whole / 2**30:.1f} GiB, {min(memory.available, whole) / 2**30:.1f} GiB available"
    told += f" (the container's limit; the machine has {memory.total / 2**30:.1f})" if whole < memory.total else ""
    if whole < LEAST_MEMORY:
        yield Finding("memory", "warning", told, "the small recipe takes 3 GiB: give more, or train with --smoke alone")
    else:
        yield Finding("memory", "ok", told)


def own_cgroup(controller: str) -> list[Path]:
    """Folders of the control group of this process and of those around it, the innermost first; Linux alone."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "" or controller in controllers.split(","):
            root = Path("/sys/fs/cgroup") / (controller if controllers else "")
            inner = root / path.lstrip("/")
            return [folder for folder in (inner, *inner.parents) if folder.is_relative_to(root) and folder.is_dir()]
    return []


def memory_limit() -> int | None:
    """Bytes that the control groups of this process leave it; None without a limit."""
    found = []
    for folder in own_cgroup("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            file = folder / name
            if file.is_file() and (text := file.read_text().strip()).isdigit():
                found.append(int(text))
    return min(found, default=None)


def cpu_quota() -> float | None:
    """Cores whose time the control groups of this process leave it (version 2); None without a limit."""
    found = []
    for folder in own_cgroup("cpu"):
        file = folder / "cpu.max"
        if file.is_file() and (words := file.read_text().split())[0] != "max":
            found.append(int(words[0]) / int(words[1]))
    return min(found, default=None)


def check_disk(runs: Path) -> Iterator[Finding]:
    there = next(folder for folder in (runs.absolute(), *runs.absolute().parents) if folder.is_dir())
    remedy = "--runs FOLDER or LLMCTL_RUNS names another disk"
    free = shutil.disk_usage(there).free
    try:
        write, read, fresh = measured_speed(there)
    except OSError as error:
        yield Finding("disk", "broken", f"nothing can be written to {runs}: {error.strerror}", remedy, needed=True)
        return
    told = f"{free / 1e9:,.0f} GB free for {runs}, writes {write / 1e6:,.0f} MB/s, reads {read / 1e6:,.0f} MB/s"
    told += "" if fresh else " (from the cache)"
    status = "warning" if free < LEAST_FREE or write < SLOW_DISK else "ok"
    yield Finding("disk", status, told, remedy if status == "warning" else "", needed=True)


def measured_speed(folder: Path) -> tuple[float, float, bool]:
    """Bytes per second written (and synced) and read of a file that is gone afterwards, and whether it was read from the disk,
    not from the system's cache."""
    block = os.urandom(BLOCK)
    with tempfile.TemporaryFile(dir=folder) as file:
        started = time.perf_counter()
        for _ in range(TRIED_BYTES // BLOCK):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        written = time.perf_counter()
        fresh = hasattr(os, "posix_fadvise")
        if fresh:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        begun = time.perf_counter()
        while file.read(BLOCK):
            pass
        return TRIED_BYTES / (written - started), TRIED_BYTES / (time.perf_counter() - begun), fresh


def check_compiler() -> Iterator[Finding]:
    command = shlex.split(os.environ.get("CXX", "")) or ["clang++" if sys.platform == "darwin" else "g++"]
    found, name = shutil.which(command[0]), " ".join(command)
    if found is None:
        remedy = "xcode-select --install" if sys.platform == "darwin" else "apt-get install g++ (or your system's package)"
        yield Finding("C++ compiler", "missing", f"no {command[0]}: torch.compile and DeepSpeed's offload do without", remedy)
        return
    asked = subprocess.run([found, *command[1:], "--version"], capture_output=True, text=True, timeout=20, errors="replace")
    if asked.returncode:
        yield Finding("C++ compiler", "broken", f"{name} --version ends with {asked.returncode}", "install it anew")
        return
    yield Finding("C++ compiler", "ok", (asked.stdout.splitlines() or [name])[0])


def check_variables() -> Iterator[Finding]:
    told = [f"{name}={value_of(name)}" for name in sorted(os.environ) if name in VARIABLES or name.startswith(FAMILIES)]
    yield Finding("variables", "ok", ", ".join(told) or "none that matters is set")


def value_of(name: str) -> str:
    """Of an environment variable, nothing secret in it."""
    value = os.environ[name]
    if any(word in name for word in SECRETS):
        return "(set)" if value else "(empty)"
    return without_password(value)


def without_password(text: str) -> str:
    """A text whose addresses name no user and no password, written as they may be: what a word has before its last @ goes."""
    return re.sub(r"([A-Za-z][\w+.-]*://)?\S*@", r"\1", text)
