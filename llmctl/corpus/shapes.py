"""Rows as conversations: the shapes that people keep chat data in, told by their fields."""

from typing import Any

ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
KNOWN = (
    "messages = [{role, content}], conversations = [{from, value}], prompt + response (or completion), question + answer, "
    "instruction + output (+ input)"
)


def as_messages(row: dict[str, Any]) -> list[dict[str, str]] | None:
    """Role and content of every turn, or None where the row is of no known shape or lacks an answer."""
    turns = row.get("messages") or row.get("conversations")
    if isinstance(turns, list):
        messages = [
            {
                "role": ROLES.get(str(t.get("role") or t.get("from")), str(t.get("role") or t.get("from"))),
                "content": str(t.get("content") if t.get("content") is not None else t.get("value") or ""),
            }
            for t in turns
            if isinstance(t, dict)
        ]
    else:
        question, answer = _pair(row)
        if question is None or answer is None:
            return None
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    answered = any(m["role"] == "assistant" and m["content"].strip() for m in messages)
    return messages if answered and all(m["role"] != "None" for m in messages) else None


def _pair(row: dict[str, Any]) -> tuple[str | None, str | None]:
    if "instruction" in row and "output" in row:
        extra = row.get("input")
        return f"{row['instruction']}\n\n{extra}" if extra else str(row["instruction"]), str(row["output"])
    for question in ("prompt", "question"):
        for answer in ("response", "completion", "answer"):
            if row.get(question) is not None and row.get(answer) is not None:
                return str(row[question]), str(row[answer])
    return None, None
