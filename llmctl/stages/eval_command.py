"""`llmctl eval`: what is measured on which checkpoints, and where the numbers go."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, cast, get_args

from llmctl import events
from llmctl.errors import UserError
from llmctl.recipe.schema import EvalTable, Recipe
from llmctl.runs.artifact import Artifact
from llmctl.runs.files import write_json
from llmctl.runs.store import RunStore
from llmctl.stages.adapters import is_adapter
from llmctl.stages.compared import Compared, resolve
from llmctl.stages.measure import Precision
from llmctl.stages.scoring import Checkpoint, Request, Scores, score
from llmctl.stages.texts import own_texts
from llmctl.suites import catalog


@dataclass(frozen=True, slots=True)
class Measures:
    """What is measured; None: as the recipe says, or else its defaults."""

    names: tuple[str, ...] = ()
    """Suites and tasks; empty: the recipe's."""
    few_shot: bool = False
    shots: int | None = None
    questions: int | None = None
    """0: all."""
    seed: int | None = None
    chat: bool = False
    allow_code: bool = False
    show: int = 0
    precision: Precision = "auto"
    harness_tasks: Path | None = None
    perplexity: bool = False
    texts: tuple[Path, ...] = ()
    stride: int | None = None
    window: int | None = None
    long: bool = False
    over_run: bool = False

    @property
    def tasks(self) -> bool:
        """Whether questions are asked: where they are named, or nothing else is wanted."""
        others = self.perplexity or self.texts or self.long
        return bool(self.names) or self.few_shot or self.shots is not None or self.over_run or not others

    def request(self, recipe: Recipe | None) -> Request:
        table = recipe.eval if recipe is not None else EvalTable()
        shots = table.shots if self.shots is None else self.shots
        return Request(
            self.names or tuple(table.suites),
            self.seed if self.seed is not None else recipe.seed if recipe is not None else 1,
            table.questions if self.questions is None else self.questions or None,
            self.shots,
            tuple(sorted({shots, 0} if self.few_shot else {self.shots or 0})),
            self.chat,
            self.allow_code,
            self.show,
            self.precision,
            self.harness_tasks,
        )


@dataclass(frozen=True, slots=True)
class Output:
    """Where the numbers go beside the terminal."""

    json: Path | None = None
    harness: Path | None = None
    """Folder for files in the results format of lm-evaluation-harness."""
    plots: Path | None = None

    def check(self, wanted: Measures) -> None:
        """Raises:
        UserError: a place cannot be written to, or nothing would be.
        """
        if self.json is not None and not self.json.absolute().parent.is_dir():
            raise UserError(f"--json {self.json}: there is no folder {self.json.parent}")
        if self.json is not None and self.json.is_dir():
            raise UserError(f"--json {self.json}: a folder; expected a file")
        for option, folder in (("--lm-eval-json", self.harness), ("--plots", self.plots)):
            if folder is not None and folder.is_file():
                raise UserError(f"{option} {folder}: a file; expected a folder")
        if self.plots is not None and not (wanted.long or wanted.over_run):
            raise UserError("--plots draws what --long or --over-run measures: give one of them, too")
        if self.harness is not None and (wanted.over_run or not wanted.tasks):
            raise UserError("--lm-eval-json holds scores of tasks: name some with --suite or --task, and leave --over-run out")


def check(names: Sequence[str], wanted: Measures, against: str | None, compared: Compared) -> None:
    """Before hours of work: options that would do nothing, and what would stop it at the end.

    Raises:
        UserError: there is one.
    """
    if (wanted.stride or wanted.window) and not (wanted.perplexity or wanted.texts):
        raise UserError("--stride and --window are those of --perplexity and --text: give one of them, too")
    if wanted.harness_tasks is not None and not catalog.split(wanted.names)[1]:
        raise UserError("--lm-eval-tasks is where lm-eval:NAME is looked for: name such a task with --task")
    if wanted.over_run and (against is not None or len(names) > 1 or wanted.show or wanted.long):
        raise UserError("--over-run follows one checkpoint: leave --against, --show-prompts, --long and further checkpoints out")
    if wanted.long and (compared.corpus is None or compared.recipe is None):
        raise UserError(
            "--long measures on held-out text, and there is no run; start one with `llmctl run recipes/olmo_small.toml`"
        )
    if wanted.long and any(is_adapter(one.model) for one in compared.checkpoints):
        raise UserError("--long takes whole models: `llmctl merge` makes one of an adapter")
    if wanted.long and len(compared.checkpoints) > 2:
        raise UserError("--long compares two checkpoints at most")
    for text in wanted.texts:
        own_texts(text)


def questions_of(text: str | None) -> int | None:
    """The number that `--questions` means; 0: all.

    Raises:
        UserError: it is none.
    """
    if text is None or text == "all":
        return None if text is None else 0
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"--questions {text}: expected a number from 1 on, or all")
    return int(text)


def precision_of(text: str) -> Precision:
    """Raises:
    UserError: it is no precision.
    """
    if text not in get_args(Precision):
        raise UserError(f"--precision {text}: expected {', '.join(get_args(Precision))}")
    return cast(Precision, text)


