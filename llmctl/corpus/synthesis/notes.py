"""Templates of the written kinds: summary, simple account, flash cards, exercise, claims, encyclopaedia entry."""

import random
from collections.abc import Callable

from llmctl.corpus.synthesis.facts import Facts

Form = Callable[[Facts, random.Random], str]
STEPS = ("To begin with:", "Then there is this:", "Next:", "After that:", "One more thing:", "And last:")


def summary(facts: Facts, draw: random.Random) -> str:
    opening = draw.choice(
        (
            f'In summary, the text speaks of "{facts.phrase}" in {facts.passages} places, and these are the points that matter.',
            f'What the text says about "{facts.phrase}", put together from {facts.passages} places, comes to the following.',
            f'Summary: "{facts.phrase}" is met in {facts.passages} places of the text.',
        )
    )
    closing = draw.choice(
        (
            f'Taken together, this is what "{facts.phrase}" stands for here.',
            "The rest of these places adds details.",
            f'So much for "{facts.phrase}" in this text.',
        )
    )
    return "\n\n".join((opening, " ".join(facts.sentences), closing))


def simple(facts: Facts, draw: random.Random) -> str:
    opening = draw.choice(
        (
            f'You have never heard of "{facts.phrase}"? Never mind. Here it is, one step at a time.',
            f'Let us go through "{facts.phrase}" slowly. No knowledge is needed for it.',
        )
    )
    steps = sorted(facts.sentences, key=len)  # short sentences are the easy ones
    lines = [f"{step} {sentence}" for step, sentence in zip(STEPS, steps, strict=False)]
    closing = draw.choice(
        (
            "If you remember only one of these sentences, take the first one.",
            "Read it a second time, and it will seem easy.",
        )
    )
    return "\n".join((opening, *lines, closing))


def cards(facts: Facts, draw: random.Random) -> str:
    asks = draw.choice(("Fill the gap:", "Which words are missing?", "Complete the sentence:"))
    made = [f"Front: {asks} {facts.gapped(sentence)}\nBack: The gap is for: {facts.phrase}." for sentence in facts.named]
    rest = [sentence for sentence in facts.sentences if sentence not in facts.named and len(sentence.split()) >= 8]
    made += [f"Front: How does this sentence go on? {_first_half(sentence)} ...\nBack: {sentence}" for sentence in rest]
    heading = f"Flash cards on {facts.phrase}"
    return "\n\n".join((heading, *made, f"That makes {len(made)} {'cards' if len(made) > 1 else 'card'}."))


def exercise(facts: Facts, draw: random.Random) -> str:
    order = draw.sample(facts.sentences, len(facts.sentences))
    lines = [f"({letter}) {facts.gapped(sentence)}" for letter, sentence in zip("abcdef", order, strict=False)]
    having = [letter for letter, sentence in zip("abcdef", order, strict=False) if sentence in facts.named]
    task = draw.choice(
        (
            "Exercise. The same words are missing wherever a gap is drawn below. Find them.",
            "Exercise. One phrase has been taken out of the sentences below. Which sentences had it, and what is it?",
        )
    )
    where = f"sentence {having[0]}" if len(having) == 1 else f"sentences {', '.join(having[:-1])} and {having[-1]}"
    solved = next(sentence for sentence in order if sentence in facts.named)
    solution = (
        f'Solution. The gaps are in {where}, and what fits there is "{facts.phrase}". '
        f"To check it, read sentence {having[0]} with the words put back: {solved}"
    )
    return "\n".join((task, "", *lines, "", solution))


def claims(facts: Facts, draw: random.Random) -> str:
    opening = draw.choice(
        (
            f'Claims that the text makes where it speaks of "{facts.phrase}":',
            f'What may be held about "{facts.phrase}", on the word of this text:',
        )
    )
    backing = draw.choice(("(stated outright)", "(as the text has it)", "(said in so many words)"))
    beside = draw.choice(("(from the same passage)", "(said close by)"))
    lines = [
        f"{number}. {sentence} {backing if sentence in facts.named else beside}"
        for number, sentence in enumerate(facts.sentences, 1)
    ]
    named = f"{len(facts.named)} of these {len(facts.sentences)} claims"
    return "\n".join((opening, *lines, f'The words "{facts.phrase}" themselves are in {named}.'))


def entry(facts: Facts, draw: random.Random) -> str:
    opening = draw.choice(
        (
            f"{facts.title} is an expression that this text uses in {facts.passages} places.",
            f"{facts.title} (an expression found in {facts.passages} places of this text) is best told from what is said there.",
        )
    )
    half = (len(facts.sentences) + 1) // 2
    sections = [
        facts.title,
        f"{opening} {facts.sentences[0]}",
        "Use",
        " ".join(facts.sentences[1 : half + 1]),
        *(("Details", " ".join(facts.sentences[half + 1 :])) if facts.sentences[half + 1 :] else ()),
        f'See also: the other places that speak of "{facts.phrase}".',
    ]
    return "\n\n".join(sections)


def _first_half(sentence: str) -> str:
    words = sentence.split()
    return " ".join(words[: len(words) // 2])


NOTES: dict[str, Form] = {
    "summary": summary,
    "simple": simple,
    "cards": cards,
    "exercise": exercise,
    "claims": claims,
    "entry": entry,
}
