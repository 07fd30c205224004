"""`llmctl plan`: from a recipe to what each of its stages needs, with nothing read but the recipe and configurations."""

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.preflight.gpus import gpu_like, known_gpu
from llmctl.preflight.plan import check_shared
from llmctl.preflight.storage import nearest_folder
from llmctl.recipe.chat_schema import LoraTable
from llmctl.recipe.graph import line_of, stage_order
from llmctl.recipe.load import load_recipe
from llmctl.recipe.presets import VOCABULARY, resolve_model
from llmctl.recipe.schema import LongContextTable, Recipe, TrainTable
from llmctl.stages.bench import UNKNOWN_BUDGET, config_of, new_tokens, starting_shape
from llmctl.stages.costs import StageCost, cost_of, fastest_of
from llmctl.stages.lora import adapter_of
from llmctl.stages.training import by_ladder


@dataclass(frozen=True, slots=True)
class StageNeeds:
    """What a stage that trains needs on one rank; bytes and tokens."""

    stage: str
    kind: str
    parameters: int
    trained: int
    steps: int | None
    """None: the budget is in epochs, and the text is not counted yet."""
    tokens: int | None
    seq_len: int
    rows: int
    """Of a step, over all ranks."""
    micro_batch: int
    ranks: int
    zero_stage: int
    precision: str
    memory: Any
    """A `Memory`."""
    needs: float
    usable: int
    fits: bool
    longest_row: int
    """Tokens that fit with micro-batch 1 as the settings are; 0: none."""
    context: str | None
    """Of a long-context stage: from which length to which, and how."""
    cost: StageCost
    changes: list[Any] = field(default_factory=list)
    """`Change`s, where it does not fit, each by itself."""
    remedy: Any = None
    """The `Change` of several keys that makes it fit, or comes nearest."""
    fastest: Any = None
    """The `Setting` that was searched for, if one was."""


@dataclass(frozen=True, slots=True)
class Plan:
    recipe: str
    machines: list[Any]
    """`Machine` of each stage; they differ in ranks alone."""
    notes: list[str]
    stages: list[StageNeeds]
    price: float | None = None
    """Dollars of a rank's hour."""
    asked_price: bool = False
    """Whether the command's options say it."""
    disk_free: int = 0
    """Bytes where runs are written."""

    @property
    def fits(self) -> bool:
        return all(stage.fits for stage in self.stages)

    @property
    def disk_peak(self) -> int:
        """Bytes that the stages take at most, made one after the other."""
        from llmctl.preflight.disk import Disk, peak_of_run

        return peak_of_run([Disk(stage.cost.disk_left, stage.cost.disk_peak) for stage in self.stages])

    @property
    def seconds(self) -> float | None:
        """Of all stages whose time is known; None: of none."""
        return total(stage.cost.seconds for stage in self.stages)

    @property
    def dollars(self) -> float | None:
        return total(stage.cost.dollars for stage in self.stages)


