"""What the template writer takes from passages: whole sentences, those with the phrase first of all."""

import random
from dataclasses import dataclass
from itertools import zip_longest

from llmctl.corpus.synthesis.phrases import pattern
from llmctl.corpus.synthesis.words import sentences

FEWEST, MOST = 3, 6  # sentences of a text
GAP = "_____"


@dataclass(frozen=True, slots=True)
class Facts:
    phrase: str
    sentences: list[str]
    """Three to six, in the order of the passages."""
    passages: int
    """How many passages have the phrase."""

    @property
    def title(self) -> str:
        return self.phrase[0].upper() + self.phrase[1:]

    @property
    def named(self) -> list[str]:
        """The sentences that have the phrase; at least one."""
        return [sentence for sentence in self.sentences if pattern(self.phrase).search(sentence)]

    def gapped(self, sentence: str) -> str:
        """A sentence with a gap where the phrase stands."""
        return pattern(self.phrase).sub(GAP, sentence)


def facts_of(phrase: str, passages: list[str], draw: random.Random) -> Facts | None:
    """Three to six sentences, of as many passages as can be: those that have the phrase, and where they are few, those that
    stand next to them. None: there are fewer, or none that has the phrase and can be found by it."""
    found = [sentences(passage) for passage in passages]
    having = [[sentence for sentence in each if pattern(phrase).search(sentence)] for each in found]
    if not any(having):
        return None
    beside = [[sentence for sentence in each if not pattern(phrase).search(sentence)] for each in found]
    most = draw.randint(FEWEST + 1, MOST)
    chosen = list(dict.fromkeys([*_in_turn(having), *_in_turn(beside)]))[:most]
    if len(chosen) < FEWEST:
        return None
    order = list(dict.fromkeys(sentence for each in found for sentence in each))
    return Facts(phrase, sorted(chosen, key=order.index), len(passages))


def _in_turn(lists: list[list[str]]) -> list[str]:
    """The first of every list, then the second of each that has one, and so on."""
    return [sentence for row in zip_longest(*lists) for sentence in row if sentence is not None]
