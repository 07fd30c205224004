"""Questions that need a long context, of any length and for any tokenizer, after RULER (arXiv 2404.06654).

- needle: a key's number, hidden in filler text; needle_multikey: among many keys; needle_multivalue: all numbers of a key;
- variables: the variables that hold a number, one assigned to the next;
- common_words, frequent_words: the words of a list that are commonest; in the second the words are made up, and as frequent
  as Zipf's law has it;
- aggregation: how many entries of a kind there are, the largest of them, or their sum.

What is asked is filled in blank by blank. Each blank has its right text and three others of the same form to choose from, which
stand in the text, too, wherever more than one thing is hidden there.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llmctl.suites.haystack import Haystack
from llmctl.suites.task import Question
from llmctl.suites.words import ADJECTIVES, NOUNS, keys, made_up

VERSION = 2
CHOICES = 4
VALUES = 3  # numbers of the key of needle_multivalue
CHAINS, HOPS = 4, 4
COMMONEST = 3
COMMON_SHARES = (0.2, 0.14, 0.09)
ZIPF = 2.0  # RULER's exponent
GOODS: tuple[str, ...] = ("apples", "barley", "candles", "diamonds")
AMOUNTS = range(2, 100)


@dataclass(frozen=True, slots=True)
class Draft:
    """A question before it has a length."""

    lines: list[tuple[float, str]]
    """What is hidden, each at a depth from 0 to 1."""
    blanks: list[Question]
    """What is asked, in order; the context of the first is the question itself."""


@dataclass(frozen=True, slots=True)
class Blank:
    """A place that one of the choices fills, as tokens."""

    text: Question
    lead: list[int]
    """What goes before the choices."""
    choices: list[list[int]]


@dataclass(frozen=True, slots=True)
class LongQuestion:
    task: str
    length: int
    """Tokens of the context and all that is filled in, the longest choice of each blank counted."""
    depth: float | None
    """Where the needle is, from 0 (first) to 1 (last)."""
    context: list[int]
    blanks: list[Blank]

    @property
    def chance(self) -> float:
        """Expected share of the blanks that guessing fills rightly."""
        return sum(1 / len(blank.choices) for blank in self.blanks) / len(self.blanks)


def long_question(
    task: str, length: int, number: int, seed: int, tokenizer: Any, haystack: Haystack, depth: float | None = None
) -> LongQuestion | None:
    """The `number`th question of a task at `length` tokens, the same for the same arguments; None where so few hold none.

    Only `needle` takes a `depth`; left out, it is drawn.
    """

    def drafted(words: int) -> Draft:
        return MAKERS[task](random.Random(f"{seed}/{task}/{length}/{number}/{VERSION}"), number, length, words, depth)

    def encode(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    def room(draft: Draft) -> int:
        """Tokens that are left for the filler."""
        fixed = sum(len(encode(text)) for _, text in draft.lines) + 1
        for blank in draft.blanks:
            fixed += len(encode(blank.context)) + max(len(encode(choice)) for choice in blank.choices)
        return length - fixed

    draft = drafted(most(lambda words: room(drafted(words)) >= 0, length) if task in OF_WORDS else 0)
    filler = room(draft)
    if filler < 0:
        return None
    chance = random.Random(f"{seed}/{task}/{length}/{number}/filler")
    lines = [(at, encode(text)) for at, text in draft.lines]
    context = [tokenizer.eos_token_id, *haystack.hide(lines, filler, chance)]
    blanks = [Blank(blank, encode(blank.context), [encode(choice) for choice in blank.choices]) for blank in draft.blanks]
    return LongQuestion(task, length, draft.lines[0][0] if task == "needle" else None, context, blanks)


def most(fits: Callable[[int], bool], limit: int) -> int:
    """The largest number of words from `FEWEST` to `limit` that fits; `FEWEST` where none does."""
    low, high = FEWEST, max(FEWEST, limit)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def blank(context: str, right: str, wrong: list[str], end: str, chance: random.Random) -> Question:
    """A blank with three of `wrong`, in random order. `end` says that the answer ends there, and no longer number goes on."""
    others = list(dict.fromkeys(text for text in wrong if text != right))[: CHOICES - 1]
    choices = [right, *others]
    chance.shuffle(choices)
    return Question(context, tuple(f" {choice}{end}" for choice in choices), choices.index(right))


def series(context: str, answers: list[str], wrong: Callable[[int], list[str]], chance: random.Random) -> list[Question]:
    """Blanks of a list: the answers in order, a comma after each."""
    return [blank("" if n else context, answer, wrong(n), ",", chance) for n, answer in enumerate(answers)]


def numbers(count: int, chance: random.Random) -> list[str]:
    """Different numbers of five digits."""
    return [str(number) for number in chance.sample(range(10_000, 100_000), count)]


def fact(key: str, value: str) -> str:
    return f"\nThe number of {key} is {value}."


def needle(chance: random.Random, number: int, length: int, words: int, depth: float | None) -> Draft:
    (key,), (right, *wrong) = keys(1, chance), numbers(CHOICES, chance)
    drawn = chance.random()
    asked = blank(f"\nThe number of {key} is", right, wrong, ".", chance)
    return Draft([(drawn if depth is None else depth, fact(key, right))], [asked])


def needle_multikey(chance: random.Random, number: int, length: int, words: int, depth: float | None) -> Draft:
    count = min(max(CHOICES, length // 128), 64)
    names, values = keys(count, chance), numbers(count, chance)
    lines = [(chance.random(), fact(key, value)) for key, value in zip(names, values, strict=True)]
    return Draft(lines, [blank(f"\nThe number of {names[0]} is", values[0], values[1:CHOICES], ".", chance)])


def needle_multivalue(chance: random.Random, number: int, length: int, words: int, depth: float | None) -> Draft:
    names, values = keys(CHOICES, chance), numbers(VALUES + CHOICES - 1, chance)
    right, wrong = values[:VALUES], values[VALUES:]
    depths = sorted(chance.random() for _ in right)
    lines = [(at, fact(names[0], value)) for at, value in zip(depths, right, strict=True)]
    lines += [(chance.random(), fact(key, value)) for key, value in zip(names[1:], wrong, strict=True)]
    asked = f"\nThe {VALUES} numbers of {names[0]}, in the order of the text, are"
    return Draft(lines, series(asked, right, lambda _: wrong, chance))


def variables(chance: random.Random, number: int, length: int, words: int, depth: float | None) -> Draft:
    names, values, lines = [name.upper() for name in made_up(CHAINS * HOPS, chance, 2)], numbers(CHAINS, chance), []
    chains = [names[n * HOPS : (n + 1) * HOPS] for n in range(CHAINS)]
    for chain, value in zip(chains, values, strict=True):
        depths = sorted(chance.random() for _ in chain)
        for at, name, held in zip(depths, chain, [value, *chain], strict=False):
            lines.append((at, f"\nVAR {name} = {held};"))
    asked = f"\nThe {HOPS} variables that hold {values[0]}, in the order of the text, are"
    return Draft(lines, series(asked, chains[0], lambda n: [chain[n] for chain in chains[1:]], chance))


def counted(vocabulary: list[str], counts: list[int], chance: random.Random) -> Draft:
    """A list of words with these counts, descending, and the question which are the commonest."""
    listed = [word for word, count in zip(vocabulary, counts, strict=False) for _ in range(count)]
    chance.shuffle(listed)
    used = vocabulary[COMMONEST : len(counts)]
    asked = f"\nThe {COMMONEST} words that stand most often in the list, the most frequent first, are"
    wrong = [chance.sample(used[:12], CHOICES - 1) for _ in range(COMMONEST)]
    return Draft([(1.0, f"\nList: {' '.join(listed)}")], series(asked, vocabulary[:COMMONEST], lambda n: wrong[n], chance))


def common_words(chance: random.Random, number: int, length: int, words: int, depth: float | None) -> Draft:
    """Three words make a fifth, a seventh and an eleventh of the list; the others are equally frequent."""
    vocabulary = chance.sample([*ADJECTIVES, *NOUNS], len(ADJECTIVES) + len(NOUNS))
    counts = [round(share * words) for share in COMMON_SHARES]
    left = words - sum(counts)
    others = min(len(vocabulary) - COMMONEST, left)
    counts += [left // others + (n < left % others) for n in range(others)]
    return counted(vocabulary, counts, chance)


def frequent_words(chance: random.Random, number: int, length: int, words: int, depth: float | None) -> Draft:
    """Counts by Zipf's law: the word of rank k has a share that goes with k^-2."""
    weights = [rank**-ZIPF for rank in range(1, words + 1)]
    per_weight = words / sum(weights)
    counts = [count for weight in weights if (count := round(per_weight * weight))]
    counts += [1] * (words - sum(counts))
    return counted(made_up(len(counts), chance), counts, chance)