def total(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


@dataclass(frozen=True, slots=True)
class Wanted:
    """The command's options."""

    ranks: int | None = None
    gpu: str | None = None
    memory: str | None = None
    price: float | None = None
    fit: bool = False
    runs: Path = Path("runs")


def plan_recipe(file: Path, overrides: list[str], wanted: Wanted) -> Plan:
    """Plan every stage of a recipe that trains.

    Raises:
        UserError: a mistake in the recipe or an option, rows that cannot be shared by the ranks, or a model's shape that is
            not known on this machine.
    """
    recipe = load_recipe(file, overrides, corpus=False)
    tables = [table for table in stage_order(recipe) if isinstance(table, TrainTable)]
    if not tables:
        raise UserError(f"{file}: no stage that trains")
    machine_of(1, wanted)  # a mistake in the options is told before anything is looked at
    recipe, notes = with_vocabulary(recipe)
    models: dict[Any, Any] = {}
    machines = [machine_of(wanted.ranks or table.processes, wanted) for table in tables]
    gpu = machines[0].gpu
    price = wanted.price if wanted.price is not None else (None if gpu is None else gpu.price)
    stages = [needs_of(recipe, *stage, price, wanted.fit, models) for stage in zip(tables, machines, strict=True)]
    free = shutil.disk_usage(nearest_folder(wanted.runs)).free
    return Plan(recipe.name, machines, notes, stages, price, wanted.price is not None, free)


def machine_of(ranks: int, wanted: Wanted) -> Any:
    """The `Machine` that the options name, or this one: its GPU, or its memory shared by the ranks.

    Raises:
        UserError: the GPU's name is not known, or the size of its memory is none.
    """
    from llmctl.preflight.memory import Machine

    gpu = None if wanted.gpu is None else known_gpu(wanted.gpu)
    size = size_of(wanted.memory) if wanted.memory is not None else None if gpu is None else gpu.memory
    if size is not None:
        bfloat16 = gpu is None or gpu.peak is not None
        return Machine(ranks, size, True, bfloat16, wanted.gpu.lower() if wanted.gpu is not None else "GPU", gpu)
    import torch

    from llmctl.model.precision import multiplies_bfloat16
    from llmctl.runs.machine import hardware

    if torch.cuda.is_available():
        found = torch.cuda.get_device_properties(0)
        return Machine(ranks, found.total_memory, True, multiplies_bfloat16("cuda"), found.name, gpu_like(found.name))
    return Machine(ranks, hardware()["memory_bytes"] // ranks, False, multiplies_bfloat16("cpu"), "this machine's CPU")


def size_of(memory: str) -> int:
    from pydantic import TypeAdapter, ValidationError

    from llmctl.recipe.quantities import Size

    try:
        return TypeAdapter(Size).validate_python(memory)
    except ValidationError:
        raise UserError(f"--memory {memory}: expected a size in bytes: 80GB or 80GiB") from None


def with_vocabulary(recipe: Recipe) -> tuple[Recipe, list[str]]:
    """The recipe with its model's vocabulary where a tokenizer on the hub would have to tell it, and what to say of it."""
    table, tokenizer = recipe.model, recipe.tokenizer
    if table is None or table.preset is None or resolve_model(table)["vocab_size"] is not None:
        return recipe, []
    if tokenizer is None or tokenizer.path is None or Path(tokenizer.path).exists():
        return recipe, []
    note = f"vocabulary: {VOCABULARY:,} as published with {table.preset}; --set model.vocab_size=N for another"
    return recipe.model_copy(update={"model": table.model_copy(update={"vocab_size": VOCABULARY})}), [note]


def needs_of(
    recipe: Recipe, table: TrainTable, machine: Any, price: float | None, fit: bool, models: dict[Any, Any], timed: bool = True
) -> StageNeeds:
    """`models`: those known, which grows. Without `timed` nothing is said of speed, time and price: a CPU would have to work."""
    from llmctl.preflight.fit import Task, changes, longest_row, remedy
    from llmctl.preflight.memory import bucket_of
    from llmctl.preflight.speed import in_bfloat16

    start = starting_shape(recipe, table)
    table = by_ladder(table, start.get("shape"), start.get("shape_of"), table.tokens or UNKNOWN_BUDGET)
    check_shared(table, machine.ranks)
    adapter = adapter_of(table, new_tokens(recipe, table)) if isinstance(table, LoraTable) else None
    decoder, config = model_at(start, adapter, models)
    task = Task(decoder, table, machine, bucket_of(recipe.deepspeed))
    fastest = fastest_of(task) if fit else None
    if fastest is not None:
        task = task.changed(fastest.keys)
    micro_batch = task.micro_batch
    memory, fits = task.memory(micro_batch), task.fits(micro_batch)
    steps = None if table.tokens is None else max(1, table.steps.within_tokens(table.tokens))
    tokens = None if steps is None else table.steps.rows_before(steps) * table.seq_len
    return StageNeeds(
        stage=table.name,
        kind=table.kind,
        parameters=task.decoder.parameters,
        trained=task.decoder.trained,
        steps=steps,
        tokens=tokens,
        seq_len=table.seq_len,
        rows=table.steps.rows,
        micro_batch=micro_batch,
        ranks=machine.ranks,
        zero_stage=task.table.zero_stage,
        precision="bf16" if in_bfloat16(task) else "fp32",
        memory=memory,
        needs=memory.needs,
        usable=machine.usable,
        fits=fits,
        longest_row=longest_row(task),
        context=context_line(recipe, table) if isinstance(table, LongContextTable) else None,
        cost=cost_of(recipe, task, config, tokens, steps, price, timed),
        changes=[] if fits else changes(task),
        remedy=None if fits else remedy(task),
        fastest=fastest,
    )


def model_at(start: dict[str, Any], adapter: dict[str, Any] | None, known: dict[Any, Any]) -> Any:
    """The `Decoder` of the model that a stage trains, without weights, and its configuration; stages of one shape share them.
    `adapter`: the fields of an `AdapterSettings`."""
    shape = {key: value for key, value in (start.get("shape") or {}).items() if key != "max_length"}
    key = repr((shape, start.get("shape_of"), start["vocabulary"], adapter))
    if key not in known:
        import torch
        from transformers import AutoModelForCausalLM

        from llmctl.model.build import ModelShape, build_model
        from llmctl.model.embeddings import resize_embeddings
        from llmctl.model.load import causal_config, quieten
        from llmctl.model.lora import AdapterSettings, add_adapter
        from llmctl.model.loss import base_model
        from llmctl.preflight.decoder import decoder_of

        quieten()
        with torch.device("meta"):
            if start.get("shape") is not None:
                model = build_model(ModelShape(**start["shape"]), seed=1, device="meta")
            else:
                model = AutoModelForCausalLM.from_config(causal_config(start["shape_of"]))
            resize_embeddings(model, start["vocabulary"])
            if adapter is not None:
                model = add_adapter(model, AdapterSettings(**adapter), seed=1)
        known[key] = decoder_of(model), base_model(model).config
    return known[key]


def context_line(recipe: Recipe, table: LongContextTable) -> str:
    """From the parent's context to the stage's, by which method, and what is wrong where that does not reach."""
    before, rope = max(lengths_before(recipe, table)), table.rope
    line = f"context {before:,} -> {table.seq_len:,} tokens by {rope.told}"
    original = rope.original_length or before
    short = rope.method not in ("base", "none") and original * rope.factor < table.seq_len
    return f"{line}; {rope.too_short(original, table.seq_len)}" if short else line


def lengths_before(recipe: Recipe, table: TrainTable) -> Iterator[int]:
    """Context of what a stage starts from, and of the stages between that extend it."""
    line = line_of(recipe, table)
    first = line[-1]
    outside = first.from_ if isinstance(first, TrainTable) else getattr(first, "of", [None])[0]
    yield config_of(outside).max_position_embeddings if outside is not None else getattr(first, "seq_len", 0)
    yield from (stage.seq_len for stage in line[1:] if isinstance(stage, LongContextTable))
