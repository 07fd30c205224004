"""`answers.html` and `answers.json`: held-out questions with the expected answer, the parent's and the model's own."""

from html import escape
from typing import Any

from llmctl import events
from llmctl.corpus.shown import shown_text
from llmctl.evals.answers import Asked
from llmctl.model.generate import Generation
from llmctl.page import whole_page
from llmctl.runs.files import write_json, write_text
from llmctl.stages.training import ANSWERS, Stage

STYLE = """
h2 { font-size: 1rem } .unended::after { content: " …"; opacity: .6 }
dt { font-size: .8rem; opacity: .7; margin-top: .4rem } dd { margin: 0 } dd pre { margin: .1rem 0 }
"""


def write_answers(stage: Stage, asked: list[Asked], before: list[Generation], after: list[Generation]) -> None:
    """Write the first answers of a stage beside those of its parent into the stage's folder."""
    count = stage.recipe.eval.shown_answers
    rows = [_row(*found) for found in list(zip(asked, before, after, strict=True))[:count]]
    if not rows:
        return
    page, plain = (stage.folder / name for name in ANSWERS)
    write_json(plain, rows)
    write_text(page, whole_page(f"{stage.name}: answers", _parts(stage, rows), STYLE))
    events.say(f"{stage.name}: {len(rows)} held-out questions with answers before and after: {page}")


def _row(asked: Asked, before: Generation, after: Generation) -> dict[str, Any]:
    return {
        "id": asked.conversation.id,
        "question": asked.question,
        "expected": asked.expected,
        "before": {"text": before.text, "ended": before.ended},
        "after": {"text": after.text, "ended": after.ended},
    }


def _parts(stage: Stage, rows: list[dict[str, Any]]) -> list[str]:
    parent = stage.parent.stage if stage.parent is not None else str(stage.parent_model)
    parts = [f"<h1>Answers of {escape(stage.name)}</h1>", "<p>To held-out questions; an answer without an end goes on: …</p>"]
    for number, row in enumerate(rows, 1):
        parts.append(f"<h2>{number}. {escape(row['id'])}</h2><dl>")
        parts.append(_entry("asked", shown_text({"messages": row["question"]}), ended=True))
        parts.append(_entry("expected", row["expected"], ended=True))
        parts.append(_entry(parent, row["before"]["text"], row["before"]["ended"]))
        parts.append(_entry(stage.name, row["after"]["text"], row["after"]["ended"]) + "</dl>")
    return parts


def _entry(name: str, text: str, ended: bool) -> str:
    kind = "" if ended else " class='unended'"
    return f"<dt>{escape(name)}</dt><dd><pre{kind}>{escape(text)}</pre></dd>"
