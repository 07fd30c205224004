"""The top of the page: what was made, how long it took, what it cost, whether it is good, and what to look at first."""

import math
from collections.abc import Iterator
from html import escape
from pathlib import Path

from llmctl.page import table
from llmctl.views.report.collect import RunRecord, StageRecord
from llmctl.views.report.reading import inner, inner_mapping, number
from llmctl.views.report.scores import checkpoints, task_scores
from llmctl.views.report.section import folded, heading, looking, paragraph
from llmctl.views.report.training_sections import measured
from llmctl.views.report.verdicts import Finding, Verdict, findings, verdicts
from llmctl.views.report.wording import clock, several, short
from llmctl.wording import gib, lasted

SHOWN = 8  # verdicts, and findings, that are not folded away
RESULTS = {
    "bits_per_byte_after": "bits per byte",
    "bits_per_byte": "bits per byte",
    "loss on held-out answers/after": "loss on held-out answers",
}
FLOPS = 6  # of a weight and a token in training: 2 forward, 4 backward


def summary(run: RunRecord) -> str:
    """HTML."""
    parts = [paragraph(line) for line in (what(run), how_long(run), cost(run)) if line]
    found = findings(run)
    parts += [heading("What to look at first"), _listed(found)]
    judged = verdicts(run)
    if judged:
        rows = [_row(one) for one in judged]
        head = ["verdict", "of what", "this run", "against", "its value"]
        parts += [heading("Is it good?"), _judged(head, rows[:SHOWN])]
        parts.append(folded(f"{len(rows) - SHOWN:,} more", _judged(head, rows[SHOWN:])) if len(rows) > SHOWN else "")
    return "".join(parts)


def lines(run: RunRecord) -> list[str]:
    """The summary in three lines of plain text."""
    judged, found = verdicts(run), findings(run)
    counts = {word: sum(one.word == word for one in judged) for word in ("better", "worse", "no clear difference")}
    told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    first = f"; first: {found[0].text}" if found else ""
    verdict = f"against xz, parents and chance: {told}" if judged else "nothing is measured yet"
    return [what(run), f"{how_long(run)} {cost(run)}".strip(), f"{verdict}{first}"]


def what(run: RunRecord) -> str:
    """What was made, in one sentence."""
    count = next((found for stage in reversed(run.stages) if (found := parameters(stage))), None)
    shape = inner_mapping(run.resolved, "model")
    parts = [f"a model of {short(count)} weights" if count else "a model"]
    if layers := shape.get("layers"):
        parts.append(f"({layers} layers, {shape.get('hidden_size')} wide)")
    done = [stage for stage in run.stages if stage.done]
    begun = [stage for stage in run.stages if stage.running]
    chain = " -> ".join(stage.name for stage in run.stages if stage.steps) or "nothing trained yet"
    now = f" Now at work: {', '.join(f'{stage.name}, {stage.status}' for stage in begun)}." if begun else ""
    return f"{run.name}: {' '.join(parts)}, by {chain}; {len(done)} of {several(len(run.stages), 'stage')} done.{now}"


def how_long(run: RunRecord) -> str:
    took = [seconds for stage in run.stages if (seconds := stage.seconds) is not None]
    ends = [number(stage.manifest.get(key)) for stage in run.stages for key in ("started", "ended")]
    known = [end for end in ends if end is not None]
    if not took:
        return ""
    between = f", between {clock(min(known))} and {clock(max(known))}" if known else ""
    tokens = sum(stage.tokens for stage in run.stages)
    return f"It took {lasted(sum(took))} of work{between}, and trained on {short(tokens)} tokens."


