"""REX: passages of a document that share a phrase, rewritten as another kind of text (after Olmo 3, arXiv 2512.13961)."""

import random
from bisect import bisect_right
from itertools import accumulate

from llmctl.corpus.documents import Document
from llmctl.corpus.synthesis.generator import Request, TextRequest
from llmctl.corpus.synthesis.kinds import KINDS, instruction
from llmctl.corpus.synthesis.partition import partitions, sections, woven
from llmctl.corpus.synthesis.phrases import Phrase, pattern, shared_phrases
from llmctl.corpus.synthesis.quality import fault
from llmctl.corpus.synthesis.tally import Tally

FEWEST, MOST = 4, 8  # texts of a document
SPARE = 2  # asked for beyond those, as some are bad
LONGEST_PASSAGE = 1500  # characters around the phrase that a generator sees of a section


class RewritingTask:
    """The texts of one document."""

    def __init__(self, document: Document, seed: int) -> None:
        self.seed = f"{seed}:rex:{document.id}"
        draw = random.Random(self.seed)
        self.sections = sections(document.text)
        groups = partitions(self.sections, draw)
        self.parts = ["".join(group) for group in groups]
        self._first_sections = list(accumulate(map(len, groups), initial=0))[:-1]
        self.wanted = draw.randint(FEWEST, MOST)
        phrases = shared_phrases(self.sections, draw) if len(self.parts) > 1 else []
        self.phrases = phrases[: self.wanted + SPARE]
        self.kinds = draw.sample(list(KINDS), len(self.phrases))

    @property
    def unfit(self) -> str:
        """Why nothing can be written about the document; empty where there is no such reason."""
        if len(self.parts) < 2:
            return "no break to cut it at"
        return "" if self.phrases else "no phrase in two sections"

    def requests(self) -> list[Request]:
        return [
            self._request(number, phrase, kind)
            for number, (phrase, kind) in enumerate(zip(self.phrases, self.kinds, strict=True))
        ]

    def _request(self, number: int, phrase: Phrase, kind: str) -> TextRequest:
        passages = [clipped(self.sections[section], phrase.text) for section in phrase.sections]
        bold = (pattern(phrase.text).sub(r"**\g<0>**", passage) for passage in passages)
        shown = "\n\n".join(f"Passage {place}:\n{passage}" for place, passage in enumerate(bold, 1))
        return TextRequest(instruction(kind, phrase.text, shown), f"{self.seed}:{number}", kind, phrase.text, passages)

    def text(self, replies: list[str], tally: Tally) -> tuple[str, int]:
        """The document with the texts that are good, each behind the part of its last section, and how many those are."""
        good: list[str] = []
        tasks: list[list[str]] = [[] for _ in self.parts]
        for request, phrase, reply in zip(self.requests(), self.phrases, replies, strict=True):
            written = reply.strip()
            if reason := fault(written, request.prompt, phrase.text, good):
                tally.dropped[reason] += 1
            elif len(good) == self.wanted:
                tally.dropped["more than drawn for the document"] += 1
            else:
                good.append(written)
                tasks[bisect_right(self._first_sections, phrase.sections[-1]) - 1].append(written)
        return woven(self.parts, ["\n\n".join(task) for task in tasks]), len(good)


def clipped(section: str, phrase: str) -> str:
    """A section, or what stands around the phrase in a long one, from a blank line or a line's beginning on."""
    section = section.strip()
    found = pattern(phrase).search(section)
    if len(section) <= LONGEST_PASSAGE or found is None:
        return section[:LONGEST_PASSAGE]
    start = max(0, found.start() - LONGEST_PASSAGE // 3)
    if start:
        begins = max(section.find("\n\n", start, found.start()), section.find("\n", start, found.start()))
        start = begins if begins >= 0 else start
    return section[start : start + LONGEST_PASSAGE].strip()
