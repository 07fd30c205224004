"""Cut a document at its natural breaks into sections, and regroup neighbouring sections to a few partitions.

Every cut keeps all of the text: the pieces joined are the document. Sizes are those of Olmo 3 (arXiv 2512.13961), where documents
of 32k to 64k tokens have 2 to 8 partitions of 8k to 32k tokens; shorter documents have smaller ones.
"""

import random
import re
from collections.abc import Iterator

LEAST_SECTION = 500  # characters, as Olmo 3
MOST_PARTITIONS = 8
LARGE_PARTITION = 32_768
"""Characters (about 8k tokens) from which on a partition need not be a quarter of the document."""
LINE = re.compile(r"[^\n]*\n|[^\n]+")
FENCE = re.compile(r"\s*```")
HEADER = re.compile(r"#{1,6} |([=\-~^\"'*+#])\1{2,}\s*$")
"""A header of Markdown, or the line below one of reStructuredText."""
CONTINUES = re.compile(r"[ \t]|[-*+•] |\(?\d{1,3}[.)] |\(?[a-z][.)] |\$\$|\\[\[a-z]|\|")
"""Begins an indented block, an item of a list, mathematics or a row of a table: what stands before it belongs to it."""


def sections(text: str) -> list[str]:
    """Pieces of at least 500 characters that begin after a blank line.

    Lists, code blocks and mathematics are not cut, and a header is not parted from what follows it. Where half of the document
    or more would be one piece, pieces begin after any line.
    """
    pieces = _cut(text, _blank_lines(text))
    return pieces if max(map(len, pieces)) < len(text) / 2 else _cut(text, _line_ends(text))


def _blank_lines(text: str) -> Iterator[int]:
    """Places behind blank lines where a section may begin."""
    place, fenced, blank, before = 0, False, False, ""
    lines = LINE.findall(text)
    paired = sum(FENCE.match(line) is not None for line in lines) % 2 == 0  # a fence that is never closed is none
    for line in lines:
        if not line.strip():
            blank = True
        else:
            opens = before.rstrip().endswith(":") or HEADER.match(before)
            if blank and not fenced and not opens and not CONTINUES.match(line):
                yield place
            fenced ^= paired and FENCE.match(line) is not None
            blank, before = False, line
        place += len(line)


def _line_ends(text: str) -> Iterator[int]:
    return (match.start() for match in re.finditer(r"(?<=\n)[^\n]", text))


def _cut(text: str, breaks: Iterator[int]) -> list[str]:
    edges = [0]
    for place in breaks:
        if place - edges[-1] >= LEAST_SECTION and len(text) - place >= LEAST_SECTION:
            edges.append(place)
    return [text[start:end] for start, end in zip(edges, [*edges[1:], len(text)], strict=True)]


def partitions(pieces: list[str], draw: random.Random) -> list[list[str]]:
    """Neighbouring sections in at most 8 groups; a single group where no cut is left.

    The least size of each is drawn evenly between a bound and half of the document. The bound is a quarter of the document, and
    from 32,768 characters on no more than that, but at least an eighth, so that there are 8 partitions at most.
    """
    total = sum(map(len, pieces))
    lower = max(total / MOST_PARTITIONS, min(LARGE_PARTITION, total / 4))
    groups: list[list[str]] = [[]]
    target = draw.uniform(lower, total / 2)
    for piece in pieces:
        if groups[-1] and sum(map(len, groups[-1])) >= target:
            groups.append([])
            target = draw.uniform(lower, total / 2)
        groups[-1].append(piece)
    if len(groups) > 2 and sum(map(len, groups[-1])) < lower:
        rest = groups.pop()
        groups[-1] += rest
    return groups


def woven(parts: list[str], tasks: list[str]) -> str:
    """The parts with each one's task right behind it, blank lines between them. An empty task adds nothing."""
    pieces = []
    for number, (part, task) in enumerate(zip(parts, tasks, strict=True)):
        pieces.append(part)
        if task:
            lacking = "\n" * max(0, 2 - (len(part) - len(part.rstrip("\n"))))
            pieces.append(lacking + task + ("\n\n" if number < len(parts) - 1 else "\n"))
    return "".join(pieces)
