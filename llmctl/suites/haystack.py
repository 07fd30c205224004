"""Filler text as tokens, and lines hidden in it at a depth: the haystack of needle tests."""

import random
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import Any

from llmctl.suites.words import sentences

SENTENCES = 2000
NEAR = 32  # tokens: a line of code or two


class Haystack:
    """Tokens of texts one after the other, from the first on until there are `tokens` of them, then again from the first.

    Without texts, or where they are blank, generated sentences take their place.
    """

    def __init__(self, tokenizer: Any, texts: Iterable[str], tokens: int) -> None:
        self.generated = False
        self.tokens = self._read(tokenizer, texts, tokens)
        if not self.tokens:
            self.generated = True
            self.tokens = self._read(tokenizer, [sentences(SENTENCES, 0)], tokens)
        self.tokens *= -(-tokens // len(self.tokens))
        begins_line = {token: tokenizer.decode([token]).startswith("\n") for token in set(self.tokens)}
        self.breaks = [place for place, token in enumerate(self.tokens) if begins_line[token]]
        """Places of the tokens that begin with a line break: what is put before them ends a line."""

    @staticmethod
    def _read(tokenizer: Any, texts: Iterable[str], tokens: int) -> list[int]:
        found: list[int] = []
        for text in texts:
            if text.strip():
                found += tokenizer("\n" + text.strip("\n"), add_special_tokens=False)["input_ids"]
            if len(found) >= tokens:
                break
        return found

    def piece(self, length: int, chance: random.Random) -> tuple[list[int], list[int]]:
        """`length` tokens from anywhere that end with a line where there is one, and where lines end in them."""
        if length <= 0:
            return [], []
        ends = self.breaks[bisect_left(self.breaks, length) :]
        end = chance.choice(ends) if ends else chance.randrange(length, len(self.tokens) + 1)
        start = end - length
        inside = self.breaks[bisect_right(self.breaks, start) : bisect_left(self.breaks, end)]
        return self.tokens[start:end], [place - start for place in inside]

    def hide(self, lines: list[tuple[float, list[int]]], length: int, chance: random.Random) -> list[int]:
        """`length` tokens of filler with `lines` among them: each begins with a line break, and is put where a line ends near
        its depth (0: before all, 1: after all)."""
        filler, ends = self.piece(length, chance)
        placed = sorted(((place(depth, length, ends), line) for depth, line in lines), key=lambda pair: pair[0])
        found, at = [], 0
        for where, line in placed:
            found += filler[at:where] + line
            at = where
        return found + filler[at:]


def place(depth: float, length: int, ends: list[int]) -> int:
    """Where in `length` tokens a depth is: at the end of a line, if one is nearer than 2 % of them or `NEAR`."""
    wanted = round(depth * length)
    at = bisect_left(ends, wanted)
    nearest = min([0, length, *ends[max(0, at - 1) : at + 1]], key=lambda end: abs(end - wanted))
    return nearest if abs(nearest - wanted) <= max(NEAR, length // 50) else wanted
