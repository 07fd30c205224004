"""The report of a run: one page that opens from disk, and its figures as files."""

from collections.abc import Callable
from functools import partial
from html import escape
from typing import TYPE_CHECKING, TypeVar

from llmctl.page import whole_page
from llmctl.views.report.boxes import Box, draw
from llmctl.views.report.collect import NOT_BEGUN, RunRecord, StageRecord
from llmctl.views.report.data_sections import data_section
from llmctl.views.report.figures import inline
from llmctl.views.report.record_sections import made_section, samples_section, stages_section, warnings_section
from llmctl.views.report.score_figures import figure_makers
from llmctl.views.report.score_sections import bits_section, few_shot_section, long_section
from llmctl.views.report.section import Section, paragraph
from llmctl.views.report.style import STYLE
from llmctl.views.report.summary import lines, stage_lines, summary
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
Made = TypeVar("Made")
STRANGE = (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError)
"""What files of another version, or changed by hand, lead to."""


def figures(run: RunRecord) -> dict[str, "Figure"]:
    """All figures that there are numbers for, by name."""
    drawn = {name: guarded(run, f"the figure {name}", make, None) for name, make in figure_makers(run).items()}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def summary_lines(run: RunRecord) -> list[str]:
    """The summary in three lines of plain text."""
    return guarded(run, "the summary", partial(lines, run), [])


def make_page(run: RunRecord, drawings: dict[str, "Figure"], script: str = "") -> str:
    """The whole page as HTML."""
    drawn = {name: guarded(run, f"the figure {name}", partial(_inline, name, figure), "") for name, figure in drawings.items()}
    drawn = {name: part for name, part in drawn.items() if part}
    makers: dict[str, tuple[str, Callable[[], Section]]] = {
        "lineage": ("Lineage", partial(lineage_section, run)),
        "curves": ("Training curves", partial(curves_section, run, drawn)),
        "bits": ("Bits per byte", partial(bits_section, run, drawn)),
        "data": ("Data", partial(data_section, run)),
        "long": ("Longer context", partial(long_section, run, drawn)),
        "few-shot": ("Few-shot tasks", partial(few_shot_section, run, drawn)),
        "samples": ("Samples", partial(samples_section, run)),
        "speed": ("Time, speed and memory", partial(speed_section, run, drawn)),
        "warnings": ("Warnings", partial(warnings_section, run)),
        "stages": ("Stages and their logs", partial(stages_section, run)),
        "made": ("Versions, hardware, recipe", partial(made_section, run)),
    }
    sections = [
        guarded(run, title, make, Section("", [paragraph("See the notes at the top.")])).html(name, title)
        for name, (title, make) in makers.items()
    ]
    top = guarded(run, "the summary", partial(summary, run), "")
    links = [("summary", "Summary"), *((name, title) for name, (title, _) in makers.items())]
    nav = "".join(f"<a href='#{name}'>{escape(title)}</a>" for name, title in links)
    head = [f"<h1>Report of {escape(run.name)}</h1>", f"<nav>{nav}</nav>"]
    when = paragraph(f"Made {clock(run.read_at)} from {run.folder}{', which is being written' if run.running else ''}.", "how")
    notes = "".join(paragraph(note, "note") for note in run.notes)
    begin = f"<section id='summary'>{top}</section><section id='notes'>{notes}</section>"
    return whole_page(f"{run.name}: report", [*head, when, begin, *sections], STYLE, script)


def _inline(name: str, figure: "Figure") -> str:
    return inline(name, figure, TOLD.get(name, name.replace("-", " ")))


def guarded(run: RunRecord, what: str, make: Callable[[], Made], otherwise: Made) -> Made:
    """What is made; where the files that it is made from are not as this version writes them, `otherwise`, and a note of why."""
    try:
        return make()
    except STRANGE as error:
        note = f"{what}: the files are not as this version writes them ({type(error).__name__}: {error})"
        if note not in run.notes:
            run.notes.append(note)
        return otherwise


def lineage_section(run: RunRecord) -> Section:
    outside = list(dict.fromkeys(name for stage in run.stages for name in stage.outside))
    boxes = [Box(name, "from outside", (), "made", "outside") for name in outside]
    boxes += [
        Box(stage.name, stage.status, tuple(stage_lines(stage)), f"stage-{stage.name}", _look(stage)) for stage in run.stages
    ]
    parents = {name: [] for name in outside} | {stage.name: [*stage.outside, *stage.parents] for stage in run.stages}
    older = [f"{stage.name}: {', '.join(stage.older)}" for stage in run.stages if stage.older]
    told = [paragraph(f"Also there, of other keys: {'; '.join(older)}")] if older else []
    return Section(LINEAGE, [draw(boxes, parents), *told])


def _look(stage: StageRecord) -> str:
    if stage.done:
        return ""
    return "at-work" if stage.running else "absent" if stage.status == NOT_BEGUN else "bad"
