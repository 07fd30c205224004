"""Phrases that several sections of a document share, by tf-idf."""

import math
import random
import re
from collections import Counter, defaultdict
from dataclasses import dataclass

from llmctl.corpus.synthesis.words import is_stop_word

TOKEN = re.compile(r"\w+(?:[-'’]\w+)*")  # a compound is one word: half of it makes no phrase
SHORTEST_WORD = 4  # letters
LENGTHS = range(2, 6)  # words of a phrase, as Olmo 3
TOP, DRAWN = 20, 10
MOST_SECTIONS = 8  # for each phrase; Olmo 3's report has 8


@dataclass(frozen=True, slots=True)
class Phrase:
    text: str
    """As it stands where it is first met."""
    sections: list[int]
    """Up to eight sections that have it, those in which it weighs most, in the order of the document."""


def shared_phrases(pieces: list[str], draw: random.Random) -> list[Phrase]:
    """Up to ten, drawn from the twenty that weigh most among those in two sections and more.

    A phrase is of 2 to 5 words that stand next to each other in the text, each of four letters and more and no stop word. Its
    weight in a section is tf-idf with ln((1 + n) / (1 + df)) + 1, the section's vector scaled to length one; its weight is the
    sum over sections. Of phrases within one another, the one that weighs most is taken.
    """
    counts = [Counter(_keys(piece)) for piece in pieces]
    frequency = Counter(key for count in counts for key in count)
    weights = [_normalised(count, frequency, len(pieces)) for count in counts]
    totals: defaultdict[str, float] = defaultdict(float)
    for weight in weights:
        for key, value in weight.items():
            if frequency[key] > 1:
                totals[key] += value
    top: list[str] = []
    # Of equals the longer: "single-line strings" rather than its parts, where they never stand alone.
    for key, _ in sorted(totals.items(), key=lambda item: (-round(item[1], 9), -item[0].count(" "), item[0])):
        if not any(f" {key} " in f" {other} " or f" {other} " in f" {key} " for other in top):
            top.append(key)
        if len(top) == TOP:
            break
    chosen = draw.sample(top, min(DRAWN, len(top)))
    return [Phrase(_as_written(key, pieces), _heaviest(key, weights)) for key in chosen]


def pattern(phrase: str) -> re.Pattern[str]:
    """Finds a phrase in text, whatever its case and the white space between its words."""
    words = r"\s+".join(map(re.escape, phrase.split()))
    return re.compile(rf"\b{words}\b", re.IGNORECASE)


def _keys(piece: str) -> list[str]:
    """The phrases of a section in lower case, each as often as it stands there."""
    keys: list[str] = []
    run: list[str] = []
    end = 0
    for match in TOKEN.finditer(piece):
        word, gap = match[0].lower(), piece[end : match.start()]
        end = match.end()
        if not gap.isspace() or gap.count("\n") > 1:
            run = []
        if len(word) < SHORTEST_WORD or not word.replace("-", "").isalpha() or is_stop_word(word):
            run = []
            continue
        run = [*run, word][-LENGTHS[-1] :]
        keys += [" ".join(run[-length:]) for length in LENGTHS if length <= len(run)]
    return keys


def _normalised(count: Counter[str], frequency: Counter[str], sections: int) -> dict[str, float]:
    weights = {key: times * (math.log((1 + sections) / (1 + frequency[key])) + 1) for key, times in count.items()}
    length = math.sqrt(sum(value * value for value in weights.values()))
    return {key: value / length for key, value in weights.items()}


def _heaviest(key: str, weights: list[dict[str, float]]) -> list[int]:
    having = [number for number, weight in enumerate(weights) if key in weight]
    return sorted(sorted(having, key=lambda number: -weights[number][key])[:MOST_SECTIONS])


def _as_written(key: str, pieces: list[str]) -> str:
    """Its commonest spelling, the first one among equals."""
    found = pattern(key)
    spellings = Counter(" ".join(match.split()) for piece in pieces for match in found.findall(piece))
    return spellings.most_common(1)[0][0] if spellings else key
