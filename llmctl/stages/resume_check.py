"""`llmctl verify resume`: a stage killed and gone on with, beside the same steps at one stretch, on this machine."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from llmctl import events
from llmctl.errors import StageFailed
from llmctl.recipe.graph import training_stage
from llmctl.recipe.long_schema import LongContextTable, SyntheticTable
from llmctl.recipe.schema import TrainTable
from llmctl.runs.artifact import Artifact
from llmctl.stages.graph import build_graph
from llmctl.stages.node import Context
from llmctl.stages.session import OpenRun, Show

POLL_SECONDS = 0.02


def verify_resume(opened: OpenRun, stage: str | None, steps: int, ranks: int | None, show: Show) -> bool:
    """Make what comes before a stage (the first that trains, if none is named), then train it for `steps` steps twice: at one
    stretch, and killed with SIGKILL in the middle and gone on with. Returns whether weights and moments are the same bits.

    Raises:
        UserError: the recipe has no such stage.
    """
    graph, recipe = build_graph(opened.recipe), opened.recipe
    node = graph[training_stage(recipe, stage).name]
    made = opened.make_named(list(node.parents), ranks, show)
    folder = opened.store.root / recipe.name / f".verify-{node.name}-{os.getpid()}"
    context = Context(recipe, Artifact(folder), made, ranks)
    try:
        return _compare(context, node.name, steps)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _compare(context: Context, name: str, steps: int) -> bool:
    from llmctl.stages.training import Stage, make_job
    from llmctl.train.job import JOB_FILE

    table = context.recipe.stages[name]
    assert isinstance(table, TrainTable)
    if isinstance(table, LongContextTable):  # whether the bits are the same depends on no text that a model would write again
        table = table.model_copy(update={"synthetic": SyntheticTable()})
    ranks = context.ranks or table.processes
    context.artifact.folder.mkdir(parents=True, exist_ok=True)
    job = make_job(Stage(context, table, name), ranks)
    steps = min(steps, job.steps)
    half = max(1, steps // 2)
    values = job.table | {"early_stopping": None, "checkpoint": {"every_minutes": 1e6, "every_steps": half, "keep": 4}}
    folder = context.artifact.folder
    straight, killed = (replace(job, folder=str(folder / kind), steps=steps, table=values) for kind in ("straight", "killed"))
    for one in (straight, killed):
        one.path.mkdir()
    events.say(f"{name}: {steps} steps at one stretch")
    _end(_start(straight.write(), ranks))
    events.say(f"{name}: {half} steps, SIGKILL, and the rest")
    process = _start(killed.write(), ranks)
    _wait_for(process, killed.path / "checkpoints")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    _end(_start(killed.path / JOB_FILE, ranks))
    return _same(straight.path / "trainer", killed.path / "trainer", steps)


def _start(job_file: Path, ranks: int) -> subprocess.Popen[bytes]:
    """The job on ranks of its own, as a group of processes that can be killed together."""
    command = [sys.executable, "-m"]
    if ranks > 1:
        command += ["llmctl.launcher", "--standalone", f"--nproc-per-node={ranks}", "-m"]
    command += ["llmctl.worker", str(job_file)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        code = process.wait()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    if code:
        raise StageFailed(f"the training failed (exit code {code}); its message stands above")


def _wait_for(process: subprocess.Popen[bytes], checkpoints: Path) -> None:
    """Return when the first checkpoint is whole."""
    while not any(checkpoints.glob("step-*/state.json")):
        if process.poll() is not None:
            raise StageFailed(f"the training ended with code {process.returncode} before its first checkpoint")
        time.sleep(POLL_SECONDS)


def _same(straight: Path, killed: Path, steps: int) -> bool:
    import torch

    from llmctl.train.checkpoint import SavedState

    one, other = SavedState(straight), SavedState(killed)
    different: dict[str, float] = {}
    count = 0
    for name in one.names:
        mine, theirs = one.read(name), other.read(name)
        for key in mine:
            count += 1
            if not torch.equal(mine[key], theirs[key]):
                different[f"{name} {key}"] = float((mine[key] - theirs[key]).abs().max())
    rows = [("tensors compared", f"{count:,}"), ("not the same bits", f"{len(different):,}")]
    if different:
        worst = max(different, key=lambda name: different[name])
        rows.append(("largest difference", f"{different[worst]:.3g} ({worst})"))
    events.emit(
        events.Table(f"resumed after a kill, beside {steps} steps at one stretch", ("weights and moments", ""), tuple(rows))
    )
    return not different
