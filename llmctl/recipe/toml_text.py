"""Tables of a recipe as commented TOML: the standard library reads TOML and writes none."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

BARE = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Key:
    name: str
    value: Any
    comment: str = ""
    """Stands above the key; one line each."""


@dataclass(frozen=True, slots=True)
class Part:
    """A table with its keys, or, without a name, keys at the top."""

    name: str
    keys: Sequence[Key]
    comment: str = ""


def toml_text(head: str, parts: Sequence[Part]) -> str:
    """A file that begins with a comment and has these tables."""
    return "\n\n".join([commented(head), *(part_text(part) for part in parts)]) + "\n"


def part_text(part: Part) -> str:
    lines = [commented(part.comment)] * bool(part.comment)
    lines += [f"[{part.name}]"] * bool(part.name)
    for key in part.keys:
        lines += [commented(key.comment)] * bool(key.comment)
        lines.append(f"{key.name} = {written(key.value)}")
    return "\n".join(lines)


def commented(text: str) -> str:
    return "\n".join(f"# {line}".rstrip() for line in text.splitlines())


def written(value: Any) -> str:
    """A plain value as TOML has it."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key_text(key)} = {written(inner)}' for key, inner in value.items())} }}" if value else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(written, value))}]"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:_}" if value >= 10_000 else str(value)
    if isinstance(value, float):
        text = repr(value)
        return text if any(mark in text for mark in ".einf") else f"{text}.0"
    # JSON's strings are TOML's, but for the delete character, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def key_text(name: str) -> str:
    return name if BARE.fullmatch(name) else written(name)
