"""Trackers: the numbers of a stage in TensorBoard, Weights & Biases and trackio. Nothing leaves the machine by default.

A tracker is opened at a stage's first step, since only a stage that trains has any. One that breaks costs its own numbers and a
warning, and no training: what `metrics.jsonl` has can be read again.
"""

import io
import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, Self

from llmctl import events
from llmctl.recipe.schema import Recipe
from llmctl.runs.artifact import Artifact
from llmctl.runs.files import write_text
from llmctl.stages.trackers import wandb_mode


@dataclass(frozen=True, slots=True)
class Tracked:
    """A stage as a tracker is told of it."""

    run: str
    stage: str
    kind: str
    folder: Path
    config: dict[str, Any]
    """The stage's table of the recipe, with every default."""
    project: str
    mode: str
    """Of W&B: offline, online, disabled."""
    last_step: int
    """That was made before; 0 of a stage that begins. Steps up to it may be made again, with the same numbers."""

    @classmethod
    def of(cls, artifact: Artifact, recipe: Recipe) -> Self:
        table = recipe.stages[artifact.stage]
        return cls(
            artifact.run,
            artifact.stage,
            table.kind,
            artifact.folder.absolute(),
            table.model_dump(mode="json", by_alias=True),
            recipe.tracking.project,
            wandb_mode(recipe.tracking),
            last_step(artifact.metrics_path),
        )

    @property
    def name(self) -> str:
        return f"{self.run}/{self.stage}"


class Tracker(Protocol):
    def log(self, step: int, numbers: dict[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    def __init__(self, tracked: Tracked, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # imports torch: not before a stage trains

        folder = tracked.folder / "tensorboard"
        # A stage that goes on from a checkpoint hides what was written of the steps it makes again.
        self._writer = SummaryWriter(str(folder), purge_step=first_step)
        if tracked.last_step == 0:
            self._writer.add_text("config", f"    {json.dumps(tracked.config, indent=2)}".replace("\n", "\n    "))
        events.say(f"TensorBoard: tensorboard --logdir {folder}")

    def log(self, step: int, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    def __init__(self, tracked: Tracked, first_step: int) -> None:
        wandb: Any = import_module("wandb")
        file = tracked.folder / "wandb" / "run-id"
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            write_text(file, uuid.uuid4().hex[:12])
        self._last_step = tracked.last_step
        self._run = wandb.init(
            project=tracked.project,
            name=tracked.name,
            group=tracked.run,
            job_type=tracked.kind,
            id=file.read_text(encoding="utf-8"),
            resume="allow",
            dir=str(tracked.folder),
            config=tracked.config,
            mode=tracked.mode,
            # Its own lines would go through the panel, and what the stage prints is no business of a server's.
            settings=wandb.Settings(silent=True, console="off"),
        )
        if tracked.mode == "offline":
            events.say(f"W&B, offline: send it with `wandb sync {file.parent}/offline-run-*`")
        else:
            events.say(f"W&B, {tracked.mode}: {self._run.url or tracked.name}")

    def log(self, step: int, numbers: dict[str, float]) -> None:
        if step > self._last_step:  # W&B takes no step twice
            self._run.log(numbers, step=step)

    def close(self) -> None:
        self._run.finish()


class Trackio:
    def __init__(self, tracked: Tracked, first_step: int) -> None:
        self._trackio: Any = import_module("trackio")
        self._last_step = tracked.last_step
        with redirect_stdout(io.StringIO()):  # how to look at it is said below, in one line
            self._run = self._trackio.init(
                project=tracked.project,
                name=tracked.name,
                group=tracked.run,
                config=tracked.config,
                resume="allow" if tracked.last_step else "never",
                embed=False,
                auto_log_gpu=False,  # a thread that would go on asking the device while steps are timed
                auto_log_cpu=False,
            )
        events.say(f"trackio: trackio show --project {tracked.project}")

    def log(self, step: int, numbers: dict[str, float]) -> None:
        if step > self._last_step:  # a step made again would be a second point
            self._run.log(numbers, step=step)

    def close(self) -> None:
        with redirect_stdout(io.StringIO()):
            self._trackio.finish()


OPENED: dict[str, Callable[[Tracked, int], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "trackio": Trackio,
}


def last_step(metrics: Path) -> int:
    """The last step that a metrics file has; 0 where it has none."""
    last = 0
    for line in metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []:
        try:
            last = max(last, int(json.loads(line).get("step", 0)))
        except ValueError:  # what a killed process wrote in part
            continue
    return last


@contextmanager
def track(tracked: Tracked, names: Sequence[str]) -> Iterator[None]:
    """Hand the numbers of every step to the trackers of these names."""
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(_track(tracked, name))
        yield


@contextmanager
def _track(tracked: Tracked, name: str) -> Iterator[None]:
    tracker: Tracker | None = None
    broken = False

    @contextmanager
    def costs_no_training() -> Iterator[None]:
        nonlocal broken
        try:
            yield
        except Exception as error:
            broken = True
            events.warn(f"{name} is left out from here on: {type(error).__name__}: {error}")

    def write(event: events.Event) -> None:
        nonlocal tracker
        if broken or not isinstance(event, events.Metrics) or "step" not in event.values:
            return
        step = int(event.values["step"])
        numbers = {
            key: float(value)
            for key, value in event.values.items()
            if key not in ("step", "steps") and isinstance(value, int | float)
        }
        with costs_no_training():
            tracker = tracker or OPENED[name](tracked, step)
            tracker.log(step, numbers)

    with events.listening(write):
        try:
            yield
        finally:
            if tracker is not None:
                with costs_no_training():
                    tracker.close()
