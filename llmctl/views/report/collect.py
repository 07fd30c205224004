"""What a run's folder says, as plain values. A run that is being written, or that an older version made, is read as far as it
goes."""

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llmctl.runs.artifact import MANIFEST, Artifact
from llmctl.runs.files import finite
from llmctl.runs.state import status
from llmctl.runs.store import RECIPE_FILE, Run, changed
from llmctl.views.report.reading import Reader, inner, inner_mapping, number, numbers

NOT_BEGUN = "not begun"
ON_TEXT = ("pretrain", "midtrain", "longctx")
MARKS = (MANIFEST, "state.json", "metrics.jsonl", "log.jsonl")
"""An artifact has at least one of these."""


@dataclass(slots=True)
class StageRecord:
    """A node of the run's graph: its newest artifact, or, where there is none yet, only its name."""

    name: str
    kind: str = ""
    key: str = ""
    folder: str = ""
    status: str = NOT_BEGUN
    manifest: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    job: dict[str, Any] = field(default_factory=dict)
    steps: list[dict[str, Any]] = field(default_factory=list)
    """Lines of the metrics file that are about a training step."""
    measured: list[dict[str, Any]] = field(default_factory=list)
    """Its other lines: what was measured between steps."""
    log: list[dict[str, Any]] | None = None
    """Messages and tables; None: the version that made it kept no log."""
    scores: dict[str, Any] = field(default_factory=dict)
    long: dict[str, Any] = field(default_factory=dict)
    answers: list[dict[str, Any]] = field(default_factory=list)
    sources: dict[str, Any] = field(default_factory=dict)
    attrition: list[dict[str, Any]] = field(default_factory=list)
    parents: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    """What it is made from that is no part of the run."""
    older: list[str] = field(default_factory=list)
    """Other artifacts of the same name: of other keys of the recipe."""

    @property
    def done(self) -> bool:
        return self.status == "done"

    @property
    def running(self) -> bool:
        return self.status.startswith("running")

    @property
    def metrics(self) -> dict[str, float]:
        return numbers(self.manifest.get("metrics"))

    @property
    def seconds(self) -> float | None:
        """Of the last process that worked on it; of a stage that is not done, since its log began."""
        if (whole := number(self.manifest.get("seconds"))) is not None:
            return whole
        first = number(self.log[0].get("time")) if self.log else None
        last = time.time() if self.running else number(self.state.get("updated"))
        return None if first is None or last is None else max(0.0, last - first)

    @property
    def tokens(self) -> float:
        """Trained so far."""
        return max((number(step.get("tokens")) or 0.0 for step in self.steps), default=0.0)

    @property
    def warnings(self) -> list[dict[str, Any]]:
        return [line for line in self.log or [] if line.get("level") == "warning"]

    @property
    def tables(self) -> list[dict[str, Any]]:
        return [line for line in self.log or [] if line.get("kind") == "Table"]


@dataclass(slots=True)
class RunRecord:
    name: str
    folder: str
    read_at: float
    recipe: dict[str, Any]
    """`recipe.json`: path, overrides, and "resolved", every key with its value."""
    stages: list[StageRecord]
    """Parents before children."""
    notes: list[str]
    """What could not be read, or does not belong together."""

    @property
    def resolved(self) -> dict[str, Any]:
        return inner_mapping(self.recipe, "resolved")

    @property
    def trained(self) -> list[StageRecord]:
        return [stage for stage in self.stages if stage.steps]

    @property
    def running(self) -> bool:
        return any(stage.running for stage in self.stages)

    @property
    def reference_source(self) -> str:
        """The text that stages are compared on, as `Recipe.reference_source` has it."""
        sources = inner_mapping(self.resolved, "corpus", "sources")
        texts = [name for name in sources if inner(sources, name, "kind") == "text"]
        return next((name for name in texts if inner(sources, name, "path") == "builtin:python-stdlib"), (texts or ["text"])[0])

    def of_kind(self, *kinds: str) -> list[StageRecord]:
        return [stage for stage in self.stages if stage.kind in kinds]

    def plain(self) -> dict[str, Any]:
        """For JSON; steps as columns."""
        values = asdict(self)
        for stage in values["stages"]:
            names = dict.fromkeys(name for step in stage["steps"] for name in step)
            stage["steps"] = {name: [step.get(name) for step in stage["steps"]] for name in names}
        return finite(values)


