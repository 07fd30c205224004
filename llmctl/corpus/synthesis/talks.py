"""Templates of the spoken kinds: lesson, quiz show, talk at the table, debate, film scene, letter."""

import random

from llmctl.corpus.synthesis.facts import Facts
from llmctl.corpus.synthesis.notes import Form

NAMES = ("Ada", "Boris", "Chen", "Dalia", "Emeka", "Freya", "Goran", "Hana", "Ines", "Jonas", "Kofi", "Lena")
WONDERING = (
    "And is there more to it?",
    "I see. What else should I know?",
    "That helps. Go on, please.",
    "Wait, let me write that down. And then?",
    "Is that all that is said about it?",
    "Good. What comes with it?",
)
NUMBERS = ("No", "One", "Two", "Three", "Four", "Five")
PLACES = ("KITCHEN", "TRAIN COMPARTMENT", "LIBRARY", "WORKSHOP", "OFFICE", "LABORATORY")


def lesson(facts: Facts, draw: random.Random) -> str:
    questions = draw.sample(WONDERING, len(WONDERING))
    first = draw.choice(
        (f'What do I have to know about "{facts.phrase}"?', f'I keep meeting "{facts.phrase}". What is said of it?')
    )
    lines = [f"Student: {first}"]
    for number, sentence in enumerate(facts.sentences):
        lines += [f"Student: {questions[number]}"] if number else []
        lines.append(f"Teacher: {sentence}")
    closing = draw.choice(("Thank you, now I can follow the text.", "Then I will read those passages again with this in mind."))
    return "\n".join((*lines, f"Student: {closing}"))


def quiz(facts: Facts, draw: random.Random) -> str:
    host, one, two = draw.sample(NAMES, 3)
    asked = draw.choice(facts.named)
    hints = [sentence for sentence in facts.sentences if sentence != asked]
    lines = [
        f"{host} (host): Welcome back! I read out a sentence, and you tell me what is missing. {facts.gapped(asked)}",
        f"{one}: Give us a hint, please.",
        *(f"{host} (host): {'From the same text' if n == 0 else 'And another'}: {facts.gapped(h)}" for n, h in enumerate(hints)),
        f"{two}: I have it! {facts.title}!",
        f"{host} (host): Right, and the point goes to {two}. The whole sentence was: {asked}",
        f"{one}: {draw.choice(('I was about to say that!', 'Next time I will press sooner.'))}",
    ]
    return "\n".join(lines)


def table(facts: Facts, draw: random.Random) -> str:
    teller, *others = draw.sample(NAMES, 3)
    food = draw.choice(("the soup", "the bread", "the salad", "the potatoes"))
    lines = [f'"Pass me {food}, {others[0]}," said {teller}. "Today I read about {facts.phrase}. Listen to this."']
    for number, sentence in enumerate(facts.sentences):
        if number:
            lines.append(f'{others[number % 2]} put in: "{draw.choice(WONDERING)}"')
        lines.append(
            f'{teller} {draw.choice(("answered", "went on", "replied", "told them"))}: "{sentence.replace(chr(34), chr(39))}"'
        )
    lines.append(f'"{draw.choice(("That is worth knowing", "You should read at table more often"))}," said {others[1]}.')
    return "\n".join(lines)


def debate(facts: Facts, draw: random.Random) -> str:
    chair, one, two = draw.sample(NAMES, 3)
    lines = [f'{chair} (chair): The floor is open on "{facts.phrase}". What in the text weighs most? {one}, please begin.']
    openings = draw.sample(("I rest my case on this:", "The text itself says:", "Nobody can pass over this:"), 3)
    replies = draw.sample(("There is another side to it:", "I hold this against it:", "That leaves out the following:"), 3)
    for number, sentence in enumerate(facts.sentences):
        speaker, words = (two, replies) if number % 2 else (one, openings)
        lines.append(f"{speaker}: {words[number // 2]} {sentence}")
    halves = (len(facts.sentences) + 1) // 2, len(facts.sentences) // 2
    lines.append(
        f"{chair} (chair): {one} brought forward {_points(halves[0])} and {two} {_points(halves[1])}, all from passages on "
        f'"{facts.phrase}". {draw.choice(("Let the readers judge.", "Both may be right at once."))}'
    )
    return "\n".join(lines)


def film(facts: Facts, draw: random.Random) -> str:
    one, two = draw.sample(NAMES, 2)
    actions = draw.sample(
        (
            f"{two} leans closer.",
            "Rain against the window.",
            f"{one} turns a page.",
            "A clock strikes.",
            f"{two} nods slowly.",
            "Silence.",
        ),
        5,
    )
    lines = [
        f"INT. {draw.choice(PLACES)} - {draw.choice(('NIGHT', 'MORNING', 'DUSK'))}",
        f"{one} holds a worn printout. {NUMBERS[len(facts.phrase.split())]} words are underlined in red on it: {facts.phrase}.",
        f"{two.upper()}\nRead it to me. All that it says about that.",
    ]
    for number, sentence in enumerate(facts.sentences):
        lines += [actions[number - 1]] if number else []
        lines.append(f"{one.upper()}\n{sentence}")
    lines.append(f"{two.upper()}\n{draw.choice(('Then we have what we need.', 'So that is how it is.'))}")
    return "\n\n".join((*lines, draw.choice(("CUT TO BLACK.", "FADE OUT."))))


def letter(facts: Facts, draw: random.Random) -> str:
    reader, writer = draw.sample(NAMES, 2)
    opening = draw.choice(
        (
            f'You asked me what "{facts.phrase}" is about, and I promised to look it up.',
            f'Last week you wanted to know what grown-ups mean when they write "{facts.phrase}".',
        )
    )
    asides = draw.sample(
        (
            "Say it aloud once.",
            "That one took me a while, too.",
            "You may ask your teacher about this one.",
            "Not so hard, is it?",
        ),
        2,
    )
    first, *rest = facts.sentences
    half = (len(rest) + 1) // 2
    paragraphs = [
        f"Dear {reader},",
        f"{opening} The first thing I found is this. {first} {asides[0]}",
        f"A little further on there is more. {' '.join(rest[:half])} {asides[1]}",
        *([f"And I would not keep this from you: {' '.join(rest[half:])}"] if rest[half:] else []),
        draw.choice(("Write to me if you find out more.", "Next time I will tell you the rest.")),
        f"Yours, {writer}.",
    ]
    return "\n\n".join(paragraphs)


def _points(number: int) -> str:
    return f"{number} {'point' if number == 1 else 'points'}"


TALKS: dict[str, Form] = {"lesson": lesson, "quiz": quiz, "table": table, "debate": debate, "film": film, "letter": letter}
