"""Trainer state on disk: safetensors keyed by parameter name, a shard per rank, no pickle.

    step-00000400/
      shard-00000-of-00002.safetensors    "<parameter>|weight", "<parameter>|exp_avg", ...  all fp32, full shapes
      shard-00001-of-00002.safetensors
      state.json                          written last: step, tokens, optimizer step, sha256 of every shard

Parameters are dealt to the shards in turn, whatever ZeRO stage made them, so that the number of ranks and the stage may
change between save and load, and the next stage can take the moments over. A folder is written aside, synced and
renamed; a folder without `state.json` is no checkpoint.
"""

import errno
import json
import os
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from llmctl import events
from llmctl.errors import StageFailed
from llmctl.runs.files import sha256_file, sync, write_json, write_text
from llmctl.train.engine import Engine, ParameterState, ReadState

SEPARATOR = "|"
STATE_FILE = "state.json"


@dataclass(frozen=True, slots=True)
class Position:
    """Where a stage stands. Data order is a function of the seed and the row position, which is `step` times the
    rows of a batch, and nothing else is random, so this is all that has to be kept beside weights and moments."""

    step: int
    tokens: int
    optimizer_step: int
    losses: tuple[float, ...] = ()
    """The last ones, for the guard."""
    left_out: tuple[int, ...] = ()
    """Steps that are not to be made."""
    norms: tuple[float, ...] = ()
    """The last norms of gradients, for the guard."""
    best: float | None = None
    """The lowest held-out loss so far, where it is measured while training."""
    measured: int = 0
    """Step of the last measurement."""
    since_best: int = 0
    """Measurements since the lowest one."""


def _barrier(engine: Engine) -> None:
    if engine.world_size > 1:
        torch.distributed.barrier()


def save(engine: Engine, folder: Path, position: Position) -> None:
    """Write the state to `folder` through a temporary sibling. Collective over the ranks."""
    aside = begin(engine, folder)
    write_shard(aside, snapshot(engine), engine.rank, engine.world_size)
    _barrier(engine)
    if engine.rank == 0:
        commit(aside, folder, position, engine.world_size)
    _barrier(engine)


def begin(engine: Engine, folder: Path) -> Path:
    """The empty folder that the shards of `folder` are written to. Collective over the ranks."""
    aside = folder.with_name(f".{folder.name}.tmp")
    if engine.rank == 0:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
    _barrier(engine)
    return aside


def snapshot(engine: Engine) -> dict[str, Tensor]:
    """Copies of this rank's share of the state, by the names that it is written under. Collective over the ranks."""
    mine: dict[str, Tensor] = {}
    for index, (name, state) in enumerate(engine.named_state()):
        if index % engine.world_size == engine.rank:
            for key, value in state.items():
                mine[f"{name}{SEPARATOR}{key}"] = value.detach().to("cpu", torch.float32, copy=True).contiguous()
    return mine


def write_shard(aside: Path, tensors: dict[str, Tensor], rank: int, ranks: int) -> None:
    """Write a rank's shard, and when it is on the disk its hash beside it.

    Raises:
        OSError: it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    shard = aside / shard_name(rank, ranks)
    try:
        save_file(tensors, shard)
    except SafetensorError as error:  # which has the system's error in its text alone
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else errno.EIO, str(error), str(shard)) from None
    sync(shard)
    write_text(shard.with_suffix(".sha256"), sha256_file(shard))


def shard_name(rank: int, ranks: int) -> str:
    return f"shard-{rank:05d}-of-{ranks:05d}.safetensors"


def shards_written(aside: Path, ranks: int) -> bool:
    return all((aside / shard_name(rank, ranks)).with_suffix(".sha256").exists() for rank in range(ranks))


def commit(aside: Path, folder: Path, position: Position, ranks: int) -> None:
    """Give a checkpoint whose shards are all written its name."""
    shards = {}
    for rank in range(ranks):
        told = (aside / shard_name(rank, ranks)).with_suffix(".sha256")
        shards[shard_name(rank, ranks)] = told.read_text()
        told.unlink()
    write_json(aside / STATE_FILE, {"format": 1, **asdict(position), "shards": shards})
    sync(aside)
    shutil.rmtree(folder, ignore_errors=True)  # a broken one of the same step, which was passed over
    os.rename(aside, folder)
    sync(folder.parent)


def problems(folder: Path) -> list[str]:
    """What is wrong with the checkpoint in `folder`, each file named; empty if it is whole."""
    try:
        state = json.loads((folder / STATE_FILE).read_text())
    except (OSError, ValueError) as error:
        return [f"{folder / STATE_FILE}: {error}"]
    found = []
    for name, expected in state["shards"].items():
        path = folder / name
        if not path.is_file():
            found.append(f"{path}: missing")
        elif sha256_file(path) != expected:
            found.append(f"{path}: its bytes are not those that were written (sha256 differs)")
    return found


class SavedState:
    """A checkpoint opened for reading, one parameter at a time."""

    def __init__(self, folder: Path) -> None:
        from safetensors import safe_open

        state = json.loads((folder / STATE_FILE).read_text())
        self.folder = folder
        losses, left_out, norms = (tuple(state.get(key, ())) for key in ("losses", "left_out", "norms"))
        counts = (state["step"], state["tokens"], state["optimizer_step"])
        told = (state.get("best"), state.get("measured", 0), state.get("since_best", 0))
        self.position = Position(*counts, losses, left_out, norms, *told)
        self._files = [safe_open(folder / name, framework="pt") for name in state["shards"]]
        self._where: dict[str, dict[str, int]] = {}
        for index, file in enumerate(self._files):
            for entry in file.keys():  # noqa: SIM118 (a safe_open handle is no dict)
                name, key = entry.rsplit(SEPARATOR, 1)
                self._where.setdefault(name, {})[key] = index

    @property
    def names(self) -> list[str]:
        """Of the parameters."""
        return list(self._where)

    def read(self, name: str) -> ParameterState:
        """fp32 tensors of one parameter. Raises StageFailed if the checkpoint does not hold it."""
        if name not in self._where:
            raise StageFailed(f"{self.folder}: holds no parameter {name!r}; it belongs to a model of another architecture.")
        return {key: self._files[index].get_tensor(f"{name}{SEPARATOR}{key}") for key, index in self._where[name].items()}

    @property
    def reader(self) -> ReadState:
        return self.read


def steps_on_disk(folder: Path) -> list[Path]:
    """Checkpoints under `folder`, newest first."""
    return sorted((path for path in folder.glob("step-*") if path.is_dir()), reverse=True)


def step_name(step: int) -> str:
    return f"step-{step:08d}"


def newest_whole(folder: Path, up_to: int | None = None) -> Path | None:
    """The newest checkpoint, after `up_to` steps at most, whose bytes are those that were written. Broken ones are named and
    passed over."""
    for path in steps_on_disk(folder):
        if up_to is not None and path.name > step_name(up_to):
            continue
        wrong = problems(path)
        if not wrong:
            return path
        events.warn(f"checkpoint passed over: {'; '.join(wrong)}")
    return None


def prune(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints."""
    for path in steps_on_disk(folder)[max(1, keep) :]:
        shutil.rmtree(path)


def remove_after(folder: Path, step: int) -> None:
    """Remove the checkpoints of later steps."""
    for path in steps_on_disk(folder):
        if path.name > step_name(step):
            shutil.rmtree(path)
