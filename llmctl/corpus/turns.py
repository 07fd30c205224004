"""Turns of a conversation: roles by their many names, content, thinking, and the order that turns may have."""

import json
from difflib import get_close_matches
from typing import Any

from llmctl.corpus.tool_calls import RowFault, calls_of, kind_of

Message = dict[str, Any]

CALLS = ("function_call", "tool_call")
"""Roles of ShareGPT's turns whose text is a call."""
ROLES = {
    **{name: name for name in ("system", "user", "assistant", "tool")},
    **dict.fromkeys(("developer", "system_prompt"), "system"),
    **dict.fromkeys(("human", "prompter"), "user"),
    **dict.fromkeys(("gpt", "bot", "model", "chatgpt", "ai", *CALLS), "assistant"),
    **dict.fromkeys(("function", "observation", "environment", "ipython", "function_response", "tool_response"), "tool"),
}
"""Names of roles in the field: OpenAI, ShareGPT, LLaMA-Factory, Open Assistant, Gemma, Llama 3, Olmo."""
THINKING = ("reasoning_content", "thinking", "reasoning")
TEXT_PARTS = ("text", "input_text", "output_text")


def message_of(turn: Any, number: int, role_key: str, content_key: str) -> Message:
    """Turn `number` (from 1) as `Conversation` keeps it.

    Raises:
        RowFault: it is none.
    """
    if not isinstance(turn, dict):
        raise RowFault("turn that is no object", f"turn {number} is {kind_of(turn)}; expected {{{role_key}, {content_key}}}")
    name = turn.get(role_key)
    if name is None:
        what = "is null" if role_key in turn else f"is missing (it has {', '.join(map(str, turn)) or 'nothing'})"
        raise RowFault("turn without a role", f"turn {number}: {role_key!r} {what}; expected who speaks")
    role = role_of(name, number)
    if name in CALLS:
        return {"role": role, "content": "", "tool_calls": calls_of(turn.get(content_key), number)}
    calls = turn.get("tool_calls") or turn.get("function_call") or turn.get("function_calls")
    if turn.get(content_key) is None and not (role == "assistant" and calls):
        what = "is null" if content_key in turn else f"is missing (it has {', '.join(map(str, turn))})"
        raise RowFault("null field", f"turn {number} ({role}): {content_key!r} {what}; expected text")
    message: Message = {"role": role, "content": text_of(turn.get(content_key), role, number)}
    if role == "assistant":
        thought = next((turn[key] for key in THINKING if turn.get(key)), None)
        if thought is not None:
            message["reasoning_content"] = text_of(thought, role, number)
        if calls:
            message["tool_calls"] = calls_of(calls, number)
    if role == "tool":
        message |= {key: str(turn[key]) for key in ("name", "tool_call_id") if turn.get(key)}
    return message


def role_of(name: Any, number: int) -> str:
    """Raises:
    RowFault: a role of no known name.
    """
    role = ROLES.get(name.strip().lower()) if isinstance(name, str) else None
    if role is None:
        near = get_close_matches(str(name).lower(), ROLES, n=1)
        meant = f"did you mean {near[0]!r}? Known" if near else "known"
        raise RowFault("unknown role", f"turn {number} has the role {name!r}; {meant} are system, user, assistant, tool")
    return role


def text_of(content: Any, role: str, number: int) -> str:
    """Content as text: its parts joined by line breaks, and what a tool returns as JSON where it is no text.

    Raises:
        RowFault: it holds what is no text.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(
        isinstance(part, str) or (isinstance(part, dict) and "type" in part) for part in content
    ):
        return "\n".join(_part(part, role, number) for part in content)
    if role == "tool":
        return json.dumps(content, ensure_ascii=False)
    raise RowFault("wrong type", f"turn {number} ({role}): the content is {kind_of(content)}; expected text")


def _part(part: str | dict[str, Any], role: str, number: int) -> str:
    if isinstance(part, str):
        return part
    if part["type"] not in TEXT_PARTS:
        name = str(part["type"]).removesuffix("_url")
        raise RowFault(
            f"{name} part", f"turn {number} ({role}) holds a part of type {part['type']!r}; expected parts of text alone"
        )
    if not isinstance(part.get("text"), str):
        raise RowFault("wrong type", f"turn {number} ({role}): a part of text is {kind_of(part.get('text'))}; expected text")
    return part["text"]


def in_order(messages: list[Message]) -> list[Message]:
    """The turns up to the last answer.

    Raises:
        RowFault: turns that follow each other as they must not, or a turn that answers nothing.
    """
    before = ""
    for number, message in enumerate(messages, 1):
        role = message["role"]
        if role == "system" and number > 1:
            raise RowFault("system turn not first", f"turn {number} is of the system; expected it as the first alone")
        if role == before and role in ("user", "assistant"):
            raise RowFault(
                f"two {role} turns in a row",
                f"turns {number - 1} and {number} are both {role}; expected user and assistant in turn",
            )
        if role == "tool" and before not in ("assistant", "tool"):
            raise RowFault("tool turn without a call", f"turn {number} is a tool's; expected an assistant's turn before it")
        if role == "assistant" and not message["content"].strip() and not message.get("tool_calls"):
            raise RowFault("empty answer", f"turn {number} (assistant) is empty; expected text or tool calls")
        before = role
    answers = [number for number, message in enumerate(messages, 1) if message["role"] == "assistant"]
    if not answers:
        roles = ", ".join(message["role"] for message in messages)
        raise RowFault("no answer", f"no conversation with an answer: its turns are {roles}; expected an assistant's turn")
    return messages[: answers[-1]]
