"""The report of a run: one page that opens from disk, and its figures as files."""

from collections.abc import Callable
from functools import partial
from html import escape
from typing import TYPE_CHECKING

from llmctl.page import whole_page
from llmctl.views.report.collect import NOT_BEGUN, RunRecord, StageRecord
from llmctl.views.report.data_sections import data_section, tokenizer_part
from llmctl.views.report.figures import inline
from llmctl.views.report.lineage_graph import Box, draw
from llmctl.views.report.record_sections import made_section, samples_section, stages_section, warnings_section
from llmctl.views.report.score_figures import figures_of
from llmctl.views.report.score_sections import bits_section, few_shot_section, long_section
from llmctl.views.report.section import Section, paragraph
from llmctl.views.report.style import STYLE
from llmctl.views.report.summary import stage_lines, summary
from llmctl.views.report.training_sections import curves_section, speed_section
from llmctl.views.report.wording import clock

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINEAGE = (
    "What was made from what, from the corpus down; arrows that others imply are left out. A box leads to the stage's log. The "
    "key in it is made of all that decides the outcome: another recipe, or another parent, gives another key."
)
TOLD = {
    "loss": "Loss and learning rate over the tokens of all stages",
    "work": "Gradient norm, tokens per second and memory over the tokens of all stages",
    "bits-per-byte": "Bits per byte of each stage and of its parent",
}
STRANGE = (KeyError, TypeError, ValueError, AttributeError, IndexError)
"""What files of another version, or changed by hand, lead to."""


def figures(run: RunRecord) -> dict[str, "Figure"]:
    """All figures of the page, by name; what cannot be drawn becomes a note."""
    try:
        return figures_of(run)
    except STRANGE as error:
        run.notes.append(f"figures: {_named(error)}")
        return {}


def make_page(run: RunRecord, script: str = "") -> str:
    """The whole page as HTML."""
    drawn = {name: inline(name, figure, TOLD.get(name, name.replace("-", " "))) for name, figure in figures(run).items()}
    makers: dict[str, Callable[[], Section]] = {
        "Lineage": partial(lineage_section, run),
        "Training curves": partial(curves_section, run, drawn),
        "Bits per byte": partial(bits_section, run, drawn),
        "Data": partial(_data, run),
        "Longer context": partial(long_section, run, drawn),
        "Few-shot tasks": partial(few_shot_section, run, drawn),
        "Samples": partial(samples_section, run),
        "Time, speed and memory": partial(speed_section, run, drawn),
        "Warnings": partial(warnings_section, run),
        "Stages and their logs": partial(stages_section, run),
        "Versions, hardware, recipe": partial(made_section, run),
    }
    sections = [made for title, make in makers.items() if (made := _made(run, title, make)) is not None]
    links = [("summary", "Summary"), *((section.name, section.title) for section in sections)]
    nav = "".join(f"<a href='#{name}'>{escape(title)}</a>" for name, title in links)
    head = [f"<h1>Report of {escape(run.name)}</h1>", f"<nav>{nav}</nav>"]
    top = paragraph(f"Made {clock(run.read_at)} from {run.folder}{', which is being written' if run.running else ''}.", "how")
    body = [section.html() for section in sections]
    return whole_page(f"{run.name}: report", [*head, top, _summary(run), _notes(run), *body], STYLE, script)


def _made(run: RunRecord, title: str, make: Callable[[], Section]) -> Section | None:
    """A section; None, and a note of why, where the files that it is made from are not as this version writes them."""
    try:
        return make()
    except STRANGE as error:
        run.notes.append(f"{title}: {_named(error)}")
        return None


def _named(error: Exception) -> str:
    return f"its files are not as this version writes them ({type(error).__name__}: {error})"


def _summary(run: RunRecord) -> str:
    try:
        return summary(run)
    except STRANGE as error:
        run.notes.append(f"Summary: {_named(error)}")
        return "<section id='summary'></section>"


def _notes(run: RunRecord) -> str:
    told = "".join(paragraph(note, "note") for note in run.notes)
    return f"<section id='notes'>{told}</section>"


def _data(run: RunRecord) -> Section:
    made, tokenizer = data_section(run), tokenizer_part(run)
    return Section(made.name, made.title, made.how, [*made.parts, *([tokenizer] if tokenizer else [])])


def lineage_section(run: RunRecord) -> Section:
    outside = list(dict.fromkeys(name for stage in run.stages for name in stage.outside))
    boxes = [Box(name, "from outside", (), "made", "outside") for name in outside]
    boxes += [
        Box(stage.name, stage.status, tuple(stage_lines(stage)), f"stage-{stage.name}", _look(stage)) for stage in run.stages
    ]
    parents = {name: [] for name in outside} | {stage.name: [*stage.outside, *stage.parents] for stage in run.stages}
    older = [f"{stage.name}: {', '.join(stage.older)}" for stage in run.stages if stage.older]
    told = [paragraph(f"Also there, of other keys: {'; '.join(older)}")] if older else []
    return Section("lineage", "Lineage", LINEAGE, [draw(boxes, parents), *told])


def _look(stage: StageRecord) -> str:
    if stage.done:
        return ""
    return "at-work" if stage.running else "absent" if stage.status == NOT_BEGUN else "bad"
