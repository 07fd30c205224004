"""Words and sentences of English text, as the synthetic tasks see them."""

import re

WORD = re.compile(r"\w+")
FUNCTION_WORDS = """
a about above across after again against ago all almost alone along already also although always am among an and another any
anyone anything are aren around as at away back be became because become been before being below between both but by came can
cannot come could couldn did didn do does doesn doing don done down during each either else enough etc even ever every
everyone everything few first for from further gave get gets getting give given gives go goes going gone got had hadn has
hasn have haven having he hence her here hers herself him himself his how however i if in indeed instead into is isn it its
itself just last least less let like ll made make makes many may me might mine more moreover most mostly much must my myself
neither never nevertheless next no nobody none nor not nothing now of off often on once one only onto or other others
otherwise our ours ourselves out over own per perhaps put quite rather re really said same say see seem seemed seems several
shall she should shouldn since so some somebody someone something sometimes still such take than that the their theirs them
themselves then there therefore these they thing things this those though three through throughout thus to together too
toward towards two under unless until up upon us use used uses using ve very via was wasn way we well were weren what whatever
when whenever where whereas wherever whether which while who whole whom whose why will with within without won would wouldn
yet you your yours yourself yourselves
"""
STOP_WORDS = frozenset(FUNCTION_WORDS.split())
SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]?\s+(?=[\"'(\[]*[A-Z]|[`:*])|\n[ \t\r]*\n")
SHORTEST_SENTENCE, LONGEST_SENTENCE = 40, 400
"""Characters: shorter ones are headings and scraps, longer ones mostly tables and listings."""


def is_stop_word(word: str) -> bool:
    return word.lower() in STOP_WORDS


def occurrences(word: str, text: str) -> int:
    """How often `word` stands in `text` as a whole word, spelled exactly so."""
    return len(re.findall(rf"\b{re.escape(word)}\b", text))


def flat(text: str) -> str:
    """The text on one line, words a space apart."""
    return " ".join(text.split())


def holds_phrase(text: str, phrase: str) -> bool:
    """Whether the words of `phrase` stand in `text` one after the other, whatever their case and the white space between."""
    return f" {' '.join(WORD.findall(phrase.lower()))} " in f" {' '.join(WORD.findall(text.lower()))} "


def sentences(text: str) -> list[str]:
    """Whole sentences of prose, each on one line: they begin with a capital and end with a full stop or its like."""
    found = (flat(piece) for piece in SENTENCE_END.split(text))
    return [
        piece
        for piece in found
        if SHORTEST_SENTENCE <= len(piece) <= LONGEST_SENTENCE and piece[0].isupper() and piece[-1] in ".!?" and _is_prose(piece)
    ]


def _is_prose(sentence: str) -> bool:
    """Mostly letters, and few marks of code, tables or markup."""
    letters = sum(character.isalpha() for character in sentence)
    return letters >= 0.7 * len(sentence) and not re.search(r">>>|\.\. |\|.*\||[{}]|\s(==|->|=)\s|^\W", sentence)
