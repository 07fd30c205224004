"""`--profile`: what ten steps of a stage spend their time on, as torch sees it on the first rank."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from llmctl import events
from llmctl.runs.files import staged_folder

FOLDER = "profile"
WARM_UP = 3  # steps before those that are recorded: compilation, caches, the optimizer's state
STEPS = 10
LISTED = 100  # operators in the file
SHOWN = 10


@contextmanager
def profiled(folder: Path, steps: int, device: torch.device) -> Iterator[Callable[[], None]]:
    """What is to be called after each of the next `steps` steps of training on `device`. After ten, or when the block ends
    before, `folder` has `trace.json.gz` (Perfetto, chrome://tracing) and `operators.txt`.
    """
    from torch.profiler import ProfilerActivity, profile, schedule

    if steps == 0:
        events.say("nothing is profiled: no step is left to be made")
        yield lambda: None
        return
    recorded = min(STEPS, steps)
    unseen = min(WARM_UP, steps - recorded)
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    # The profiler starts itself in the last of the steps that are not seen.
    plan = schedule(wait=max(0, unseen - 1), warmup=min(1, unseen), active=recorded, repeat=1)

    def leave(profiler: Any) -> None:
        _leave(profiler, folder, min(recorded, profiler.step_num - unseen), device.type)

    with profile(activities=kinds, schedule=plan, on_trace_ready=leave, profile_memory=True) as profiler:
        yield profiler.step


def _leave(profiler: Any, folder: Path, steps: int, device: str) -> None:
    found = profiler.key_averages()
    by = f"self_{device}_time_total"
    with staged_folder(folder) as aside:
        profiler.export_chrome_trace(str(aside / "trace.json.gz"))
        table = found.table(sort_by=by, row_limit=LISTED, max_name_column_width=60)
        (aside / "operators.txt").write_text(f"{steps} steps\n{table}\n", encoding="utf-8")
    on_device = device != "cpu"
    spent = {item.key: item.self_device_time_total if on_device else item.self_cpu_time_total for item in found}
    whole = sum(spent.values()) or 1
    rows = []
    for item in sorted(found, key=lambda item: spent[item.key], reverse=True)[:SHOWN]:
        memory = item.self_device_memory_usage if on_device else item.self_cpu_memory_usage
        milliseconds = spent[item.key] / 1e3 / max(1, steps)
        share = f"{100 * spent[item.key] / whole:.1f} %"
        rows.append((item.key, f"{item.count:,}", f"{milliseconds:,.2f}", share, f"{memory / 2**20:,.1f}"))
    title = f"profile: the costliest operators of {steps} steps, by their own time on {device}"
    events.emit(events.Table(title, ("operator", "calls", "ms a step", "share", "MiB taken"), tuple(rows)))
    events.say(f"profile: {folder / 'trace.json.gz'} opens in Perfetto (ui.perfetto.dev) and chrome://tracing")
