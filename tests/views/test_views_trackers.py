"""Trackers: TensorBoard itself; of W&B and trackio, which are large, what they are called with, by stand-ins that note it."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmctl import events
from llmctl.errors import UserError
from llmctl.recipe.execution_schema import TrackingTable
from llmctl.recipe.load import RecipeError, load_recipe
from llmctl.runs.artifact import Artifact
from llmctl.stages.trackers import require_trackers, wandb_mode
from llmctl.views.progress import PlainScreen
from llmctl.views.records import metrics_writer
from llmctl.views.stage import recorded_on
from llmctl.views.trackers import Tracked, track

STAND_IN = """
import json
from pathlib import Path

NOTES = Path(__file__).with_suffix(".jsonl")


def note(*what):
    with NOTES.open("a") as file:
        file.write(json.dumps(what) + "\\n")


class Run:
    url = None

    def log(self, numbers, step):
        note("log", step, numbers)

    def finish(self):
        note("finish")


def Settings(**settings):
    return settings


def init(**options):
    if options["project"] == "broken":
        raise OSError("no room")
    note("init", options)
    return Run()


def finish():
    note("finish")
"""


def step(number: int) -> events.Metrics:
    return events.Metrics({"step": number, "steps": 9, "loss": float(number), "learning_rate": 1e-3})


def tracked(folder: Path, last_step: int = 0, project: str = "llmctl") -> Tracked:
    return Tracked("own", "pretrain", "pretrain", folder, {"lr": 1e-3}, project, "offline", last_step)


@pytest.fixture
def stand_ins(tmp_path, monkeypatch) -> Iterator[Path]:
    folder = tmp_path / "packages"
    folder.mkdir()
    for name in ("wandb", "trackio"):
        (folder / f"{name}.py").write_text(STAND_IN)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in ("wandb", "trackio"):
        sys.modules.pop(name, None)


def notes(packages: Path, name: str) -> list[list]:
    return [json.loads(line) for line in (packages / f"{name}.jsonl").read_text().splitlines()]


def test_tensorboard_holds_the_numbers_of_every_step(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with track(tracked(tmp_path), ["tensorboard"]):
        for number in range(1, 6):
            events.emit(step(number))
    with track(tracked(tmp_path, last_step=5), ["tensorboard"]):
        for number in range(4, 8):
            events.emit(step(number))
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert [(item.step, item.value) for item in read.Scalars("loss")] == [(n, float(n)) for n in range(1, 8)]


def test_wandb_goes_on_with_the_same_run_and_takes_no_step_twice(tmp_path, stand_ins):
    for last_step, steps in ((0, range(1, 4)), (3, range(3, 6))):
        with track(tracked(tmp_path, last_step), ["wandb"]):
            for number in steps:
                events.emit(step(number))
    found = notes(stand_ins, "wandb")
    (_, first), (_, second) = [note for note in found if note[0] == "init"]
    assert first == second
    assert first["mode"] == "offline"
    assert first["dir"] == str(tmp_path)
    assert first["name"] == "own/pretrain"
    assert first["config"] == {"lr": 1e-3}
    assert [(note[1], note[2]["loss"]) for note in found if note[0] == "log"] == [(n, float(n)) for n in range(1, 6)]
    assert [note[0] for note in found].count("finish") == 2


def test_trackio_goes_on_with_the_same_run_and_takes_no_step_twice(tmp_path, stand_ins):
    for last_step, steps in ((0, range(1, 4)), (3, range(3, 6))):
        with track(tracked(tmp_path, last_step), ["trackio"]):
            for number in steps:
                events.emit(step(number))
    found = notes(stand_ins, "trackio")
    assert [note[1]["resume"] for note in found if note[0] == "init"] == ["never", "allow"]
    assert not {"space_id", "server_url"} & set(found[0][1])
    assert [note[1] for note in found if note[0] == "log"] == [1, 2, 3, 4, 5]


def test_a_tracker_that_breaks_costs_no_training(tmp_path, stand_ins, capsys):
    with events.listening(PlainScreen()), track(tracked(tmp_path, project="broken"), ["wandb", "trackio"]):
        events.emit(step(1))
        events.emit(step(2))
    written = capsys.readouterr().out
    assert written.count("warning: wandb is left out from here on: OSError: no room") == 1
    assert written.count("warning: trackio is left out") == 1


def test_a_stage_of_the_recipe_is_tracked_with_its_table(tmp_path, small_recipe, stand_ins):
    recipe = load_recipe(small_recipe, ["tracking.to=trackio", "tracking.project=mine"])
    artifact = Artifact(tmp_path / "runs" / "small" / "pretrain-123")
    artifact.create()
    with metrics_writer(artifact.metrics_path):
        events.emit(step(1))
    with recorded_on(PlainScreen(), recipe)(artifact):
        events.emit(step(1))
        events.emit(step(2))
    (_, options), *logged, _ = notes(stand_ins, "trackio")
    assert options["project"] == "mine"
    assert options["name"] == "small/pretrain"
    assert options["config"]["batch_tokens"] == 256
    assert [note[1] for note in logged] == [2]


def test_what_is_not_installed_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr("llmctl.stages.trackers.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"wandb not installed: pip install 'llmctl\[wandb\]'"):
        require_trackers(TrackingTable(to=["wandb"]))


def test_wandb_is_offline_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert wandb_mode(TrackingTable()) == "offline"
    assert wandb_mode(TrackingTable(online=True)) == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode(TrackingTable()) == "disabled"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tracking.to=wanb", "no tracker 'wanb'; did you mean 'wandb'?"),
        ("tracking.to=mlflow", "known are tensorboard, wandb, trackio"),
        ("tracking.tensorboard=true", 'tensorboard = true is now to = ["tensorboard"]'),
    ],
)
def test_a_wrong_tracker_is_told(small_recipe, override, message):
    with pytest.raises(RecipeError) as told:
        load_recipe(small_recipe, [override])
    assert message in str(told.value)
    assert load_recipe(small_recipe, ["tracking.tensorboard=false"]).tracking.to == []