Entries = tuple[str, list[tuple[int, str]], list[int]]
"""What is asked, amounts with their kinds, and the choices, the right one first. The first of `goods` is asked for."""


def aggregation(chance: random.Random, number: int, length: int, words: int, depth: float | None) -> Draft:
    """By turns the number of a kind's entries, the largest of their amounts, and their sum.

    The four choices are drawn before it is drawn which of them is right, so that nothing about a number tells.
    """
    size, goods = min(max(12, length // 256), 40), chance.sample(GOODS, len(GOODS))
    asked, make = goods[0], (entries_of_a_number, entries_with_a_largest, entries_of_a_sum)[number % 3]
    context, entries, choices = make(goods, size, chance)
    lines = [(chance.random(), f"\nEntry: {amount} crates of {kind}.") for amount, kind in entries]
    right, *wrong = map(str, choices)
    return Draft(lines, [blank(context.format(asked), right, wrong, ".", chance)])


def entries_of_a_number(goods: list[str], size: int, chance: random.Random) -> Entries:
    """About `size` entries, of each kind another number; the wrong choices are those of the other kinds."""
    counts = chance.sample(range(1, size // 2), CHOICES)
    kinds = [good for good, count in zip(goods, counts, strict=True) for _ in range(count)]
    entries = list(zip(chance.sample(AMOUNTS, len(kinds)), kinds, strict=True))
    return "\nThe number of entries of {} is", entries, counts


def entries_with_a_largest(goods: list[str], size: int, chance: random.Random) -> Entries:
    """Of the wrong choices the smaller are amounts of the kind that is asked for, and the larger of other kinds."""
    asked, *others = goods
    choices = chance.sample(AMOUNTS[20:], CHOICES)
    own = [*chance.sample(AMOUNTS[:20], size // 4), *(choice for choice in choices if choice <= choices[0])]
    rest = chance.sample([amount for amount in AMOUNTS if amount not in own and amount not in choices], size // 2)
    rest += [choice for choice in choices if choice > choices[0]]
    entries = [(amount, asked) for amount in own] + [(amount, chance.choice(others)) for amount in rest]
    return "\nThe largest entry of {} has, in crates,", entries, choices


def entries_of_a_sum(goods: list[str], size: int, chance: random.Random) -> Entries:
    """As many of each kind; the wrong choices are the sums of the other kinds."""
    sums: list[int] = []
    while len(set(sums)) < len(goods):
        amounts = chance.sample(AMOUNTS, size // len(goods) * len(goods))
        sums = [sum(amounts[n :: len(goods)]) for n in range(len(goods))]
    entries = [(amount, goods[n % len(goods)]) for n, amount in enumerate(amounts)]
    return "\nThe crates of all entries of {} together are", entries, sums


Maker = Callable[[random.Random, int, int, int, float | None], Draft]
MAKERS: dict[str, Maker] = {
    maker.__name__: maker
    for maker in (needle, needle_multikey, needle_multivalue, variables, common_words, frequent_words, aggregation)
}
OF_WORDS = ("common_words", "frequent_words")
FEWEST = 24
"""Words of the shortest list: of fewer the three commonest do not stand out."""
