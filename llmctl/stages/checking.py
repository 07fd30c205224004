"""`llmctl check`: every stage of a recipe and their fit to each other, the disk and the storage, without any work."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.preflight.disk import Disk, corpus_bytes, peak_of_run, text_bytes
from llmctl.preflight.plan import check_groups, check_shared
from llmctl.preflight.storage import faults_of, file_system, nearest_folder
from llmctl.recipe.chat_schema import ChatTable, LoraTable
from llmctl.recipe.corpus_schema import BUILTIN_BYTES
from llmctl.recipe.fields import BUILTIN, is_path
from llmctl.recipe.graph import line_of, stage_order
from llmctl.recipe.load import load_recipe
from llmctl.recipe.schema import AverageTable, LongContextTable, Recipe, TrainTable
from llmctl.runs.store import RunStore, default_root
from llmctl.stages.bench import starting_shape
from llmctl.stages.checked import Finding, Level, found, local_files, look_at_source, look_at_template, look_at_tokenizer
from llmctl.stages.planning import StageNeeds, Wanted, lengths_before, machine_of, needs_of, with_vocabulary
from llmctl.stages.questions import check_questions
from llmctl.stages.remaking import standings
from llmctl.stages.trackers import require_trackers
from llmctl.wording import gib

MOST_HASHED = 20_000_000_000
"""Bytes of sources that are hashed to tell what is done before; of more the run itself has to."""


@dataclass
class Check:
    """A recipe that is being checked, and what is known so far."""

    recipe: Recipe
    store: RunStore
    ranks: int | None
    on_gpus: bool
    """Whether the ranks are meant for GPUs, which need not be here."""
    findings: list[Finding] = field(default_factory=list)
    needs: dict[str, StageNeeds] = field(default_factory=dict)
    texts: dict[str, int] = field(default_factory=dict)
    """Bytes of text of each source, where they can be told."""
    models: dict[Any, Any] = field(default_factory=dict)
    """What `needs_of` knows of models."""

    @property
    def trained(self) -> list[TrainTable]:
        return [table for table in stage_order(self.recipe) if isinstance(table, TrainTable)]


def check_recipe(
    file: Path, overrides: list[str], smoke: bool, gpus: int | None, processes: int | None, runs: Path | None
) -> list[Finding]:
    """All that can be known of a recipe before it is run on so many ranks. Nothing is made, and nothing stays written."""
    try:
        recipe = load_recipe(file, overrides, smoke=smoke)
    except UserError as error:
        return [Finding("recipe", "error", str(error))]
    check = Check(recipe, RunStore(runs or default_root()), gpus or processes, gpus is not None)
    names = ", ".join(recipe.stages) or "none"
    check.findings.append(Finding("recipe", "ok", f"{recipe.name}: its tables fit each other; stages: {names}"))
    check.findings += found("tasks", lambda: asked(recipe))
    for name, source in recipe.corpus.sources.items():
        check.findings += found(f"source {name}", lambda name=name, source=source: look_at_source(name, source))
    check.findings += found("tokenizer", lambda: look_at_tokenizer(recipe))
    for table in check.trained:
        check.findings += found(table.name, lambda table=table: look_at_stage(check, table))
        if isinstance(table, ChatTable):
            check.findings += found(table.name, lambda table=table: look_at_template(recipe, table))
    check.findings += found("trackers", lambda: trackers(recipe))
    check.findings += found("disk", lambda: disk(check))
    check.findings += found("storage", lambda: storage(check))
    check.findings += found("done before", lambda: done_before(check))
    return check.findings


def asked(recipe: Recipe) -> Iterator[tuple[Level, str]]:
    check_questions(recipe)
    yield "ok", f"known: {', '.join(recipe.eval.suites) or 'none are asked'}"


def look_at_stage(check: Check, table: TrainTable) -> Iterator[tuple[Level, str]]:
    """The stage can be planned on this machine, and fits what it starts from."""
    ranks = check.ranks or table.processes
    (check_groups if table.batch_tokens is None else check_shared)(table, ranks)
    if isinstance(table, LoraTable) and table.quantize != "none" and not check.on_gpus:
        from llmctl.model.quantized import require_nf4

        require_nf4()
    recipe, notes = with_vocabulary(check.recipe)
    for note in notes:
        yield "ok", note
    try:
        starting_shape(recipe, table)
    except UserError as error:
        if not asks_the_hub(recipe, table):
            raise
        yield "warning", f"its model cannot be looked at here: {str(error).splitlines()[0]}"
        return
    needs = needs_of(recipe, table, machine_of(ranks, Wanted()), None, False, check.models, timed=False)
    check.needs[table.name] = needs
    steps = "steps by epochs" if needs.steps is None else f"{needs.steps:,} steps"
    told = f"{needs.parameters:,} weights, {needs.trained:,} of them trained; {steps} of {needs.rows} x {needs.seq_len:,} tokens"
    yield "ok", f"{told}; {ranks} rank{'s' if ranks > 1 else ''}"
    yield memory(check, needs)
    if needs.context is not None:
        yield "ok", needs.context
    yield from look_at_parent(recipe, table)


def memory(check: Check, needs: StageNeeds) -> tuple[Level, str]:
    import torch

    if check.on_gpus and not torch.cuda.is_available():
        return "ok", f"memory is not judged: no GPU is here; llmctl plan RECIPE --gpus {check.ranks} --gpu NAME does"
    size = f"{gib(needs.needs)} of {gib(needs.usable)} GiB of memory"
    return ("ok", size) if needs.fits else ("warning", f"does not fit here, {size}; llmctl plan says what would help")


def asks_the_hub(recipe: Recipe, table: TrainTable) -> bool:
    """Whether what a stage starts from, or its tokenizer, may have to come from the hub."""
    first = line_of(recipe, table)[-1]
    outside = first.of[0] if isinstance(first, AverageTable) else first.from_
    tokenizer = recipe.tokenizer.path if recipe.tokenizer is not None else None
    return any(place is not None and not Path(place).expanduser().exists() for place in (outside, tokenizer))


def look_at_parent(recipe: Recipe, table: TrainTable) -> Iterator[tuple[Level, str]]:
    outside = table.from_ is not None and table.from_ not in recipe.stages
    if outside and table.carry_optimizer:
        yield "warning", f"{table.from_} is no stage of this recipe and has no trainer state: moments start at zero"
    if table.from_ is None or isinstance(table, LongContextTable):
        return
    longest = max(lengths_before(recipe, table))
    if table.seq_len > longest:
        yield "warning", f"rows of {table.seq_len:,} tokens are longer than the {longest:,} that its parent was trained for"


def trackers(recipe: Recipe) -> Iterator[tuple[Level, str]]:
    require_trackers(recipe.tracking)
    for name in recipe.tracking.to:
        yield "ok", f"{name} is installed"


def disk(check: Check) -> Iterator[tuple[Level, str]]:
    """Free bytes where the runs lie, beside what the run takes at its largest."""
    unknown = []
    for name, source in check.recipe.corpus.sources.items():
        if source.path.startswith(BUILTIN):
            check.texts[name] = source.max_bytes or BUILTIN_BYTES[source.path]
        elif source.kind == "tokens":
            check.texts[name] = 0  # read where they are
        elif is_path(source.path):
            check.texts[name] = text_bytes(local_files(source), source.max_bytes)
        elif source.max_bytes is not None:
            check.texts[name] = source.max_bytes
        else:
            unknown.append(name)
    stages = [Disk(need.cost.disk_left, need.cost.disk_peak) for need in check.needs.values()]
    corpus, left, total = corpus_bytes(check.texts.values()), sum(stage.left for stage in stages), peak_of_run(stages)
    most, total = max(0, total - left), total + corpus
    there = folder_bytes(check.store.root / check.recipe.name)
    free = shutil.disk_usage(nearest_folder(check.store.root)).free
    parts = f"about {gib(corpus)} for corpus and tokens, {gib(left)} for what stages leave, {gib(most)} for checkpoints"
    told = f"{gib(total)} GiB at the largest ({parts}); {gib(free)} GiB are free"
    told += f", and {gib(there)} are taken by the run already" if there else ""
    yield (
        ("error", f"{told}; name another disk with --runs, or lower [STAGE.checkpoint] keep")
        if total - there > free
        else ("ok", told)
    )
    if missing := [*unknown, *(table.name for table in check.trained if table.name not in check.needs)]:
        yield "warning", f"not counted, since their size is not known here: {', '.join(missing)}"


def folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def storage(check: Check) -> Iterator[tuple[Level, str]]:
    """Runs and sources on disks that the nodes of the run see, which keep what artifacts rely on."""
    several = several_nodes()
    folder = nearest_folder(check.store.root)
    sources = [source.path for source in check.recipe.corpus.sources.values() if is_path(source.path)]
    for place in dict.fromkeys([folder, *(Path(path).expanduser() for path in sources)]):
        system = file_system(place)
        if system is None:
            continue
        if system.shared:
            yield "ok", f"{place} is on {system.kind} ({system.mount}), which other nodes may see"
        elif several:
            yield (
                "error",
                f"{place} is on {system.kind} ({system.mount}), which this node alone sees; every node reads and writes it",
            )
        elif place == folder:
            yield "ok", f"{place} is on {system.kind} ({system.mount}): enough for one node; several need a disk that all see"
    try:
        faults = faults_of(folder)
    except OSError as error:
        raise UserError(f"{folder}: nothing can be written there: {error.strerror}") from None
    for fault in faults:
        yield "error", f"{folder}: {fault}"
    if not faults:
        yield "ok", f"{folder} can be written; renames and locks hold (tried with files that are gone again)"


def several_nodes() -> bool:
    """Whether a launcher or SLURM has given this process more than one node."""
    nodes = os.environ.get("SLURM_NNODES", "1")
    world, here = os.environ.get("WORLD_SIZE", "1"), os.environ.get("LOCAL_WORLD_SIZE", "")
    return (nodes.isdigit() and int(nodes) > 1) or (world.isdigit() and here.isdigit() and int(world) > int(here))


def done_before(check: Check) -> Iterator[tuple[Level, str]]:
    folder = check.store.root / check.recipe.name
    if not folder.is_dir():
        yield "ok", f"nothing; the run will be in {folder}"
        return
    if sum(check.texts.values()) > MOST_HASHED:
        yield "ok", f"not told: {folder} is there, and the sources would take long to hash"
        return
    all_of = list(standings(check.recipe, check.store))
    done = [standing.node for standing in all_of if standing.done]
    yield "ok", f"{', '.join(done) or 'nothing'} in {folder}"
    for standing in all_of:
        if not standing.done:
            yield "ok", f"{standing.node} {standing.told}"
