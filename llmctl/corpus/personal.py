"""corpus.mask: personal data in documents, found by patterns: e-mail addresses, IPv4 addresses, telephone numbers."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

BYTE = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
PATTERNS = {
    "email": re.compile(r"(?<![\w.+-])[A-Za-z0-9][\w.+-]*@(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)+[A-Za-z]{2,}(?![\w-])"),
    "ip": re.compile(rf"(?<![\d.])(?:{BYTE}\.){{3}}{BYTE}(?!\.?\d)"),
    "phone": re.compile(r"(?<![\w.+-])(?:\+\d{1,3}[ .-]?)?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}(?![\w-])"),
}
MASKS = {"email": "|||EMAIL_ADDRESS|||", "ip": "|||IP_ADDRESS|||", "phone": "|||PHONE_NUMBER|||"}
"""As Dolma writes them (Soldaini et al. 2024, arXiv 2402.00159)."""


def masked(text: str, kinds: Sequence[str], found: Counter[str]) -> str:
    """The text with masks in the place of what is found; `found` counts it, as "masked_" and the kind."""
    for kind in kinds:
        text, count = PATTERNS[kind].subn(MASKS[kind], text)
        found[f"masked_{kind}"] += count
    return text


def masked_turn(turn: dict[str, Any], kinds: Sequence[str], found: Counter[str]) -> dict[str, Any]:
    """The same of a conversation's turn: of what is said, thought and given to tools."""

    def mask(value: Any) -> Any:
        if isinstance(value, str):
            return masked(value, kinds, found)
        if isinstance(value, dict):
            return {key: mask(inner) for key, inner in value.items()}
        return [mask(inner) for inner in value] if isinstance(value, list) else value

    said = {key: mask(turn[key]) for key in ("content", "reasoning_content") if key in turn}
    if not turn.get("tool_calls"):
        return turn | said
    functions = [call["function"] | {"arguments": mask(call["function"]["arguments"])} for call in turn["tool_calls"]]
    calls = [call | {"function": function} for call, function in zip(turn["tool_calls"], functions, strict=True)]
    return turn | said | {"tool_calls": calls}
