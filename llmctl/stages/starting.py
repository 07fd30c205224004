"""`llmctl init`: the answers, from flags and from a look at the data, and the recipe that follows from them."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from llmctl.errors import UserError
from llmctl.preflight.disk import text_bytes
from llmctl.preflight.gpus import GPUS, known_gpu, name_like
from llmctl.recipe.check import looks_like_hub_name
from llmctl.recipe.corpus_schema import BUILTIN_BYTES, CHAT_BUILTINS, TEXT_BUILTINS, SourceTable
from llmctl.recipe.fields import BUILTIN, HUB, is_path
from llmctl.recipe.starting import ON_BASE, Answers, Data, Goal, Hardware
from llmctl.runs.machine import hardware as this_machine
from llmctl.runs.store import RunStore, default_root
from llmctl.stages.checked import local_files


def answers_of(file: Path, goal: Goal, base: str | None, data: Sequence[str], hardware: str) -> Answers:
    """The answers that a recipe is written from.

    Raises:
        UserError: the data or the model are not there, or do not fit the goal.
    """
    if goal in ON_BASE and base is None:
        raise UserError(f"--goal {goal} starts from a model: name it with --base, a folder or a hub name")
    if goal == "pretrain" and base is not None:
        raise UserError("--goal pretrain makes a new model; leave --base out, or take --goal continue")
    base = None if base is None else model_of(base)
    names: list[str] = []
    looked = [look(place, goal, names) for place in data or default_data(goal)]
    answers = Answers(str(file), name_of(file.stem, []), goal, base, looked, hardware_of(hardware), context_of(base))
    wanted = "text" if goal in ("pretrain", "continue") else "chat"
    if not answers.of_kind(wanted):
        what = "text" if wanted == "text" else "conversations"
        raise UserError(f"--goal {goal} trains on {what}, and there is none in {', '.join(data)}; see docs/recipe.md for shapes")
    return answers


def model_of(base: str) -> str:
    """A model folder or a hub name; of a stage of a run, as olmo_small/sft, the folder of its newest model.

    Raises:
        UserError: it is none of these.
    """
    if Path(base).expanduser().exists():
        return base
    for artifact in RunStore(default_root()).checkpoints_named(base):
        return str(artifact.folder / "model")
    if not looks_like_hub_name(base):
        raise UserError(f"--base {base}: no such folder (seen from {Path.cwd()}), no stage of a run, and no hub name")
    return base


def default_data(goal: Goal) -> Sequence[str]:
    return TEXT_BUILTINS[:1] if goal in ("pretrain", "continue") else CHAT_BUILTINS[:1]


def look(place: str, goal: Goal, names: list[str]) -> Data:
    """A source as the first row of it tells; of what is not on this machine, as the goal has it. `names`: those taken."""
    by_goal: Literal["text", "chat"] = "text" if goal in ("pretrain", "continue") else "chat"
    if place.startswith(BUILTIN):
        if place not in TEXT_BUILTINS + CHAT_BUILTINS:
            raise UserError(f"--data {place}: unknown; known are {', '.join(TEXT_BUILTINS + CHAT_BUILTINS)}")
        kind = "chat" if place in CHAT_BUILTINS else "text"
        return Data(name_of(place, names), place, kind, bytes=BUILTIN_BYTES[place])
    if is_path(place) and not Path(place).expanduser().exists():
        if not looks_like_hub_name(place):
            raise UserError(f"--data {place}: no such file or folder (seen from {Path.cwd()})")
        place = f"{HUB}{place}"
    if not is_path(place):
        return Data(name_of(place, names), place, by_goal)
    table = SourceTable(path=place)
    kind, field = first_row(table)
    return Data(name_of(place, names), place, kind, field, text_bytes(local_files(table), None))


def first_row(table: SourceTable) -> tuple[Literal["text", "chat"], str]:
    """Whether a source holds conversations or text, and the field of the text.

    Raises:
        UserError: it has no row, or one that is neither.
    """
    from llmctl.corpus.rows import Faults
    from llmctl.corpus.shapes import Shapes
    from llmctl.corpus.sources import Source, rows_of
    from llmctl.corpus.tool_calls import RowFault

    place, row = next(rows_of(Source("data", table), Faults("stop")), (table.path, {}))
    try:
        Shapes(table, "data").read(place, row)
    except RowFault:
        texts = {key: value for key, value in row.items() if isinstance(value, str)}
        if not texts:
            fields = ", ".join(map(str, row)) or "no field"
            raise UserError(f"{place}: neither text nor a conversation (it has {fields})") from None
        return "text", "text" if "text" in texts else max(texts, key=lambda key: len(texts[key]))
    return "chat", "text"


def name_of(place: str, taken: list[str]) -> str:
    """A name for a source or a run, from its path, which no other has."""
    last = re.split(r"[/:\\]", place.rstrip("/"))[-1].split(".")[0]
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", last).strip("_-") or "data"
    name = next(name for name in (plain, *(f"{plain}_{number}" for number in range(2, 1000))) if name not in taken)
    taken.append(name)
    return name


def context_of(base: str | None) -> int | None:
    """Tokens that a model folder of this machine was trained for."""
    file = Path(base or "").expanduser() / "config.json"
    try:
        length = json.loads(file.read_text(encoding="utf-8")).get("max_position_embeddings") if base else None
    except (OSError, ValueError):
        return None
    return length if isinstance(length, int) else None


def hardware_of(told: str) -> Hardware:
    """The hardware that `cpu`, `h100` or `8xh100` means.

    Raises:
        UserError: it is none of these.
    """
    match = re.fullmatch(r"(?:(\d{1,4})x)?([a-z][a-z0-9-]*)", told.strip().lower())
    if match is None or int(match[1] or 1) < 1 or (match[2] == "cpu" and match[1]):
        raise UserError(f"--hardware {told}: expected cpu, or a number of GPUs as in 8xh100; known are {', '.join(GPUS)}")
    if match[2] == "cpu":
        return Hardware("cpu", 1, None)
    try:
        return Hardware(told.strip().lower(), int(match[1] or 1), known_gpu(match[2]).memory)
    except UserError:
        raise UserError(f"--hardware {told}: GPUs that are known are {', '.join(GPUS)}; take one of like memory") from None


def found_hardware() -> str:
    """This machine's, as the command line has it; a GPU that is not known by its name counts as the smallest that is."""
    gpus = this_machine()["gpus"]
    if not gpus:
        return "cpu"
    smallest = min(GPUS, key=lambda name: GPUS[name].memory)
    return f"{len(gpus)}x{name_like(gpus[0]) or smallest}"