def evaluate_checkpoints(
    names: Sequence[str], wanted: Measures, against: str | None, base: str | None, out: Output, runs: Path | None
) -> None:
    """Measure checkpoints beside a parent or another one: tables, JSON, a note in the manifests of those that belong to a run."""
    out.check(wanted)
    compared = resolve(names, against, base, runs)
    check(names, wanted, against, compared)
    values: dict[str, Any] = {"model": compared.subject.model}
    if wanted.over_run:
        values |= _ask_over_run(compared, wanted, out)
    elif wanted.tasks:
        values |= _ask(compared, wanted, out)
    if wanted.perplexity or wanted.texts:
        from llmctl.stages.perplexity import measure_perplexity

        corpus = compared.corpus if wanted.perplexity else None
        values["perplexity"] = measure_perplexity(
            compared.checkpoints, corpus, compared.recipe, wanted.texts, wanted.stride, wanted.window, wanted.precision
        )
    if wanted.long:
        from llmctl.stages.long_eval import evaluate_long

        assert compared.corpus is not None
        assert compared.recipe is not None
        values["long"] = evaluate_long(compared.checkpoints, compared.corpus, compared.recipe, out.plots, wanted.precision)
    if out.json is not None:
        write_json(out.json, values)


def _ask(compared: Compared, wanted: Measures, out: Output) -> dict[str, Any]:
    from llmctl.stages.score_tables import plain, show, show_prompts

    request, started = wanted.request(compared.recipe), datetime.now()
    scores = score(compared.checkpoints, request, compared.corpus, compared.recipe)
    show_prompts(scores, compared.subject.name)
    show(scores)
    values = plain(scores)
    for name, owner in compared.owners.items():
        noted = [as_note(row, owner, request) for row in values["results"] if row["checkpoint"] == name]
        if not owner.note_evaluations(noted):
            events.warn(f"{owner.folder}: its manifest cannot be written, and the scores are not noted there")
    if out.harness is not None:
        write_harness(scores, out.harness, started)
    return values


def _ask_over_run(compared: Compared, wanted: Measures, out: Output) -> dict[str, Any]:
    from llmctl.stages.over_run import curves_of, measure_over_run
    from llmctl.stages.score_tables import plain, tell_left_out

    artifact = compared.owners.get(compared.subject.name)
    if artifact is None:
        raise UserError(f"--over-run follows the run that a checkpoint comes from, and {compared.subject.model} is of none")
    if Path(compared.subject.model).parent.name == "kept":
        raise UserError(f"--over-run ends with a stage's own model, and {compared.subject.model} is one on its way")
    values: dict[str, Any] = {}

    def ask(checkpoints: list[Checkpoint]) -> list[Any]:
        scores = score(checkpoints, wanted.request(compared.recipe), compared.corpus, compared.recipe)
        values.update(plain(scores))
        for checkpoint in checkpoints:
            tell_left_out(scores, checkpoint.name)
        return curves_of(scores)

    curves = measure_over_run(RunStore(artifact.folder.parent.parent), artifact, ask, out.plots)
    return values | {"over_run": curves}


def as_note(row: dict[str, Any], owner: Artifact, request: Request) -> dict[str, Any]:
    """A row of the scores as the manifest of the model's artifact keeps it: how it was asked, and what was found."""
    keys = ("task", "version", "form", "shots", "seed", "template", "measure", "normalisation", "questions")
    asked = {key: row[key] for key in keys} | {"precision": request.precision}
    asked["model"] = str(Path(row["model"]).resolve().relative_to(owner.folder.resolve()))
    return {"asked": asked, "found": {key: row[key] for key in ("value", "stderr", "chance")}}


def write_harness(scores: Scores, folder: Path, started: datetime) -> None:
    """One file a checkpoint, in the results format of lm-evaluation-harness. It has one number of examples for each task: with
    several, each is a task of its own."""
    from llmctl.evals.harness_format import ModelScores, write_results
    from llmctl.stages.adapters import tokenizer_for_model
    from llmctl.stages.score_tables import aggregates

    several = Counter(line.name for line in scores.lines)
    names = [line.name if several[line.name] == 1 else f"{line.name}-{line.shots}shot" for line in scores.lines]
    made = aggregates(scores)
    for checkpoint in scores.checkpoints:
        template = tokenizer_for_model(checkpoint.model, checkpoint.base).chat_template if scores.request.chat else None
        found = ModelScores(
            checkpoint.model,
            [replace(line.results[checkpoint.name], task=name) for name, line in zip(names, scores.lines, strict=True)],
            {one.name: (of_checkpoint[checkpoint.name], one.members) for one, of_checkpoint, _ in made},
            [scores.harness[checkpoint.name]] if scores.harness else [],
            {name: line.version for name, line in zip(names, scores.lines, strict=True)},
            {name: line.of for name, line in zip(names, scores.lines, strict=True)},
            template,
        )
        events.say(f"written: {write_results(folder, found, scores.request.asking(None), started, datetime.now())}")
