"""Documents and conversations as people read them."""

import json
from collections.abc import Iterator
from typing import Any


def shown_text(row: dict[str, Any]) -> str:
    """The text of a document; of a conversation the tools by name, and the turns with their thoughts and calls."""
    return row.get("text") or "\n".join([*_tools(row), *(line for turn in row["messages"] for line in _lines(turn))])


def _tools(row: dict[str, Any]) -> list[str]:
    names = [str(tool.get("function", tool).get("name")) for tool in row.get("tools") or ()]
    return [f"tools: {', '.join(names)}"] if names else []


def _lines(turn: dict[str, Any]) -> Iterator[str]:
    """A turn with what is thought before it, and what it asks of tools."""
    if turn.get("reasoning_content"):
        yield f"{turn['role']} thinks: {turn['reasoning_content']}"
    calls = turn.get("tool_calls") or ()
    if turn.get("content") or not calls:
        name = f" {turn['name']}" if turn.get("name") else ""
        yield f"{turn['role']}{name}: {turn.get('content') or ''}"
    for call in calls:
        yield f"{turn['role']} calls {call['function']['name']}: {json.dumps(call['function']['arguments'], ensure_ascii=False)}"
