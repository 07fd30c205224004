"""`--profile`: ten steps after three that are not seen, or as many as there are."""

import gzip
import json

import pytest
import torch

from llmctl import events
from llmctl.train.profiling import profiled


@pytest.mark.parametrize(("steps", "recorded"), [(20, 10), (11, 10), (4, 4), (1, 1)])
def test_a_trace_and_the_costliest_operators_are_left(tmp_path, steps, recorded):
    heard: list[events.Event] = []
    weight = torch.randn(64, 64)
    with events.listening(heard.append), profiled(tmp_path / "profile", steps, torch.device("cpu")) as after_step:
        for _ in range(steps):
            weight = weight @ weight.softmax(-1)
            after_step()
    with gzip.open(tmp_path / "profile" / "trace.json.gz", "rt") as file:
        trace = json.load(file)["traceEvents"]
    assert sum(event.get("name") == "aten::mm" for event in trace) == recorded
    assert (tmp_path / "profile" / "operators.txt").read_text().startswith(f"{recorded} steps\n")
    (table,) = [event for event in heard if isinstance(event, events.Table)]
    (product,) = [row for row in table.rows if row[0] == "aten::mm"]
    assert product[1] == str(recorded)


def test_a_stage_without_a_step_left_says_so(tmp_path):
    heard: list[events.Event] = []
    with events.listening(heard.append), profiled(tmp_path / "profile", 0, torch.device("cpu")):
        pass
    assert heard == [events.Message("nothing is profiled: no step is left to be made")]
    assert not (tmp_path / "profile").exists()
