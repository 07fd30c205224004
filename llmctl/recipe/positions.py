"""Keys of nested tables, and where each stands in a TOML text: the standard parser keeps no line numbers."""

import re
from collections.abc import Iterator
from typing import Any

KEY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")
HEADER = re.compile(r"\s*\[\[?\s*([^\]]+?)\s*\]\]?\s*(?:#.*)?$")
STRING = re.compile(r'"""(?:[^\\]|\\.)*?"""|\'\'\'.*?\'\'\'|"(?:[^"\\]|\\.)*"|\'[^\']*\'|#[^\n]*', re.DOTALL)

Key = tuple[str, ...]


def parts(dotted: str) -> Key:
    """The keys of `a."b.c".d`."""
    return tuple(key.strip("\"' ") for key in re.findall(r"\"[^\"]*\"|'[^']*'|[^.\s]+", dotted))


def leaves(values: Any, above: Key = ()) -> Iterator[tuple[Key, Any]]:
    """The innermost values of nested tables, by their keys."""
    if isinstance(values, dict) and values:
        for key, value in values.items():
            yield from leaves(value, (*above, str(key)))
    else:
        yield above, values


def lines_of_keys(text: str) -> dict[Key, int]:
    """Line (from 1) of every table header and key; keys inside an inline table stand where they are written."""
    # Strings and comments may hold brackets and equals signs: blank them out, newlines kept.
    blanked = STRING.sub(lambda m: re.sub(r"[^\n]", " ", m[0]) if m[0][0] == "#" else re.sub(r"[^\n\"']", "_", m[0]), text)
    written = text.splitlines()
    found: dict[Key, int] = {}
    table: Key = ()
    depth = 0
    for number, line in enumerate(blanked.splitlines(), 1):
        if depth == 0 and HEADER.match(line):
            table = parts(written[number - 1].strip().strip("[]").split("]")[0])
            found.setdefault(table, number)
            continue
        if depth == 0 and (match := KEY.match(line)):
            original = written[number - 1]  # as long as the blanked line, with the quoted keys still in it
            key = table + parts(original[match.start(1) : match.end(1)])
            found[key] = number
            rest = line[match.end() :].replace("{", " ").replace(",", " ")
            for inner in KEY.finditer(rest):
                name = original[match.end() + inner.start(1) : match.end() + inner.end(1)]
                found.setdefault(key + parts(name), number)
        depth += sum(line.count(c) for c in "[{") - sum(line.count(c) for c in "]}")
        depth = max(0, depth)
    return found
