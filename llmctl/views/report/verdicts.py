"""Whether a run is good: its models against a compressor, their parents and chance; and what is to be looked at."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from llmctl.evals.guard import INTERVAL
from llmctl.views.report.collect import NOT_BEGUN, RunRecord, StageRecord
from llmctl.views.report.reading import inner_rows, number
from llmctl.views.report.scores import bits_of, checkpoints, compressors, needle_maps, task_scores
from llmctl.views.report.wording import change, several
from llmctl.wording import gib, lasted

SAME = 0.005  # share of the parent's bits per byte below which a change is none: there is no error to hold it against
FAR = 2.0  # ratio of predicted and measured from which they disagree
MANY_LEFT_OUT = 0.01  # share of the steps
SLOWED = 0.5  # of the highest speed
ROSE = 1.02  # of the lowest held-out loss
UNENDED = 0.5  # share of answers that do not end
FORETOLD = {
    "seconds": ("its steps took", lasted),  # which says what tokens per second would
    "memory_bytes": ("its memory was", lambda value: f"{gib(value)} GiB"),
}

Word = Literal["better", "worse", "no clear difference"]
Level = Literal["wrong", "look"]


@dataclass(frozen=True, slots=True)
class Verdict:
    what: str
    ours: str
    against: str
    theirs: str
    word: Word
    section: str


@dataclass(frozen=True, slots=True)
class Finding:
    level: Level
    text: str
    section: str


def verdicts(run: RunRecord) -> list[Verdict]:
    return [*_of_bits(run), *_of_answers(run), *_of_needles(run), *_of_tasks(run)]


def _word(difference: float, lower_is_better: bool = True) -> Word:
    if not difference:
        return "no clear difference"
    return "better" if (difference < 0) == lower_is_better else "worse"


def _of_bits(run: RunRecord) -> Iterator[Verdict]:
    rows = bits_of(run)
    of_reference = [row for row in rows if row.reference]
    for told, value in compressors(run).items():
        if of_reference:
            last = of_reference[-1]
            what = f"bits per byte of {last.stage} on held-out {last.source}"
            yield Verdict(what, f"{last.after:.3f}", told, f"{value:.3f}", _word(last.after - value), "bits")
    for row in rows:
        if row.before is not None and row.change is not None:
            word = _word(row.change if abs(row.change) >= SAME else 0.0)
            what = f"bits per byte of {row.stage} on held-out {row.source}"
            theirs = f"{row.before:.3f} ({change(row.before, row.after)})"
            yield Verdict(what, f"{row.after:.3f}", "its parent", theirs, word, "bits")


def _of_answers(run: RunRecord) -> Iterator[Verdict]:
    for stage in run.of_kind("sft", "lora"):
        for what in ("loss on held-out answers", "answers that end"):
            before, after = (stage.metrics.get(f"{what}/{when}") for when in ("before", "after"))
            if before is not None and after is not None:
                shown = (f"{one:.3f}" if what.startswith("loss") else f"{one:.0%}" for one in (after, before))
                word = _word(after - before, what.startswith("loss"))
                yield Verdict(f"{what}, {stage.name}", next(shown), "its parent", next(shown), word, "samples")


def _of_needles(run: RunRecord) -> Iterator[Verdict]:
    for stage in run.stages:
        cells = needle_maps(stage.long).get("after", {})
        longest = [cell for (_, length), cell in cells.items() if length == max(at for _, at in cells)]
        if longest:
            questions = sum(cell.questions for cell in longest)
            found = sum(cell.questions * cell.chosen for cell in longest) / questions
            error, chance = math.sqrt(longest[0].chance * (1 - longest[0].chance) / questions), longest[0].chance
            clear = abs(found - chance) > INTERVAL * error
            what = f"needles found by {stage.name} at its full context, of {questions}"
            word = _word(found - chance if clear else 0.0, lower_is_better=False)
            yield Verdict(what, f"{found:.0%}", "chance", f"{chance:.0%}", word, "long")


def _of_tasks(run: RunRecord) -> Iterator[Verdict]:
    for stage in run.stages:
        scores = task_scores(stage)
        for checkpoint in checkpoints(scores):
            own = [score for score in scores if score.checkpoint == checkpoint]
            guessable = [score for score in own if not math.isnan(score.value("chance"))]
            above = sum(score.above_chance for score in guessable)
            if guessable:
                word = _word(float(above), lower_is_better=False)
                ours = f"{above} of {len(guessable)} clearly above"
                yield Verdict(f"few-shot tasks, {checkpoint}", ours, "chance", "none", word, "few-shot")
            better, worse = (sum(score.verdict == word for score in own) for word in ("better", "worse"))
            if parent := next((score.row["compared_with"] for score in own if score.row.get("compared_with")), None):
                word = _word(float(better - worse), lower_is_better=False)
                told = f"clearly better in {better}, worse in {worse} of {len(own)}"
                yield Verdict(f"few-shot tasks, {checkpoint}", told, f"its parent {parent}", "", word, "few-shot")


def findings(run: RunRecord) -> list[Finding]:
    """What is wrong, and then what to look at first."""
    smoke = "A --smoke run: it shows that every stage works, and its models have hardly been trained."
    found = [
        *([Finding("look", smoke, "made")] if run.recipe.get("smoke") else []),
        *(Finding("wrong", f"Not everything could be read: {note}", "notes") for note in run.notes),
        *(one for stage in run.stages for one in _of_stage(stage)),
        *_not_begun(run),
        *_of_verdicts(run),
    ]
    return sorted(found, key=lambda one: one.level != "wrong")


def _not_begun(run: RunRecord) -> Iterator[Finding]:
    names = [stage.name for stage in run.stages if stage.status == NOT_BEGUN]
    if names and not run.running:
        yield Finding("look", f"Not begun yet: {', '.join(names)}; the command that began the run goes on with it.", "lineage")


def _of_stage(stage: StageRecord) -> Iterator[Finding]:
    if not stage.done and not stage.running and stage.status != NOT_BEGUN:
        yield Finding("wrong", f"{stage.name} is not finished: {stage.status}.", f"stage-{stage.name}")
    if stage.warnings:
        told = f"{stage.name} gave {several(len(stage.warnings), 'warning')}: {shortened(stage.warnings[-1].get('text'))}"
        yield Finding("look", told, "warnings")
    left_out = sum(bool(step.get("left_out")) for step in stage.steps)
    if stage.steps and left_out > MANY_LEFT_OUT * len(stage.steps):
        share = f"{left_out / len(stage.steps):.1%}"
        yield Finding("look", f"{stage.name} left out {left_out:,} of {len(stage.steps):,} steps ({share}).", "curves")
    yield from _of_curves(stage)
    for row in inner_rows(stage.long, "guard"):
        if row.get("verdict") == "worse":
            values = f"{row.get('before'):.3f} -> {row.get('after'):.3f}"
            yield Finding("wrong", f"{stage.name} has lost at the short context: {row.get('measure')} {values}.", "long")
    for what, (named, written) in FORETOLD.items():
        predicted, measured = (stage.metrics.get(f"{one}/{what}") for one in ("predicted", "measured"))
        if predicted and measured and not 1 / FAR < measured / predicted < FAR:
            told = f"{stage.name}: {named} {written(measured)}, and {written(predicted)} were predicted."
            yield Finding("look", told, "speed")
    ended = stage.metrics.get("answers that end/after", 1.0)
    if ended < UNENDED:
        yield Finding("look", f"Of the answers of {stage.name} only {ended:.0%} end by themselves.", "samples")


def _of_curves(stage: StageRecord) -> Iterator[Finding]:
    heldout = [loss for line in stage.measured if (loss := number(line.get("heldout_loss"))) is not None]
    if heldout and heldout[-1] > ROSE * min(heldout):
        told = (
            f"{stage.name} ended with a held-out loss of {heldout[-1]:.3f} and had {min(heldout):.3f} before: it learnt by heart."
        )
        yield Finding("wrong", told, "curves")
    speeds = [speed for step in stage.steps if (speed := number(step.get("tokens_per_second")))]
    if speeds and speeds[-1] < SLOWED * max(speeds):
        told = f"{stage.name} slowed down from {max(speeds):,.0f} to {speeds[-1]:,.0f} tokens/s: did others use the machine?"
        yield Finding("look", told, "speed")


def shortened(text: object, longest: int = 160) -> str:
    told = str(text)
    return told if len(told) <= longest else f"{told[: longest - 1]}…"


def _of_verdicts(run: RunRecord) -> Iterator[Finding]:
    found = verdicts(run)
    for one in found:
        if one.word == "worse":
            theirs = f": {one.theirs}" if one.theirs else ""
            told = f"{one.what}: {one.ours}; {one.against}{theirs}."
            # A small model seldom compresses better than xz with all of the training text at hand.
            yield Finding("look" if run.recipe.get("smoke") or one.against.startswith("xz") else "wrong", told, one.section)
    of_tasks = [one for one in found if one.section == "few-shot" and one.against == "chance"]
    if of_tasks and of_tasks[-1].word != "better":
        yield Finding("look", "On few-shot tasks the last checkpoint cannot be told from guessing.", "few-shot")