def cost(run: RunRecord) -> str:
    """Time of the machine, computation, memory and disk."""
    machines = [found for stage in run.stages if (found := inner_mapping(stage.manifest, "hardware"))]
    if not machines:
        return ""
    machine, hours = machines[-1], sum(stage.seconds or 0.0 for stage in run.stages) / 3600
    gpus = [str(name) for name in machine.get("gpus") or []]
    told = (
        f"{several(len(gpus), 'GPU')} ({gpus[0]})"
        if gpus
        else f"{machine.get('cores')} cores of {machine.get('processor')}, no GPU"
    )
    parts = [f"{hours:.2f} hours of a machine with {told}"]
    flops = sum(FLOPS * (parameters(stage) or 0) * stage.tokens for stage in run.trained)
    if flops:
        parts.append(f"about {flops:.1e} floating-point operations in training")
    if peaks := [found["memory_bytes"] for stage in run.trained if "memory_bytes" in (found := measured(stage))]:
        parts.append(f"{gib(max(peaks))} GiB of memory at the peak")
    files = [entry for stage in run.stages for entry in inner_mapping(stage.manifest, "files").values()]
    if size := sum(number(inner(entry, "bytes")) or 0.0 for entry in files):
        parts.append(f"{size / 1e6:,.0f} MB on the disk")
    return f"It cost {', '.join(parts)}."


def parameters(stage: StageRecord) -> int | None:
    """Weights of a stage's model, from the heads of its files; None where there is none."""
    from safetensors import SafetensorError, safe_open

    files = sorted((Path(stage.folder) / "model").glob("*.safetensors")) if stage.folder else []
    total = 0
    try:
        for file in files:
            with safe_open(str(file), framework="numpy") as opened:
                total += sum(math.prod(opened.get_slice(name).get_shape()) for name in opened.keys())  # noqa: SIM118
    except (OSError, SafetensorError):  # removed or written at this moment
        return None
    return total or None


def _listed(found: list[Finding]) -> str:
    if not found:
        return paragraph("Nothing is amiss: no warnings, nothing that has become worse. The curves come next.")
    shown = [f"<li class='{one.level}'><a href='#{escape(one.section, quote=True)}'>{escape(one.text)}</a></li>" for one in found]
    more = folded(f"{len(shown) - SHOWN:,} more", f"<ul>{''.join(shown[SHOWN:])}</ul>") if len(shown) > SHOWN else ""
    return f"<ul class='findings'>{''.join(shown[:SHOWN])}</ul>{more}"


def _row(one: Verdict) -> list[str]:
    marks: dict[str, str] = {"better": "▲ better", "worse": "▼ worse", "no clear difference": "= no clear difference"}
    return [marks[one.word], one.what, one.ours, one.against, one.theirs]


def _judged(columns: list[str], rows: list[list[str]]) -> str:
    drawn = looking("judged", table(columns, rows))
    for mark, look in (("▲", "better"), ("▼", "worse")):
        drawn = drawn.replace(f"<td>{mark}", f"<td class='{look}'>{mark}")
    return drawn


def stage_lines(stage: StageRecord) -> Iterator[str]:
    """What a box of the lineage says of a stage: time, tokens and key; its result."""
    facts = [lasted(stage.seconds)] if stage.seconds is not None else []
    facts += [f"{short(stage.tokens)} tokens"] if stage.tokens else []
    facts += [stage.key] if stage.key else []
    yield ", ".join(facts)
    yield _result(stage)


def _result(stage: StageRecord) -> str:
    for key, told in RESULTS.items():
        if key in stage.metrics:
            return f"{told} {stage.metrics[key]:.3f}"
    if stage.kind == "tokens":
        return f"{short(sum(stage.metrics.values()))} tokens in {several(len(stage.metrics), 'source')}"
    if stage.sources:
        documents = sum(number(inner(counts, "train_documents")) or 0.0 for counts in stage.sources.values())
        return f"{documents:,.0f} documents in {several(len(stage.sources), 'source')}"
    if vocabulary := stage.metrics.get("vocabulary"):
        return f"{vocabulary:,.0f} tokens in the vocabulary"
    scores = task_scores(stage)
    names = {score.name[0] for score in scores}
    return f"{several(len(names), 'task')}, {several(len(checkpoints(scores)), 'checkpoint')}" if names else ""
