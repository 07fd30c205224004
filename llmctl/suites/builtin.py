"""Tasks made from held-out source: real code, and distractors from the same code.

- docstring: the summary that belongs to a function, among those of other functions of the same file;
- next_line: the line that follows, among other lines of the same file at the same depth;
- module: the module that a name is imported from, among other modules of the held-out files' imports;
- copy: the continuation of a list of names that stood before, among the same names in other orders;
- pattern: the next name of a repeating pattern, among the pattern's other names and a new one.

The last two need no knowledge: they tell a model that looks back from one that guesses.
"""

import random
from collections.abc import Iterator, Sequence

from llmctl.python_source import definitions, imports, parse
from llmctl.suites.task import Question, Task

VERSION = 2
CHOICES = 4
POOL = 24
LONGEST_CODE = 450  # characters, about 130 tokens: a prompt with three examples stays well under 1,024
LONGEST_FUNCTION = 600
PER_FILE = 24
TASKS = {
    "docstring": "which docstring belongs to this function",
    "next_line": "which line comes next",
    "module": "which module a name is imported from",
    "copy": "which names continue a list that stood before",
    "pattern": "which name continues a repeating pattern",
}

Documents = list[tuple[str, str]]
"""(text, path)."""


def builtin_tasks(documents: Documents, seed: int, questions: int, names: Sequence[str] = ("builtin",)) -> list[Task]:
    """The built-in tasks of these names ("builtin": all) from held-out documents, at most `questions` each; the same for
    the same documents and seed."""
    parsed = [(text, path) for text, path in documents if parse(text) is not None]
    makers = (docstring_questions, next_line_questions, module_questions, copy_questions, pattern_questions)
    tasks = []
    for (name, description), make in zip(TASKS.items(), makers, strict=True):
        if name not in names and "builtin" not in names:
            continue
        chance = random.Random(f"{seed}/{name}/{VERSION}")
        found = list(make(parsed, chance))
        chance.shuffle(found)
        size = min(POOL, len(found) // 3)
        pool, asked = found[:size], found[size : size + questions]
        tasks.append(Task(name, VERSION, description, tuple(asked), tuple(pool)))
    return tasks


def ask(context: str, right: str, wrong: list[str], chance: random.Random) -> Question:
    """A question with its choices in random order. White space at the end of the context goes to the choices: it is scored with
    them, and counts in their length."""
    space = context[len(context.rstrip()) :]
    choices = [right, *wrong]
    chance.shuffle(choices)
    return Question(context.rstrip(), tuple(space + choice for choice in choices), choices.index(right))


def docstring_questions(documents: Documents, chance: random.Random) -> Iterator[Question]:
    for text, _ in documents:
        tree = parse(text)
        assert tree is not None
        found = {}
        for definition in definitions(text, tree):
            summary = definition.summary
            if not definition.is_class and 15 <= len(summary) <= 120 and len(definition.source) <= LONGEST_FUNCTION:
                found[summary] = definition
        if len(found) < CHOICES:
            continue
        for summary in chance.sample(sorted(found), min(PER_FILE, len(found))):
            near = sorted((other for other in found if other != summary), key=lambda other: abs(len(other) - len(summary)))
            wrong = chance.sample(near[:6], CHOICES - 1) if len(near) >= 6 else near[: CHOICES - 1]
            yield ask(f"{found[summary].source}\n\n# What it does: ", summary + "\n\n", [w + "\n\n" for w in wrong], chance)


def next_line_questions(documents: Documents, chance: random.Random) -> Iterator[Question]:
    for text, _ in documents:
        lines = text.splitlines()
        places = [n for n in range(12, len(lines)) if telling(lines[n]) and sum(map(telling, lines[n - 6 : n])) >= 4]
        chance.shuffle(places)
        made = 0
        for place in places:
            right = lines[place]
            depth = len(right) - len(right.lstrip())
            near = {
                line for line in map(str.rstrip, lines)
                if telling(line) and len(line) - len(line.lstrip()) == depth and line.strip() != right.strip()
            }  # fmt: skip
            before = "\n".join(lines[max(0, place - 10) : place])[-LONGEST_CODE:]
            wrong = sorted((w for w in near if w not in before), key=lambda w: (abs(len(w) - len(right)), w))[:8]
            if len(wrong) < CHOICES - 1:
                continue
            yield ask(before + "\n", right.rstrip() + "\n", [w + "\n" for w in chance.sample(wrong, CHOICES - 1)], chance)
            made += 1
            if made == PER_FILE:
                break


def telling(line: str) -> bool:
    """Whether a line says enough to be asked for."""
    stripped = line.strip()
    return len(stripped) >= 12 and any(c.isalpha() for c in stripped) and not stripped.startswith(("#", '"""', "'''"))


def module_questions(documents: Documents, chance: random.Random) -> Iterator[Question]:
    found: dict[str, str] = {}
    for text, _ in documents:
        tree = parse(text)
        assert tree is not None
        for _, module, name in imports(tree):
            if not module.startswith("_"):
                found.setdefault(name, module)
    modules = sorted(set(found.values()))
    if len(modules) < CHOICES:
        return
    for name, module in sorted(found.items()):
        # Modules of other top-level packages: `os` for a name of `os.path` would not be plainly wrong.
        others = [m for m in modules if m.split(".")[0] != module.split(".")[0]]
        if len(others) >= CHOICES - 1:
            wrong = chance.sample(others, CHOICES - 1)
            yield ask(f"# {name} is imported from its module:\nfrom ", f"{module} import {name}\n",
                      [f"{w} import {name}\n" for w in wrong], chance)  # fmt: skip


def names_of(documents: Documents) -> list[str]:
    """Short names that the documents define."""
    found: set[str] = set()
    for text, _ in documents:
        tree = parse(text)
        assert tree is not None
        found |= {d.name for d in definitions(text, tree) if 3 <= len(d.name) <= 10 and d.name.isalpha()}
    return sorted(found)


def copy_questions(documents: Documents, chance: random.Random) -> Iterator[Question]:
    names = names_of(documents)
    for _ in range(400 if len(names) >= 12 else 0):
        listed = chance.sample(names, 10)
        at = chance.randrange(2, 6)
        right = listed[at : at + 3]
        wrong: list[list[str]] = []
        while len(wrong) < CHOICES - 1:
            other = chance.sample([n for n in listed if n not in listed[:at]], 3)
            if other[0] != right[0] and other not in wrong and len({w[0] for w in wrong} | {other[0]}) == len(wrong) + 1:
                wrong.append(other)
        context = f"first = [{', '.join(listed)}]\nsecond = [{', '.join(listed[:at])}, "
        yield ask(context, ", ".join(right) + ",", [", ".join(w) + "," for w in wrong], chance)


def pattern_questions(documents: Documents, chance: random.Random) -> Iterator[Question]:
    names = names_of(documents)
    for _ in range(400 if len(names) >= 12 else 0):
        period = chance.randrange(2, 4)
        *cycle, new, newer = chance.sample(names, period + 2)
        length = chance.randrange(3 * period, 5 * period)
        shown = [cycle[index % period] for index in range(length)]
        right = cycle[length % period]
        wrong = ([name for name in cycle if name != right] + [new, newer])[: CHOICES - 1]
        yield ask(f"[{', '.join(shown)}, ", right + ",", [w + "," for w in wrong], chance)
