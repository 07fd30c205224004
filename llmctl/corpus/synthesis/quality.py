"""What is wrong with a text that a generator has written."""

import re

from llmctl.corpus.synthesis.words import WORD, holds_phrase

SHORTEST = 200  # characters
COPIED = 0.95
"""Share of a text's runs of five words that may stand in the prompt: above, it only repeats it. Rewriting by whole sentences of
the passages, as the template writer does, stays below."""
RUN = 5
LEAKED = 10  # words in a row of the instruction
REFUSAL = re.compile(
    r"(I'm |I am )?(very )?sorry\b|I (can't|cannot|can not|won't)\b|I('m| am) (unable|not able)\b|unfortunately,? I\b"
    r"|as an? (AI|artificial|language model|assistant)|my apologies|I apologi[sz]e|I must decline",
    re.IGNORECASE,
)
ENDS = re.compile(r"[.!?…。！？][\"'”’)\]*_»」]*$")


def fault(text: str, prompt: str, phrase: str, others: list[str]) -> str:
    """The first thing that is wrong with a text on a phrase; empty where nothing is. `others` are the document's good ones."""
    if not text:
        return "nothing written"
    if REFUSAL.match(text):
        return "refusal"
    if len(text) < SHORTEST:
        return "too short"
    if not holds_phrase(text, phrase):
        return "without the phrase"
    if not ENDS.search(text):
        return "cut off"
    if _repeats(text, prompt):
        return "copy of the prompt"
    plain = WORD.findall(text.lower())
    return "same as another" if any(WORD.findall(other.lower()) == plain for other in others) else ""


def _repeats(text: str, prompt: str) -> bool:
    """Whether nearly all of a text stands in the prompt, or a piece of the instruction, which is the prompt's beginning."""
    # Bold marks and cases do not make a copy another text.
    words, asked = WORD.findall(text.lower()), WORD.findall(prompt.lower())
    runs = _runs(words, RUN)
    if len(runs & _runs(asked, RUN)) > COPIED * len(runs):
        return True
    instructions = WORD.findall(prompt.lower().split("\npassage 1:")[0])
    return not _runs(words, LEAKED).isdisjoint(_runs(instructions, LEAKED))


def _runs(words: list[str], length: int) -> set[tuple[str, ...]]:
    return {tuple(words[start : start + length]) for start in range(len(words) - length + 1)}
