"""What people read: plain lines, the key's explanation, the metrics file."""

import json

import pytest

from llmctl import events
from llmctl.errors import UserError
from llmctl.views.explain import explain, keys, tables
from llmctl.views.progress import LiveScreen, PlainScreen
from llmctl.views.records import metrics_writer
from llmctl.views.tables import plain_table
from llmctl.wording import about, gib, lasted


def step(number: int, loss: float = 2.0) -> events.Metrics:
    return events.Metrics(
        {"step": number, "steps": 9, "loss": loss, "learning_rate": 1e-3, "tokens_per_second": 100.0, "eta_seconds": 65.0,
         "memory_bytes": 2**30}
    )  # fmt: skip


def test_every_key_is_explained_with_its_meaning():
    for key, (_, info) in keys().items():
        assert info.description, f"{key} has no docstring"
        assert explain(key).startswith(f"[{key}]" if key in tables() else key)
    for name, table in tables().items():
        if name:
            assert all(info.description.splitlines()[0] in explain(name) for info in table.model_fields.values())


def test_an_unknown_key_is_answered_with_the_nearest():
    with pytest.raises(UserError, match=r"did you mean.*pretrain\.lr"):
        explain("pretrain.lrr")


def test_piped_output_is_lines_with_rate_and_time_left(capsys):
    screen = PlainScreen()
    with events.listening(screen), screen.stage("pretrain"):
        events.say("hello")
        events.emit(step(1))
        events.emit(step(9))
        events.emit(events.Table("scores", ("a", "b"), (("1", "2"),)))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "[pretrain] hello"
    assert lines[1] == "[pretrain] step 9/9  loss 2.000  rate 1.00e-03  100 tokens/s  1 min 05 s left  1.00 GiB"
    assert "\x1b" not in "".join(lines)


def test_a_terminal_gets_a_panel(monkeypatch):
    import io

    from rich.console import Console

    screen = LiveScreen()
    screen.console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with events.listening(screen), screen.stage("pretrain"):
        events.say("hello")
        for number in range(1, 9):
            events.emit(step(number, 3 - number / 10))
        events.progress("reading", 5, 10, "documents")
        events.emit(step(9))
    written = screen.console.file.getvalue()
    for part in ("hello", "pretrain", "step 9/9", "100 tokens/s", "█"):
        assert part in written


@pytest.mark.parametrize(
    "event",
    [
        events.Message("a\nb é", "warning"),
        events.Progress("reading", 1.5, None, "bytes"),
        step(3),
        events.Table("scores", ("a", "b"), (("1", "2"), ("3", "4"))),
    ],
)
def test_an_event_comes_out_of_its_line_as_it_went_in(event):
    line = events.to_line(event)
    assert line.count("\n") == 1
    assert events.from_line(line) == event
    assert events.from_line("any other line\n") is None


def test_times_and_sizes():
    assert [lasted(seconds) for seconds in (0, 9.96, 65, 3725)] == ["0.0 s", "10.0 s", "1 min 05 s", "1 h 02 min"]
    assert [about(seconds) for seconds in (0, 65, 3725, 9000, 360000)] == ["0.0 s", "65.0 s", "62.1 min", "2.5 h", "4.2 days"]
    assert gib(1.5 * 2**40) == "1,536.00"


def test_a_stage_that_goes_on_takes_back_the_steps_it_makes_again(tmp_path):
    file = tmp_path / "metrics.jsonl"
    with metrics_writer(file):
        for number in range(1, 6):
            events.emit(step(number))
    with file.open("a") as torn:
        torn.write('{"step": 6, "lo')  # killed in the middle of a line
    with metrics_writer(file):
        for number in range(4, 8):
            events.emit(step(number, 1.0))
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    assert [row["loss"] for row in rows] == [2.0] * 3 + [1.0] * 4


def test_numbers_end_and_long_texts_begin_at_the_same_place():
    lines = plain_table(events.Table("t", ("prompt", "loss", "text"), (("a", "1.5", "x" * 60), ("b", "12.25", "y"))))
    assert lines == ["t", "  prompt   loss  text", f"  a         1.5  {'x' * 60}", "  b       12.25  y"]
