"""CWE: questions on how often common words occur in a part of a document, each count verified.

After Olmo 3 (arXiv 2512.13961), whose counts are of nouns; here of any word that is no stop word.
"""

import json
import random
from collections import Counter
from typing import Any

from llmctl.corpus.documents import Document
from llmctl.corpus.synthesis.generator import CountRequest, Request
from llmctl.corpus.synthesis.partition import partitions, sections, woven
from llmctl.corpus.synthesis.replies import number_in, objects_in
from llmctl.corpus.synthesis.tally import Tally
from llmctl.corpus.synthesis.words import WORD, is_stop_word, occurrences

WORDS = 5  # of each partition, as the report has it
EXCERPT = 500  # characters that a generator sees of a partition
LONGEST_QUESTION = 400  # characters
PROMPT = """Below are words with the number of times that each occurs in a part of a long document, and how that part begins.

Write one question for each word. A question asks how often the word occurs in the part of the text that the reader has just
read. Name the word in the question exactly as it is spelled here, and none of the other words. Word the questions differently
from each other, and do not give the number away in them. The answer is the number.

Reply with JSON alone, in this form:
{{"questions": [{{"question": "...", "answer": 12}}]}}

Words and numbers: {counts}

The part begins:
{excerpt}
"""
SHORT_ANSWERS = ("It occurs {count} times.", 'The word "{word}" occurs {count} times.', "{count} times.", "There are {count}.")


def common_words(text: str) -> dict[str, int]:
    """The five words that recur most in a text, and how often they occur as whole words, spelled exactly so.

    Words are of three letters and more, and no stop words. Equal ones stand in the order of the text.
    """
    counts = Counter(WORD.findall(text))
    wanted = ((word, count) for word, count in counts.most_common() if count > 1 and len(word) > 2 and word.isalpha())
    return dict([(word, count) for word, count in wanted if not is_stop_word(word)][:WORDS])


class CountingTask:
    """The questions of one document."""

    def __init__(self, document: Document, seed: int) -> None:
        draw = random.Random(f"{seed}:cwe:{document.id}")
        self.parts = ["".join(group) for group in partitions(sections(document.text), draw)]
        self.seed = f"{seed}:cwe:{document.id}"
        self._counts = [common_words(part) for part in self.parts]

    @property
    def unfit(self) -> str:
        """Why nothing can be asked about the document; empty where there is no such reason."""
        if len(self.parts) < 2:
            return "no break to cut it at"
        return "" if any(self._counts) else "no word recurs"

    def requests(self) -> list[Request]:
        return [
            CountRequest(PROMPT.format(counts=json.dumps(counts, ensure_ascii=False), excerpt=part[:EXCERPT]), seed, counts)
            for number, (part, counts) in enumerate(zip(self.parts, self._counts, strict=True))
            if counts and (seed := f"{self.seed}:{number}")
        ]

    def text(self, replies: list[str], tally: Tally) -> tuple[str, int]:
        """The document with the questions that are right, each behind its part, and how many those are."""
        draw = random.Random(f"{self.seed}:answers")
        short = draw.random() < 0.5  # a document's answers are alike, so that a reader knows what is wanted
        replies, tasks, kept = replies[:], [], 0
        for part, counts in zip(self.parts, self._counts, strict=True):
            right = verified(replies.pop(0), part, counts, tally) if counts else []
            lines = []
            for question, word, count in right:
                answer = draw.choice(SHORT_ANSWERS).format(word=word, count=count) if short else str(count)
                lines.append(f"Question: {question}\nAnswer: {answer}")
            tasks.append("\n\n".join(lines))
            kept += len(right)
        return woven(self.parts, tasks), kept


def verified(reply: str, part: str, counts: dict[str, int], tally: Tally) -> list[tuple[str, str, int]]:
    """(question, word, count) of those in a reply that name exactly one of the words and state how often it truly occurs in the
    part, counted again in its text. Others are counted by their reason."""
    found = objects_in(reply)
    if found is None:
        tally.dropped["unreadable reply"] += 1
        return []
    right: list[tuple[str, str, int]] = []
    for item in found:
        question, named, stated = _read(item, counts)
        reason = _wrong(question, named, stated, part, [word for _, word, _ in right])
        if reason:
            tally.dropped[reason] += 1
        else:
            right.append((question, named[0], occurrences(named[0], part)))
    return right


def _read(item: dict[str, Any], counts: dict[str, int]) -> tuple[str, list[str], int | None]:
    """The question on one line, the listed words that it names, and the number that the answer states."""
    asked = item.get("question")
    question = " ".join(asked.split()) if isinstance(asked, str) else ""
    return question, [word for word in counts if occurrences(word, question)], number_in(item.get("answer"))


def _wrong(question: str, named: list[str], stated: int | None, part: str, before: list[str]) -> str:
    if not question or len(question) > LONGEST_QUESTION:
        return "no question"
    if not named:
        return "no listed word"
    if len(named) > 1:
        return "several listed words"
    if stated is None:
        return "no number"
    if stated != occurrences(named[0], part):
        return "wrong count"
    return "word asked for again" if named[0] in before else ""
