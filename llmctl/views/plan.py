"""`llmctl plan`: what each stage needs and costs, as a table or as JSON."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from llmctl import events
from llmctl.preflight.gpus import PRICES_OF
from llmctl.views.tables import print_table
from llmctl.wording import about, gib

PARTS = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimizer states",
    "buffers": "communication buffers",
    "activations": "activations",
    "head": "loss head at work",
    "block": "a block at work",
    "update": "optimizer at work",
    "set_up": "fp32 model at set-up",
}
ALTERNATE = ("head", "block", "update", "set_up")  # they come one after the other: of these the peak has one


def show_plan(plan: Any, as_json: bool) -> None:
    """Print a `Plan`."""
    if as_json:
        print(json.dumps(values_of(plan), indent=2))
        return
    names = tuple(stage.stage for stage in plan.stages)
    print_table(events.Table(f"{plan.recipe} on {machines_of(plan)}", ("", *names), tuple(rows(plan))))
    print("\n".join(lines(plan)))
    if any(stage.fastest is not None for stage in plan.stages):
        print()
        print("\n".join(found_settings(plan)))
    for stage in plan.stages:
        if not stage.fits:
            print()
            columns = (f"{stage.stage} alone with", "GiB", "fits", "longest row", "costs")
            print_table(events.Table(too_large(stage), columns, tuple(map(row_of_change, stage.changes))))
            print(in_all(stage))


def values_of(plan: Any) -> dict[str, Any]:
    values = asdict(plan)
    machines = values.pop("machines")
    totals = {"fits": plan.fits, "seconds": plan.seconds, "dollars": plan.dollars, "disk_peak": plan.disk_peak}
    return values | {"machine": {key: machines[0][key] for key in ("name", "memory", "on_gpu")}} | totals


def machines_of(plan: Any) -> str:
    ranks = sorted({machine.ranks for machine in plan.machines})
    machine = plan.machines[0]
    count = f"{' or '.join(map(str, ranks))} rank{'s' if ranks != [1] else ''}"
    return f"{count} {'on' if machine.on_gpu else 'of'} {machine.name}, {gib(machine.memory)} GiB each"


def rows(plan: Any) -> Iterator[tuple[str, ...]]:
    def row(name: str, cell: Any) -> tuple[str, ...]:
        return (name, *(cell(stage) for stage in plan.stages))

    yield row("parameters", lambda s: f"{s.parameters:,}")
    yield row("trained", lambda s: f"{s.trained:,}")
    yield row("steps", lambda s: "by epochs" if s.steps is None else f"{s.steps:,}")
    yield row("tokens", lambda s: "by epochs" if s.tokens is None else f"{s.tokens:,}")
    yield row("rows x tokens of a step", lambda s: f"{s.rows} x {s.seq_len:,}")
    yield row("ranks x micro-batch", lambda s: f"{s.ranks} x {s.micro_batch}")
    yield row("ZeRO stage, products", lambda s: f"{s.zero_stage}, {s.precision}")
    for part, name in PARTS.items():
        yield row(f"GiB: {name}{' *' if part in ALTERNATE else ''}", lambda s, part=part: gib(getattr(s.memory, part)))
    yield row("GiB of a rank at the peak", lambda s: gib(s.needs))
    yield row("GiB that can be had", lambda s: gib(s.usable))
    yield row("fits", lambda s: "yes" if s.fits else "NO")
    yield row("longest row, micro-batch 1", lambda s: f"{s.longest_row:,}" if s.longest_row else "none")
    yield row(f"tokens/s, {basis_of(plan)}", lambda s: known(s.cost.tokens_per_second, lambda n: f"{n:,.0f}"))
    if any(stage.cost.mfu is not None for stage in plan.stages):
        yield row("MFU, a row one document", lambda s: known(s.cost.mfu, lambda share: f"{100 * share:.0f} %"))
    yield row("time of the steps", lambda s: "by epochs" if s.steps is None else known(s.cost.seconds, about))
    if plan.dollars is not None:
        yield row("dollars, about", lambda s: "by epochs" if s.steps is None else known(s.cost.dollars, money))
    yield row("GiB of disk, while it runs", lambda s: gib(s.cost.disk_peak))
    yield row("GiB of disk, left", lambda s: gib(s.cost.disk_left))


def basis_of(plan: Any) -> str:
    return " or ".join(dict.fromkeys(stage.cost.basis for stage in plan.stages if stage.cost.basis)) or "not known"


def known(value: float | None, form: Callable[[float], str]) -> str:
    return "-" if value is None else form(value)


def money(dollars: float) -> str:
    return f"{dollars:,.0f}" if dollars >= 10 else f"{dollars:.2f}"


def lines(plan: Any) -> Iterator[str]:
    yield "* one after the other; the peak has the largest of them. Estimates: see docs/plan.md"
    yield from plan.notes
    for stage in plan.stages:
        if stage.context is not None:
            yield f"{stage.stage}: {stage.context}"
    if any(machine.on_gpu for machine in plan.machines):
        host = max(stage.memory.host * stage.ranks for stage in plan.stages)
        yield f"host memory: up to {gib(host)} GiB for all ranks together, to set up and for what is offloaded"
    yield from totals(plan)


def totals(plan: Any) -> Iterator[str]:
    """Time, money and disk of the whole recipe, and how sure they are."""
    if plan.seconds is not None:
        part = "all stages" if all(stage.cost.seconds is not None for stage in plan.stages) else "the stages of known length"
        spent = f", about {money(plan.dollars)} dollars at {plan.price:g} for a rank's hour" if plan.dollars is not None else ""
        yield f"{part}: {about(plan.seconds)} of training steps{spent}"
        if plan.price is not None and not plan.asked_price:
            yield f"the price is about what clouds asked on demand in {PRICES_OF}; --price DOLLARS for yours"
    if any(stage.cost.basis == "expected" for stage in plan.stages):
        yield "speed is expected, not measured: published efficiencies, see docs/plan.md; on the machine llmctl bench measures it"
    if any(stage.cost.basis == "rough" for stage in plan.stages):
        yield "rough: a step would take too long to be timed here; the rate of a product and an efficiency instead"
    short = plan.disk_peak > plan.disk_free
    yield (
        f"disk: up to {gib(plan.disk_peak)} GiB for models and checkpoints, corpus and tokens apart; {gib(plan.disk_free)} GiB "
        f"{'ARE NOT ENOUGH' if short else 'are'} free where runs are written"
    )


def found_settings(plan: Any) -> Iterator[str]:
    """What `--fit` found, to be set and to be written down."""
    for stage in plan.stages:
        found = stage.fastest
        gain = f"{found.before / found.seconds:.2f} times as fast as it was" if found.before else "where it did not fit before"
        if not found.fits:
            yield f"{stage.stage}: none of {found.tried} settings fits; the one that needs least has {written(found.keys)}"
        elif not found.keys:
            yield f"{stage.stage}: no change needed; none of {found.tried} settings that fit is faster"
        else:
            yield f"{stage.stage}: the fastest of {found.tried} settings, {gib(found.needs)} GiB, {gain}"
    changed = [stage for stage in plan.stages if stage.fastest.keys]
    if changed:
        yield "as options: " + " ".join(
            f"--set {stage.stage}.{key}={json.dumps(value)}" for stage in changed for key, value in stage.fastest.keys.items()
        )
        yield "in the recipe:"
    for stage in changed:
        yield f"  [{stage.stage}]"
        yield from (f"  {key} = {json.dumps(value)}" for key, value in stage.fastest.keys.items())


def too_large(stage: Any) -> str:
    told = f"{stage.stage} needs {gib(stage.needs)} GiB of a rank, and {gib(stage.usable)} GiB can be had"
    if stage.memory.set_up > stage.usable:
        told += "; the whole fp32 model is on every rank while ZeRO is set up, which no key changes"
    return told


def row_of_change(change: Any) -> tuple[str, ...]:
    longest = f"{change.longest_row:,}" if change.longest_row else "none"
    return (written(change.keys), gib(change.needs), "yes" if change.fits else "no", longest, change.cost)


def in_all(stage: Any) -> str:
    best = stage.remedy
    if best is None or not best.keys:
        return "nothing in the stage's table would lower it; more ranks, a larger GPU, a shorter seq_len or a smaller model would"
    if not best.fits:
        return f"all together: {gib(best.needs)} GiB, longest row {best.longest_row:,}; it takes more ranks or a larger GPU"
    return f"fits with {written(best.keys)}: {gib(best.needs)} GiB, longest row {best.longest_row:,}"


def written(keys: dict[str, Any]) -> str:
    """Keys as a recipe has them."""
    return ", ".join(f"{key} = {json.dumps(value)}" for key, value in keys.items())
