"""builtin:python-docstrings and builtin:python-errors: conversations about real functions, made from source by `ast`.

The first asks what a function does, for its signature, for the module of a name, for an example; the second, a skill of its
own, which error a function raises and with what message. Phrasings vary by seed. Prompts and answers are short, so
that several fit a row of 512 tokens; the answers to "signature", "module" and "error" stand in the question.
"""

import random
from collections.abc import Callable, Iterable, Iterator

from llmctl.corpus.documents import Conversation, Document
from llmctl.python_source import Definition, FunctionNode, definitions, imports, parse, raised

LONGEST_SOURCE = 600  # characters of code in a question
LONGEST_ANSWER = 160
PER_FILE = 24  # so that no large file dominates

Turn = tuple[str, str, str]
"""(kind, question, answer)."""

ASK_DOCSTRING = (
    "What does this {what} do?\n\n{code}",
    "Explain in one sentence what `{name}` does.\n\n{code}",
    "Write a one-line docstring for this {what}.\n\n{code}",
    "{code}\n\nSummarise the {what} above.",
)
ASK_SIGNATURE = (
    "What is the signature of `{name}`?\n\n{code}",
    "{code}\n\nGive the signature of this {what}.",
    "How is `{name}` declared?\n\n{code}",
)
ASK_MODULE = (
    "{line}\n\nWhich module does `{name}` come from?",
    "Where is `{name}` imported from in this line?\n\n{line}",
    "From which module is `{name}` taken here?\n\n{line}",
)
ASK_EXAMPLE = (
    "Show an example of `{name}`.\n\n{header}\n    {summary}",
    "{header}\n    {summary}\n\nWrite a doctest for this {what}.",
)
ASK_ERROR = (
    "Which error does this function raise, and with what message?\n\n{code}",
    "{code}\n\nWhat can go wrong in `{name}`?",
    "Name the exception in `{name}` and its message.\n\n{code}",
)


def docstring_conversations(documents: Iterable[Document], source: str, seed: int) -> Iterator[Conversation]:
    """Questions about the documented functions, classes and imports of each document."""
    return _conversations(documents, source, seed, _docstring_turns)


def error_conversations(documents: Iterable[Document], source: str, seed: int) -> Iterator[Conversation]:
    """Questions about the errors that functions raise."""
    return _conversations(documents, source, seed, _error_turns)


def _conversations(
    documents: Iterable[Document], source: str, seed: int, turns_of: Callable[[Document, random.Random], Iterator[Turn]]
) -> Iterator[Conversation]:
    for document in documents:
        chance = random.Random(f"{seed}/{source}/{document.id}")
        turns = list(turns_of(document, chance))
        chance.shuffle(turns)
        for number, group in enumerate(_grouped(turns[:PER_FILE], chance)):
            messages = []
            for _, question, answer in group:
                messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            kind = group[0][0] if len(group) == 1 else "several"
            yield Conversation(messages, f"{document.id}#{number}", source, document.path, kind)


def _grouped(turns: list[Turn], chance: random.Random) -> Iterator[list[Turn]]:
    """Mostly single questions, every sixth conversation with two short ones."""
    while turns:
        size = 2 if len(turns) > 1 and chance.random() < 1 / 6 and len(turns[-1][1]) + len(turns[-2][1]) < LONGEST_SOURCE else 1
        yield [turns.pop() for _ in range(size)]


def _docstring_turns(document: Document, chance: random.Random) -> Iterator[Turn]:
    tree = parse(document.text)
    if tree is None:
        return
    seen: set[str] = set()
    for definition in definitions(document.text, tree):
        if definition.name in seen or not definition.docstring:
            continue
        seen.add(definition.name)
        yield from _about(definition, chance)
    found = [item for item in imports(tree) if len(item[0]) <= LONGEST_ANSWER]
    for line, module, name in chance.sample(found, min(4, len(found))):
        yield "module", chance.choice(ASK_MODULE).format(line=line, name=name), f"`{module}`"


def _about(definition: Definition, chance: random.Random) -> Iterator[Turn]:
    what = "class" if definition.is_class else "function"
    filled = {"what": what, "name": definition.name, "code": definition.source, "header": definition.header}
    filled["summary"] = definition.summary
    short = len(definition.source) <= LONGEST_SOURCE
    if short and 15 <= len(definition.summary) <= LONGEST_ANSWER and definition.source != definition.header:
        yield "docstring", chance.choice(ASK_DOCSTRING).format(**filled), definition.summary
    if short and not definition.is_class and len(definition.header) <= LONGEST_ANSWER and definition.header in definition.source:
        yield "signature", chance.choice(ASK_SIGNATURE).format(**filled), f"`{definition.header}`"
    example = _example(definition.docstring)
    if example and len(definition.summary) <= LONGEST_ANSWER:
        yield "doctest", chance.choice(ASK_EXAMPLE).format(**filled), example


def _example(docstring: str) -> str:
    """The first doctest of a docstring with its result, if it is short."""
    lines = [line.strip() for line in docstring.splitlines()]
    for index, line in enumerate(lines):
        if line.startswith(">>> ") and not line.startswith((">>> from", ">>> import")):
            end = index + 1
            while end < len(lines) and lines[end] and not lines[end].startswith(">>>"):
                end += 1
            example = "\n".join(lines[index:end])
            return example if end > index + 1 and len(example) <= LONGEST_ANSWER else ""
    return ""


def _error_turns(document: Document, chance: random.Random) -> Iterator[Turn]:
    tree = parse(document.text)
    if tree is None:
        return
    for definition in definitions(document.text, tree, private=True):
        if not isinstance(definition.node, FunctionNode):
            continue
        found = dict.fromkeys(raised(definition.node))
        if len(found) == 1 and len(definition.source) <= LONGEST_SOURCE:
            ((exception, message),) = found
            if "\n" not in message and f'"{message}"' in definition.source.replace("'", '"'):
                question = chance.choice(ASK_ERROR).format(name=definition.name, code=definition.source)
                yield "error", question, f'It raises {exception} with the message "{message}".'
