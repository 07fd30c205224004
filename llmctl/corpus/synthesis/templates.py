"""The generator that needs no model: phrasings and forms of our own, filled with words and whole sentences of the text."""

import json
import random
from collections.abc import Sequence

from llmctl.corpus.synthesis.facts import facts_of
from llmctl.corpus.synthesis.generator import CountRequest, Request, TextRequest
from llmctl.corpus.synthesis.notes import NOTES
from llmctl.corpus.synthesis.talks import TALKS
from llmctl.corpus.synthesis.words import occurrences

FORMS = NOTES | TALKS
QUESTIONS = (
    'How many times does the word "{word}" occur in the part of the text that ends here?',
    'How often is "{word}" written in the part just read?',
    'Count the word "{word}" in the part above. How often is it there?',
    'In the part that ends here, how many times do you find "{word}" as a whole word?',
    'What is the number of times that "{word}" appears in this part?',
    'Going back over the last part, how many instances of "{word}" are there?',
    'If every "{word}" in the part above were underlined, how many lines would be drawn?',
    'State the count of "{word}" since the part began.',
    'Look for "{word}" in the part before this question: how many times does it come up?',
    'How frequent is "{word}" in the part just finished, as a plain count?',
    "{word}: how often?",
)


class TemplateWriter:
    def __init__(self, seed: int) -> None:
        self._seed = seed

    def write(self, requests: Sequence[Request]) -> list[str]:
        """Questions with true counts, and texts of each of the twelve kinds; an empty one where the passages have too few whole
        sentences, of prose and with the phrase."""
        return [self._questions(request) if isinstance(request, CountRequest) else self._text(request) for request in requests]

    def _questions(self, request: CountRequest) -> str:
        draw = random.Random(f"{self._seed}:{request.seed}")
        asked = [
            {"question": question, "answer": count}
            for (word, count), question in zip(request.counts.items(), _phrased(list(request.counts), draw), strict=True)
        ]
        draw.shuffle(asked)
        return json.dumps({"questions": asked}, ensure_ascii=False)

    def _text(self, request: TextRequest) -> str:
        draw = random.Random(f"{self._seed}:{request.seed}")
        facts = facts_of(request.phrase, request.passages, draw)
        return FORMS[request.kind](facts, draw) if facts else ""


def _phrased(words: list[str], draw: random.Random) -> list[str]:
    """A question for each word, each phrased in another way, that has none of the other words in it."""
    left = draw.sample(QUESTIONS, len(QUESTIONS))
    questions = []
    for word in words:
        others = [other for other in words if other != word]
        fitting = (phrasing for phrasing in left if not any(occurrences(other, phrasing) for other in others))
        # The last phrasing has so few words that it fits nearly always; where it does not, the question is dropped later.
        phrasing = next(fitting, QUESTIONS[-1])
        left = [other for other in left if other != phrasing]
        questions.append(phrasing.format(word=word))
    return questions