def collect(folder: Path) -> RunRecord:
    """Read a run's folder."""
    reader = Reader(folder)
    recipe = reader.mapping(folder / RECIPE_FILE)
    if not (folder / RECIPE_FILE).exists():
        reader.notes.append(f"{RECIPE_FILE}: missing; the order of the stages is that of their making")
    found: dict[str, list[Artifact]] = {}
    for artifact in Run(folder).artifacts:
        if artifact.stage and any((artifact.folder / name).exists() for name in MARKS):
            found.setdefault(artifact.stage, []).append(artifact)
    stages = {name: _stage(reader, artifacts) for name, artifacts in found.items()}
    tables = inner_mapping(recipe, "resolved", "stages")
    for name, kind in _planned(recipe, tables).items():
        stages.setdefault(name, StageRecord(name)).kind = kind
    order = [*_planned(recipe, tables), *found]
    for stage in stages.values():
        _add_parents(stage, inner_mapping(tables, stage.name), stages, folder.name)
        reader.notes += _strange_parents(stage, stages)
    ordered = _parents_first({name: stages[name] for name in dict.fromkeys(order)})
    return RunRecord(folder.name, str(folder), time.time(), recipe, ordered, reader.notes)


def _stage(reader: Reader, artifacts: list[Artifact]) -> StageRecord:
    """Of several artifacts of one name the newest that is finished or at work."""
    at_work = [one for one in artifacts if one.done or status_of(one).startswith("running")]
    chosen = max(at_work or artifacts, key=changed)
    folder = chosen.folder
    running = status_of(chosen).startswith("running")
    lines = reader.lines(chosen.metrics_path, running)
    manifest, state = reader.mapping(folder / MANIFEST), reader.mapping(folder / "state.json")
    return StageRecord(
        name=chosen.stage,
        kind=str(manifest.get("kind") or state.get("kind") or chosen.stage),
        key=chosen.key,
        folder=str(folder),
        status=status_of(chosen),
        manifest=manifest,
        state=state,
        job=reader.mapping(folder / "job.json"),
        steps=[line for line in lines if number(line.get("tokens")) is not None and "loss" in line],
        measured=[line for line in lines if "loss" not in line],
        log=reader.lines(chosen.log_path, running) if chosen.log_path.exists() else None,
        scores=reader.mapping(folder / "scores.json"),
        long=reader.mapping(folder / "long" / "scores.json"),
        answers=reader.rows(folder / "answers.json"),
        sources=reader.mapping(folder / "stats.json"),
        attrition=reader.rows(folder / "attrition.json"),
        older=[f"{one.name} ({status_of(one)})" for one in artifacts if one is not chosen],
    )


def status_of(artifact: Artifact) -> str:
    """As `llmctl runs` shows it, where its state can be read."""
    try:
        return status(artifact)
    except (KeyError, TypeError, ValueError, AttributeError):
        return "unknown: its state.json is not as this version writes it"


def _planned(recipe: dict[str, Any], tables: dict[str, Any]) -> dict[str, str]:
    """The nodes that the recipe describes, with their kinds."""
    kinds = {name: str(inner(table, "kind") or name) for name, table in tables.items()}
    if not kinds:
        return {}
    before = {name: name for name in ("corpus", "tokenizer", *(["tokens"] if set(kinds.values()) & {*ON_TEXT} else []))}
    return before | kinds | ({"eval": "eval"} if inner(recipe, "resolved", "eval", "suites") else {})


def _add_parents(stage: StageRecord, table: dict[str, Any], stages: dict[str, StageRecord], run: str) -> None:
    recorded = inner_mapping(stage.manifest, "parents")
    for name, parent in recorded.items():
        folder = str(inner(parent, "folder") or name)
        if name in stages and folder.startswith(f"{run}/"):
            stage.parents.append(name)
        else:
            stage.outside.append(folder)
    named = table.get("of") or [table.get("from")]
    stage.outside += [str(name) for name in named if name is not None and name not in stages]
    if not recorded:
        stage.parents += [name for name in (named if any(named) else _usual_parents(stage, stages)) if name in stages]


def _usual_parents(stage: StageRecord, stages: dict[str, StageRecord]) -> list[str]:
    """Of a node that has not said yet what it is made from."""
    usual = {"corpus": [], "tokenizer": ["corpus"], "tokens": ["tokenizer"]}
    return [name for name in stages if name != stage.name] if stage.kind == "eval" else usual.get(stage.kind, ["tokens"])


def _strange_parents(stage: StageRecord, stages: dict[str, StageRecord]) -> list[str]:
    """A stage whose parent has been made anew since."""
    return [
        f"{stage.name}-{stage.key} was made from {name}-{parent['key']}, and the newest {name} is another one: {stages[name].key}"
        for name, parent in inner_mapping(stage.manifest, "parents").items()
        if name in stage.parents and inner(parent, "key") not in (None, stages[name].key)
    ]


def _parents_first(stages: dict[str, StageRecord]) -> list[StageRecord]:
    """Otherwise in the order given; what stands in a circle comes at the end."""
    ordered: dict[str, StageRecord] = {}
    while len(ordered) < len(stages):
        left = [stage for name, stage in stages.items() if name not in ordered]
        ready = [stage for stage in left if all(name in ordered for name in stage.parents)]
        ordered[(ready or left)[0].name] = (ready or left)[0]
    return list(ordered.values())
