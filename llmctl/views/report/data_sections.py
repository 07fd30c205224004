"""What the models were trained on: sources, what was left out, the mix of every stage."""

from collections import Counter
from itertools import cycle

from llmctl.corpus.page import attrition_table, source_table
from llmctl.page import PALETTE, bar, table
from llmctl.views.report.collect import RunRecord, StageRecord
from llmctl.views.report.reading import inner, inner_mapping, inner_rows, number
from llmctl.views.report.section import FOLDED, Section, folded, heading, logged_table, paragraph
from llmctl.views.report.wording import several, short

HOW = (
    "Each bar is all documents of a source: what was kept for training, what was held out to be measured on, and what each step "
    "left out. Below, the mix: the share of each source in the tokens that a stage trained on."
)


def data_section(run: RunRecord) -> Section:
    parts = [part for stage in run.of_kind("corpus") for part in _corpus(stage)]
    mixes = [part for stage in run.stages for part in _mix(run, stage)]
    return Section(HOW, [*parts, *([heading("Mix of every stage"), *mixes] if mixes else []), *_tokenizer(run)])


def _corpus(stage: StageRecord) -> list[str]:
    rules = [f"{row.get('step')}: {row.get('rule')}" for row in stage.attrition]
    colours = dict(zip(dict.fromkeys(["train", "held out", *rules]), cycle(PALETTE), strict=False))
    parts = []
    for source, counts in stage.sources.items():
        kept = {"train": number(inner(counts, "train_documents")), "held out": number(inner(counts, "heldout_documents"))}
        left_out: Counter[str] = Counter()
        for row in stage.attrition:
            if row.get("source") == source:
                left_out[f"{row.get('step')}: {row.get('rule')}"] += row.get("documents", 0)
        shares = {name: count for name, count in {**kept, **left_out}.items() if count}
        total = sum(shares.values())
        parts.append(paragraph(f"{source}: {several(int(total), 'document')} read"))
        parts.append(bar([(name, count / total) for name, count in shares.items()], colours) if total else "")
    if stage.sources:
        parts += [heading("What is there"), source_table(stage.sources)]
        parts.append(
            folded("What was left out, rule by rule", attrition_table(stage.attrition), opened=len(stage.attrition) <= FOLDED)
        )
    parts += [logged_table(line) for line in stage.tables if str(line.get("title", "")).startswith("classifier")]
    if inner(stage.manifest, "files", "corpus.html"):
        parts.append(paragraph(f"Documents that were left out, and lengths: corpus.html in {stage.folder}"))
    return parts


def _mix(run: RunRecord, stage: StageRecord) -> list[str]:
    mixed = _parts_of(stage)
    if not mixed:
        return []
    sources = [*inner_mapping(run.resolved, "corpus", "sources"), *mixed]
    colours = {name: PALETTE[place % len(PALETTE)] for place, name in enumerate(dict.fromkeys(sources))}
    trained = {name.removeprefix("tokens/"): count for name, count in stage.metrics.items() if name.startswith("tokens/")}
    told = "; ".join(f"{name} {short(count)}" for name, count in trained.items())
    parts = [
        paragraph(f"{stage.name}{f': {told} tokens' if trained else ''}"),
        bar(sorted(mixed.items(), key=lambda one: -one[1]), colours),
    ]
    tables = [logged_table(line) for line in stage.tables if str(line.get("title", "")).startswith(f"{stage.name}: mix")]
    return [*parts, *([folded("pools, passes and documents", *tables)] if tables else [])]


def _parts_of(stage: StageRecord) -> dict[str, float]:
    """Shares by the name of the part, as the trainer was told them."""
    found: dict[str, float] = {}
    for part in inner_rows(stage.job, "parts"):
        label, share = part.get("label"), number(part.get("share"))
        if share:
            found[f"{part.get('source')}, {label}" if label else str(part.get("source"))] = share
    return found


def _tokenizer(run: RunRecord) -> list[str]:
    """Bytes that a token stands for, of each source."""
    rows = [
        [name.partition("/")[2], f"{value:.2f}"]
        for stage in run.of_kind("tokenizer")
        for name, value in stage.metrics.items()
        if name.startswith("bytes_per_token/")
    ]
    return [heading("Tokenizer"), table(["held-out source", "bytes a token"], rows)] if rows else []
