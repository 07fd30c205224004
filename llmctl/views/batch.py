"""`llmctl inspect batch`: the documents of a step."""

import json
from dataclasses import asdict

from rich.console import Console
from rich.text import Text

from llmctl.stages.batches import ShownRow

SHOWN = 160  # characters of a document


def show_batch(rows: list[ShownRow], as_json: bool) -> None:
    if as_json:
        for row in rows:
            print(json.dumps(asdict(row), ensure_ascii=False))
        return
    console = Console()
    for row in rows:
        console.print(Text(f"row {row.position:,}, {row.source}: {row.supervised:,} tokens to learn from", style="bold"))
        for piece in row.pieces:
            last = piece.first + piece.tokens
            part = "" if piece.tokens == piece.of else f", tokens {piece.first:,} to {last:,} of {piece.of:,}"
            name = piece.document or "a document without a name"
            console.print(Text(f"  {name} ({piece.path}): {piece.tokens:,} tokens{part}", style="dim"))
            text = " ".join(piece.text.split())
            console.print(Text(f"    {text[:SHOWN]}{'…' if len(text) > SHOWN else ''}"))
