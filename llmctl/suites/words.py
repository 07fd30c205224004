"""Words and sentences for questions that need text of no particular kind."""

import random

_ADJECTIVES = (
    "amber ancient bitter bold brave bright calm clever cold copper coral curious distant eager early faint fierce "
    "gentle golden grand green hidden hollow humble icy jolly late lively lonely lucky mellow misty modest narrow noble "
    "pale patient plain proud quiet rapid rough royal rusty secret silent silver simple sleepy slow smooth solid spare "
    "steady still sudden sunny"
)
_NOUNS = (
    "anchor apple arrow badger basket beacon bridge candle canyon castle cellar cherry comet compass dragon engine "
    "falcon feather forest garden glacier hammer harbor island jacket kettle ladder lantern lizard marble meadow mirror "
    "needle ocean orchid palace pepper pillow planet pocket quarry rabbit ribbon river rocket saddle shadow spider "
    "temple thunder ticket tunnel turtle valley violin wagon walnut window winter"
)
ADJECTIVES, NOUNS = _ADJECTIVES.split(), _NOUNS.split()
VERBS = ("crosses", "follows", "finds", "leaves", "passes", "reaches", "remembers", "watches")


def keys(count: int, chance: random.Random) -> list[str]:
    """`count` different names of two words; there are some 3,500."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[f"{chance.choice(ADJECTIVES)} {chance.choice(NOUNS)}"] = None
    return list(found)


def made_up(count: int, chance: random.Random, syllables: int = 3) -> list[str]:
    """`count` different words of no language, as "dolima"; of three syllables there are 421,875."""
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(chance.choice("bdfgklmnprstvwz") + chance.choice("aeiou") for _ in range(syllables))] = None
    return list(found)


def sentences(count: int, seed: int | str) -> str:
    """Text of `count` generated sentences, each a line."""
    chance = random.Random(f"{seed}/sentences")
    lines = []
    for _ in range(count):
        first, second = keys(2, chance)
        lines.append(f"The {first} {chance.choice(VERBS)} the {second} in the {chance.choice(NOUNS)}.")
    return "\n".join(lines) + "\n"
