"""What the run said and what it was made with: samples, warnings, the log of every stage, versions, hardware, recipe."""

import json
from collections.abc import Iterator
from html import escape
from typing import Any

from llmctl.corpus.shown import shown_text
from llmctl.page import table
from llmctl.recipe.positions import leaves
from llmctl.views.report.collect import NOT_BEGUN, RunRecord, StageRecord
from llmctl.views.report.reading import inner, inner_mapping
from llmctl.views.report.section import FOLDED, Section, folded, heading, logged_table, looking, paragraph
from llmctl.views.report.wording import clock, several
from llmctl.wording import lasted

SAMPLES = (
    "What the models write, to be read with your own eyes: held-out questions with the expected answer, the parent's and the "
    "stage's own, and prompts that were continued while a stage ran. An answer with … at its end did not end by itself."
)
WARNINGS = (
    "Everything that a stage warned of, with its time. A single step that is left out is harmless; many in a row, or a warning "
    "about the data or the short context, is where to begin."
)
STAGES = "All that each stage has said, in its order: messages and tables, as they were printed while it ran."
MADE = (
    "What the run was made with. The same recipe, overrides and versions on the same machine give the same models; the full "
    "recipe below has every key, those too that nobody has written."
)
CONTINUED = "continued by the model"
SHOWN = 3  # answers that are not folded away


def samples_section(run: RunRecord) -> Section:
    return Section(SAMPLES, [part for stage in run.stages for part in _samples(run, stage)])


def _samples(run: RunRecord, stage: StageRecord) -> Iterator[str]:
    continued = list(_continued(stage))
    if continued:
        yield heading(f"{stage.name}: prompts continued while it ran")
        yield from (folded(title, text, opened=place == len(continued) - 1) for place, (title, text) in enumerate(continued))
    if stage.answers:
        parent = str(inner(run.resolved, "stages", stage.name, "from") or "parent")
        yield heading(f"{stage.name}: answers to held-out questions")
        for place, row in enumerate(stage.answers):
            title = f"{place + 1}. {row.get('id', '')}"
            yield folded(title, _answer(row, parent, stage.name), opened=place < SHOWN)


def _answer(row: dict[str, Any], parent: str, stage: str) -> str:
    question = row.get("question")
    entries = [("asked", shown_text({"messages": question}) if isinstance(question, list) else str(question), True)]
    entries.append(("expected", str(row.get("expected", "")), True))
    for name, when in ((parent, "before"), (stage, "after")):
        found = inner_mapping(row, when)
        entries.append((name, str(found.get("text", "")), bool(found.get("ended"))))
    listed = (
        f"<dt>{escape(name)}</dt><dd><pre>{escape(text)}{'' if ended else ' …'}</pre></dd>" for name, text, ended in entries
    )
    return f"<dl>{''.join(listed)}</dl>"


def _continued(stage: StageRecord) -> Iterator[tuple[str, str]]:
    """(time, table) of every time that prompts were continued."""
    for line in stage.tables:
        if str(line.get("title", "")).startswith(CONTINUED):
            yield clock(line.get("time")), logged_table(line)


def warnings_section(run: RunRecord) -> Section:
    parts = []
    for stage in run.stages:
        rows = [[clock(line.get("time")), str(line.get("text", ""))] for line in stage.warnings]
        if rows:
            drawn = _wrapped(["time", f"warning of {stage.name}"], rows)
            parts.append(folded(f"{stage.name}: {several(len(rows), 'warning')}", drawn, opened=len(rows) <= FOLDED))
    silent = [stage.name for stage in run.stages if stage.log is None and stage.status != NOT_BEGUN]
    if silent:
        told = f"{', '.join(silent)}: made by a version that kept no log, so that their warnings are not known."
        parts.append(paragraph(told))
    return Section(WARNINGS, parts or [paragraph("None.")])


def _wrapped(columns: list[str], rows: list[list[str]]) -> str:
    """A table whose cells are sentences."""
    return looking("text", table(columns, rows))


def stages_section(run: RunRecord) -> Section:
    return Section(STAGES, [_stage(stage) for stage in run.stages])


def _stage(stage: StageRecord) -> str:
    took = f", {lasted(stage.seconds)}" if stage.seconds is not None else ""
    parts = [paragraph(f"{stage.folder or 'nothing on disk yet'}")]
    if stage.older:
        parts.append(paragraph(f"Older: {', '.join(stage.older)}"))
    parts.append(_log(stage.log or []) if stage.log is not None else "")
    plain = {name: value for name, value in inner_mapping(stage.manifest, "metrics").items() if isinstance(value, int | float)}
    if plain:
        rows = [[name, f"{value:,.6g}"] for name, value in plain.items()]
        parts.append(folded(f"Numbers in the manifest ({len(rows):,})", table(["metric", "value"], rows)))
    key = f"-{stage.key}" if stage.key else ""
    return folded(f"{stage.name}{key}: {stage.status}{took}", *parts, name=f"stage-{stage.name}")


def _log(lines: list[dict[str, Any]]) -> str:
    shown = []
    for line in lines:
        if line.get("kind") == "Table":
            shown.append(logged_table(line))
        else:
            look = "warning" if line.get("level") == "warning" else ""
            shown.append(paragraph(f"{clock(line.get('time'))}  {line.get('text', '')}", f"log {look}".strip()))
    return "".join(shown)


def made_section(run: RunRecord) -> Section:
    parts = []
    for title, key in (("Versions", "versions"), ("Hardware", "hardware")):
        kinds: dict[str, list[str]] = {}
        for stage in run.stages:
            if found := inner_mapping(stage.manifest, key):
                kinds.setdefault(json.dumps(found), []).append(stage.name)
        for found, names in kinds.items():
            told = f"{title}{'' if len(kinds) == 1 else ' of ' + ', '.join(names)}"
            parts += [heading(told), _wrapped(["", ""], [[name, _written(value)] for name, value in json.loads(found).items()])]
    if run.recipe:
        origin = [[name, _written(run.recipe[name])] for name in ("path", "overrides", "smoke") if name in run.recipe]
        parts += [heading("Recipe"), _wrapped(["", ""], origin)]
        rows = [[".".join(key), _written(value)] for key, value in leaves(run.resolved)]
        parts.append(folded(f"The recipe with every key ({len(rows):,})", _wrapped(["key", "value"], rows)))
    return Section(MADE, parts)


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
