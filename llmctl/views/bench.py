"""`llmctl bench`: what a step costs, as a table or as JSON."""

import json
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import asdict
from typing import Any

from llmctl import events
from llmctl.stages.session import launched
from llmctl.views.progress import PlainScreen
from llmctl.views.tables import print_table
from llmctl.wording import gib


@contextmanager
def told_on_stderr() -> Iterator[None]:
    """Messages and progress of the block go to stderr: stdout is the result's alone. Of a launcher's ranks the first one alone
    speaks."""
    with redirect_stdout(sys.stderr), events.listening(PlainScreen()) if launched()[1] == 0 else nullcontext():
        yield


def show_bench(found: Any, as_json: bool) -> None:
    """Print a `Measured`."""
    if as_json:
        print(json.dumps(values_of(found), indent=2))
        return
    print_table(events.Table(title_of(found), ("measure", ""), tuple(measures(found))))
    whole = sum(found.part_seconds.values())
    parts = tuple((name, f"{1000 * s:,.1f}", f"{100 * s / whole:.1f} %") for name, s in found.part_seconds.items())
    print_table(events.Table("parts of a step, each waited for", ("part", "ms", "share"), parts))
    print("\n".join(explanation(found)))


def values_of(found: Any) -> dict[str, Any]:
    low, high = found.middle_half
    share = found.share_of_peak
    return asdict(found) | {
        "tokens_per_second": found.tokens_per_second,
        "tokens_per_second_middle_half": [low, high],
        "seconds_per_step": statistics.median(found.step_seconds),
        "model_flops_per_second": flops_per_second(found, found.flops_per_token),
        "mfu": share(found.flops_per_token),
        "mfu_by_rows": share(found.flops_per_token_by_rows),
    }


def flops_per_second(found: Any, flops_per_token: float | None) -> float | None:
    return None if flops_per_token is None else flops_per_token * found.tokens_per_second


def title_of(found: Any) -> str:
    accumulation = found.batch_rows // (found.micro_batch * found.ranks)
    return (
        f"{found.stage}: {found.ranks} rank{'s' if found.ranks > 1 else ''} x micro-batch {found.micro_batch} x accumulation "
        f"{accumulation} = {found.batch_rows} rows of {found.seq_len:,} tokens, {found.precision}, ZeRO stage "
        f"{found.zero_stage}, {found.device}"
    )


def measures(found: Any) -> Iterator[tuple[str, str]]:
    low, high = found.middle_half
    yield "tokens/s, median", f"{found.tokens_per_second:,.0f}"
    yield f"tokens/s, middle half of {len(found.step_seconds)} steps", f"{low:,.0f} to {high:,.0f}"
    counted = {"": found.flops_per_token}
    if found.flops_per_token != found.flops_per_token_by_rows:
        counted[", a row taken for one document"] = found.flops_per_token_by_rows
    name = "MFU" if found.device_type == "cuda" else "share of this machine's product rate"
    for how, flops in counted.items():
        if (rate := flops_per_second(found, flops)) is not None:
            yield f"model TFLOP/s{how}", f"{rate / 1e12:,.3g}"
        if (share := found.share_of_peak(flops)) is not None:
            yield f"{name}{how}", f"{100 * share:.1f} %"
    if found.padding:
        yield "padding in the rows", f"{100 * found.padding:.1f} %"
    yield "peak memory of a rank", f"{gib(found.memory_bytes)} GiB"


def explanation(found: Any) -> Iterator[str]:
    """How the numbers were made."""
    if found.work is not None:
        work = found.work
        frozen = f" + 4 x {work['frozen']:,} frozen ones" if work["frozen"] else ""
        yield (
            f"model FLOPs of a token: 6 x {work['trained']:,} weights of matrices{frozen} + 12 x {work['heads']} heads x "
            f"{work['head_size']} x keys that a query sees, over {len(work['windows'])} layers = {found.flops_per_token:.4g}; "
            "nothing that is computed again"
        )
    if found.peak_flops is None:
        yield f"no MFU: {found.peak_is}"
    else:
        yield f"divided by {found.ranks} x {found.peak_flops / found.ranks / 1e12:,.3g} TFLOP/s, {found.peak_is}"
