"""`llmctl inspect sft`: what is trained of conversations, in the terminal and as a page."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from html import escape
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmctl.page import table, whole_page
from llmctl.runs.files import write_text
from llmctl.stages.talk_rows import Inspected, Part, ShownRow, ShownTalk, SourceCount

STYLES = {"masked": "dim", "content": "green", "closing": "bold green"}
CSS = """
.row { border: 1px solid var(--faint); border-radius: 6px; margin: 1rem 0; overflow: hidden }
.row > p { margin: 0; padding: .3rem .6rem; background: var(--soft) }
.talk { border-top: 1px dashed var(--faint); padding: .3rem .6rem } .talk > p { margin: 0; font-size: .8rem; opacity: .7 }
.talk pre { background: none; max-height: none; padding: 0; margin: .2rem 0 } .masked { opacity: .5 } .content { color: #1a7f37 }
.closing { color: #1a7f37; font-weight: bold } .special { border: 1px solid var(--faint); border-radius: 3px }
@media (prefers-color-scheme: dark) { .content, .closing { color: #5fd07a } }
.dead { border-left: 4px solid #c0504d; padding-left: .6rem }
"""
COLUMNS = ("source", "conversations", "kept", "held out", "tokens", "trained", "rows", "padding")


def show_talks(found: Inspected, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(found) | {"dead": found.dead}, ensure_ascii=False))
        return
    console = Console()
    for row in found.rows:
        console.print(Text(row_line(row, found.seq_len), style="bold"))
        for talk in row.talks:
            console.print(Text(f"── {talk_line(talk)}", style="cyan"))
            text = Text()
            for part in talk.parts:
                text.append(visible(part), style=STYLES[part.kind] + (" underline" if part.special else ""))
            text.rstrip()
            console.print(text)
        if row.padding:
            console.print(Text(f"── padding: {row.padding:,} tokens", style="cyan"))
        console.print()
    summary = Table(box=None, pad_edge=False, title=f"{found.stage}: template {found.template}", title_justify="left")
    for number, column in enumerate(COLUMNS):
        summary.add_column(column, justify="right" if number else "left")
    for count in found.sources:
        summary.add_row(*cells(count))
    console.print(summary)
    for line in reasons(found):
        print(line)
    for number, finding in enumerate(found.findings, 1):
        console.print(Text(f"{number}. {finding}", style="red" if finding.dead else "yellow"))
    print(verdict(found))


def verdict(found: Inspected) -> str:
    if found.dead:
        return f"{found.stage}: not fit to be trained on"
    return f"{found.stage}: fit to be trained on{', with the warnings above' if found.findings else ''}"


def row_line(row: ShownRow, seq_len: int) -> str:
    trained = sum(talk.trained for talk in row.talks)
    talks = f"{len(row.talks)} conversation{'' if len(row.talks) == 1 else 's'}"
    return f"{row.source}, row {row.number:,}: {talks}, {trained:,} of {seq_len:,} tokens trained ({trained / seq_len:.1%})"


def talk_line(talk: ShownTalk) -> str:
    return f"{talk.place or talk.name}: {talk.tokens:,} tokens, {talk.trained:,} trained"


def visible(part: Part) -> str:
    """The text; line ends of a special token are shown, too."""
    return part.text.replace("\n", "\\n") if part.special else part.text


def cells(count: SourceCount) -> tuple[str, ...]:
    share = f"{count.trained / max(1, count.tokens):.1%}"
    whole = (count.conversations, count.kept, count.heldout, count.tokens)
    return (count.source, *(f"{number:,}" for number in whole), share, f"{count.rows:,}", f"{count.padding:.1%}")


def reasons(found: Inspected) -> Iterator[str]:
    for count in found.sources:
        for reason, (rows, places) in count.reasons.items():
            yield f"{count.source}: {rows:,} {reason} ({', '.join(places)}{', ...' if rows > len(places) else ''})"


def write_talks(found: Inspected, file: Path) -> None:
    """The same as a page of its own."""
    parts = [f"<h1>Conversations of {escape(found.stage)}</h1>", f"<p>Template: {escape(found.template)}. <span class='content'>"]
    parts += ["trained</span>, <span class='closing'>closing token</span>, <span class='masked'>masked</span>, "]
    parts += [f"<span class='special'>special token</span>.</p><p>{escape(verdict(found))}</p>"]
    parts += [table(COLUMNS, [cells(count) for count in found.sources])]
    parts += [f"<p>{escape(line)}</p>" for line in reasons(found)]
    for finding in found.findings:
        parts.append(f"<pre class='{'dead' if finding.dead else ''}'>{escape(str(finding))}</pre>")
    parts += [_row(row, found.seq_len) for row in found.rows]
    write_text(file, whole_page(f"{found.stage}: conversations", parts, CSS))


def _row(row: ShownRow, seq_len: int) -> str:
    talks = "".join(
        f"<div class='talk'><p>{escape(talk_line(talk))}</p><pre>{''.join(map(_span, talk.parts))}</pre></div>"
        for talk in row.talks
    )
    padding = f"<div class='talk'><p>padding: {row.padding:,} tokens</p></div>" if row.padding else ""
    return f"<div class='row'><p>{escape(row_line(row, seq_len))}</p>{talks}{padding}</div>"


def _span(part: Part) -> str:
    return f"<span class='{part.kind}{' special' if part.special else ''}'>{escape(visible(part))}</span>"
